/** Memory that never comes, by way of userfaultfd: a server stuck on it is as stuck as one can be. */
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/abi.ts";
import { encode } from "../../src/struct.ts";
import { requires } from "./harness.ts";
import { callAsync, done, type Queue, type Request } from "./server.ts";
import { close, Memory, NR, O_CLOEXEC, PAGE_BYTES, syscall } from "./syscall.ts";

const ioctlApi = 0xc018aa3f;
const ioctlRegister = 0xc020aa00;
const ioctlUnregister = 0x8010aa01;
const apiVersion = 0xaan;
const modeMissing = 1n;
const MADV_DONTNEED = 4;

/** Whether a test that needs it can run; the report says so if not. */
export function requiresDeadMemory(): boolean {
  const fd = syscall(NR.userfaultfd, O_CLOEXEC);
  if (fd >= 0) close(fd);
  return requires("userfaultfd", fd >= 0);
}

/** Memory that can lose pages: nobody will ever provide them, until it is revived or disposed of. */
export class MortalMemory extends Memory {
  readonly #fd: number;

  constructor(sizeBytes: number) {
    super(sizeBytes);
    this.#fd = syscall(NR.userfaultfd, O_CLOEXEC);
    assert(this.#fd >= 0, `userfaultfd: errno ${-this.#fd}`);
    this.#ioctl(ioctlApi, [apiVersion, 0n, 0n]);
  }

  #ioctl(request: number, words: readonly bigint[]): void {
    const argument = new Uint8Array(new BigUint64Array([...words, ...Array(16).fill(0n)]).buffer);
    assertEquals(syscall(NR.ioctl, this.#fd, request, argument), 0);
  }

  /** Who touches these whole pages waits from now on; their content is lost. */
  die(offset = 0, lengthBytes = this.bytes.length - offset): void {
    assertEquals([offset % PAGE_BYTES, lengthBytes % PAGE_BYTES], [0, 0]);
    assertEquals(syscall(NR.madvise, this.address + offset, lengthBytes, MADV_DONTNEED), 0);
    this.#ioctl(ioctlRegister, [BigInt(this.address + offset), BigInt(lengthBytes), modeMissing, 0n]);
  }

  /** All pages that are missing are plain zeroes from now on, and who waits for one goes on. */
  revive(): void {
    this.#ioctl(ioctlUnregister, [BigInt(this.address), BigInt(this.bytes.length)]);
  }

  override [Symbol.dispose](): void {
    close(this.#fd);
    super[Symbol.dispose]();
  }
}

/** {@linkcode MortalMemory} of which nothing has ever been there. */
export function deadMemory(sizeBytes: number): MortalMemory {
  const memory = new MortalMemory(sizeBytes);
  memory.die();
  return memory;
}

/** The parts of a ring, in the order in which they lie. */
export type RingPart = "header" | "requests" | "completions";

/** A ring whose parts lie on pages of their own, so that each can be lost by itself. */
export class MortalRing extends MortalMemory {
  /** So many requests, and as many completions, fill three pages each. */
  static readonly depth = 512;
  /** For ATTACH: the header ends with the first page. */
  readonly ringAddress = this.address + PAGE_BYTES - abi.dblock_ring_header.size;

  constructor() {
    super(7 * PAGE_BYTES);
  }

  lose(part: RingPart): void {
    const [firstPage, pageCount] = ({ header: [0, 1], requests: [1, 3], completions: [4, 3] } as const)[part];
    this.die(firstPage * PAGE_BYTES, pageCount * PAGE_BYTES);
  }
}

/** COMMIT on another thread of one completion, whose data is in memory that may be dead; the errno, once there is one. */
export async function commitFrom(memory: Memory, queue: Queue, request: Request): Promise<number> {
  const completion = new Memory(PAGE_BYTES);
  completion.bytes.set(encode(abi.dblock_completion, { ...done(request), address: memory.address }));
  const { errno } = await callAsync(queue.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, {
    count: 1,
    completions_address: completion.address,
  });
  return errno;
}
