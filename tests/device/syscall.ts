/**
 * System calls as the kernel answers them: a result, or a negative errno from the very same register. libc's errno is
 * never read, so an exact errno can be tested, from any thread. No policy; x86_64 and aarch64, as the VMs are.
 */

import { systemPageBytes } from "../../src/system/pages.ts";

interface Machine {
  /** Numbers of the system calls. */
  readonly numbers: Readonly<Record<keyof typeof X86_64, number>>;
  readonly directFlag: number;
  /** long syscall6(long number, long a, … long f): arguments move one register on, and the result stays untranslated. */
  readonly code: ArrayLike<number>;
}

/** Numbers of arch/x86/entry/syscalls/syscall_64.tbl. */
const X86_64 = {
  read: 0,
  write: 1,
  close: 3,
  mmap: 9,
  mprotect: 10,
  munmap: 11,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  madvise: 28,
  dup: 32,
  getpid: 39,
  execve: 59,
  fcntl: 72,
  fsync: 74,
  prctl: 157,
  gettid: 186,
  io_setup: 206,
  io_destroy: 207,
  io_submit: 209,
  epoll_ctl: 233,
  tgkill: 234,
  openat: 257,
  ppoll: 271,
  epoll_pwait: 281,
  fallocate: 285,
  epoll_create1: 291,
  dup3: 292,
  finit_module: 313,
  bpf: 321,
  userfaultfd: 323,
} as const;

const MACHINES: Readonly<Record<typeof Deno.build.arch, Machine>> = {
  x86_64: {
    numbers: X86_64,
    directFlag: 0o40000,
    // deno-fmt-ignore
    code: [
      0x48, 0x89, 0xf8, // mov rax, rdi
      0x48, 0x89, 0xf7, // mov rdi, rsi
      0x48, 0x89, 0xd6, // mov rsi, rdx
      0x48, 0x89, 0xca, // mov rdx, rcx
      0x4d, 0x89, 0xc2, // mov r10, r8
      0x4d, 0x89, 0xc8, // mov r8, r9
      0x4c, 0x8b, 0x4c, 0x24, 0x08, // mov r9, [rsp + 8]
      0x0f, 0x05, // syscall
      0xc3, // ret
    ],
  },
  aarch64: {
    // Of include/uapi/asm-generic/unistd.h.
    numbers: {
      io_setup: 0,
      io_destroy: 1,
      io_submit: 2,
      epoll_create1: 20,
      epoll_ctl: 21,
      epoll_pwait: 22,
      dup: 23,
      dup3: 24,
      fcntl: 25,
      ioctl: 29,
      fallocate: 47,
      openat: 56,
      close: 57,
      read: 63,
      write: 64,
      pread64: 67,
      pwrite64: 68,
      ppoll: 73,
      fsync: 82,
      tgkill: 131,
      prctl: 167,
      getpid: 172,
      gettid: 178,
      munmap: 215,
      execve: 221,
      mmap: 222,
      mprotect: 226,
      madvise: 233,
      finit_module: 273,
      bpf: 280,
      userfaultfd: 282,
    },
    directFlag: 0o200000,
    // deno-fmt-ignore
    code: new Uint8Array(Uint32Array.of(
      0xaa0003e8, // mov x8, x0
      0xaa0103e0, // mov x0, x1
      0xaa0203e1, // mov x1, x2
      0xaa0303e2, // mov x2, x3
      0xaa0403e3, // mov x3, x4
      0xaa0503e4, // mov x4, x5
      0xaa0603e5, // mov x5, x6
      0xd4000001, // svc #0
      0xd65f03c0, // ret
    ).buffer),
  },
};

const machine = MACHINES[Deno.build.arch];

/** Numbers of system calls. */
export const NR = machine.numbers;

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_DIRECT = machine.directFlag;
const AT_FDCWD = -100;
export const O_CLOEXEC = 0o2000000;
export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_READ_WRITE = 3;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_ANONYMOUS = 0x20;
/** A page of this machine: what mappings and their rights are made of. */
export const PAGE_BYTES = systemPageBytes();

const MMAP = { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "pointer" } as const;
const WORDS = ["i64", "i64", "i64", "i64", "i64", "i64", "i64"] as const;
function makeCode(): Deno.PointerObject {
  const libc = Deno.dlopen("libc.so.6", { mmap: MMAP }).symbols;
  const protectionAll = 7;
  const page = libc.mmap(0n, BigInt(PAGE_BYTES), protectionAll, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0n);
  if (page === null) throw new Error("Cannot map memory for code");
  new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(page, PAGE_BYTES)).set(machine.code);
  return page;
}

const code = makeCode();
const HERE = { parameters: WORDS, result: "i64" } as const;
const ELSEWHERE = { parameters: WORDS, result: "i64", nonblocking: true } as const;
const here = new Deno.UnsafeFnPointer(code as Deno.PointerObject<typeof HERE>, HERE);
const elsewhere = new Deno.UnsafeFnPointer(code as Deno.PointerObject<typeof ELSEWHERE>, ELSEWHERE);

/** An argument of a system call; memory is passed by its address, and must outlive a call on another thread. */
export type Argument = number | bigint | Uint8Array<ArrayBuffer>;

type Words = [bigint, bigint, bigint, bigint, bigint, bigint];

function toWords(args: readonly Argument[]): Words {
  const words: Words = [0n, 0n, 0n, 0n, 0n, 0n];
  args.forEach((arg, i) => {
    words[i] = BigInt.asIntN(64, typeof arg === "object" ? BigInt(addressOf(arg)) : BigInt(arg));
  });
  return words;
}

/** The address of memory that is not on V8's heap. */
export function addressOf(bytes: Uint8Array<ArrayBuffer>): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

/** Makes a system call on this thread. Returns its result, or a negative errno. */
export function syscall(number: number, ...args: Argument[]): number {
  return Number(here.call(BigInt(number), ...toWords(args)));
}

/** Makes a system call on another thread. */
export async function syscallAsync(number: number, ...args: Argument[]): Promise<number> {
  return Number(await elsewhere.call(BigInt(number), ...toWords(args)));
}

/** A string as C has it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(text);
  // More than 64 bytes are never on V8's heap.
  const copy = new Uint8Array(new ArrayBuffer(Math.max(bytes.length + 1, 128)));
  copy.set(bytes);
  return copy;
}

/** open(2): a file descriptor or a negative errno. Always close-on-exec unless `inherited`. */
export function open(path: string, flags: number, inherited = false): number {
  return syscall(NR.openat, AT_FDCWD, cString(path), flags | (inherited ? 0 : O_CLOEXEC), 0o600);
}

/** The same on another thread. */
export function openAsync(path: string, flags: number): Promise<number> {
  return syscallAsync(NR.openat, AT_FDCWD, cString(path), flags | O_CLOEXEC, 0);
}

/** poll(2) of `count` structures on another thread; -1 ms is for ever. */
export function pollAsync(fds: Argument, count: number, timeoutMs: number): Promise<number> {
  return syscallAsync(NR.ppoll, fds, count, timespec(timeoutMs), 0, 0);
}

/** poll(2) that does not wait. */
export function pollNow(fds: Argument, count: number): number {
  return syscall(NR.ppoll, fds, count, timespec(0), 0, 0);
}

/** struct timespec; a null pointer where there is no end. */
function timespec(milliseconds: number): Argument {
  if (milliseconds < 0) return 0;
  const words = new BigInt64Array(new ArrayBuffer(128));
  words.set([BigInt(Math.floor(milliseconds / 1000)), BigInt(milliseconds % 1000 * 1_000_000)]);
  return new Uint8Array(words.buffer);
}

export function close(fd: number): number {
  return syscall(NR.close, fd);
}

/** ioctl(2): its result or a negative errno. */
export function ioctl(fd: number, request: number, argument: Argument): number {
  return syscall(NR.ioctl, fd, request, argument);
}

/** Memory of its own mapping, so that tests can take it away. */
export class Memory implements Disposable {
  readonly address: number;
  readonly bytes: Uint8Array<ArrayBuffer>;

  /** Anonymous memory, or a shared mapping of an open file; at `wanted`, if nothing is there. */
  constructor(sizeBytes: number, fd = -1, wanted = 0) {
    const flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    const address = syscall(NR.mmap, wanted, sizeBytes, PROT_READ_WRITE, flags, fd, 0);
    if (address < 0) throw new Error(`Cannot map ${sizeBytes} bytes: errno ${-address}`);
    this.address = address;
    const pointer = Deno.UnsafePointer.create(BigInt(address))!;
    this.bytes = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, sizeBytes));
  }

  protect(protection: number, offset = 0, lengthBytes = this.bytes.length - offset): void {
    const result = syscall(NR.mprotect, this.address + offset, lengthBytes, protection);
    if (result < 0) throw new Error(`mprotect: errno ${-result}`);
  }

  [Symbol.dispose](): void {
    syscall(NR.munmap, this.address, this.bytes.length);
  }
}
