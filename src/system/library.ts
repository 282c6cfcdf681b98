// SPDX-License-Identifier: MIT
/** libc as Deno sees it: the only `Deno.dlopen` of it, opened at the first call and never at import. */

// ioctl(2), open(2) and fcntl(2) are variadic in C. On x86_64 and aarch64 Linux
// a variadic integer travels in the register a declared one would.
//
// "usize" is fast only with bigints (a plain number takes V8's slow path, and a
// bigint that is made for a call costs twice the call), and is safe: the upper
// half of a u32 register is not defined. Linux looks at the lower half alone of
// an ioctl's request, so that one is a u32, which is fast with a number.
const SYMBOLS = {
  // int open(const char *path, int flags, mode_t mode)
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // int clock_gettime(clockid_t, struct timespec *)
  clock_gettime: { parameters: ["i32", "pointer"], result: "i32" },
  // int close(int fd)
  close: { parameters: ["i32"], result: "i32" },
  // int fcntl(int fd, int command, int flags)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // the same, with a struct flock *
  fcntlLock: { name: "fcntl", parameters: ["i32", "i32", "buffer"], result: "i32" },
  // int ioctl(int fd, unsigned long request, unsigned long argument)
  ioctlNumber: { name: "ioctl", parameters: ["i32", "u32", "usize"], result: "i32" },
  // int ioctl(int fd, unsigned long request, void *argument)
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" },
  // the same, on a thread of its own
  ioctlAsync: { name: "ioctl", parameters: ["i32", "u32", "buffer"], result: "i32", nonblocking: true },
  // int epoll_create1(int flags)
  epoll_create1: { parameters: ["i32"], result: "i32" },
  // int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epoll, struct epoll_event *events, int capacity,
  //                int timeout_ms), on a thread of its own
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32", nonblocking: true },
  // the same, on this thread
  epoll_waitHere: { name: "epoll_wait", parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  // int eventfd(unsigned int count, int flags)
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // int eventfd_write(int fd, eventfd_t count)
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
  // int eventfd_read(int fd, eventfd_t *count)
  eventfd_read: { parameters: ["i32", "buffer"], result: "i32" },
  // void *mmap(void *address, size_t, int protection, int flags, int fd, off_t)
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  // int munmap(void *address, size_t length)
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  // int madvise(void *address, size_t length, int advice)
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int mlock2(const void *address, size_t length, unsigned int flags)
  mlock2: { parameters: ["usize", "usize", "u32"], result: "i32" },
  // int dup3(int old, int new, int flags)
  dup3: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // long sysconf(int name)
  sysconf: { parameters: ["i32"], result: "i64" },
  // int msync(void *address, size_t length, int flags)
  msync: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int fallocate(int fd, int mode, off_t offset, off_t length)
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  // the same, on a thread of its own
  fallocateAsync: { name: "fallocate", parameters: ["i32", "i32", "i64", "i64"], result: "i32", nonblocking: true },
  // int fstatfs(int fd, struct statfs *)
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  // int flock(int fd, int operation)
  flock: { parameters: ["i32", "i32"], result: "i32" },
  // ssize_t recvmsg(int fd, struct msghdr *, int flags) and sendmsg, of less than 2 GiB: the lower half of the result says all
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // int socket(int domain, int type, int protocol)
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int connect(int fd, const struct sockaddr *, socklen_t length)
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // ssize_t sendto(int fd, const void *buffer, size_t length, int flags, const struct sockaddr *, socklen_t), as above
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  // int getsockname(int fd, struct sockaddr *, socklen_t *)
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int getsockopt(int fd, int level, int option, void *value, socklen_t *)
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // int ppoll(struct pollfd *, nfds_t count, const struct timespec *, const sigset_t *)
  ppoll: { parameters: ["buffer", "usize", "buffer", "usize"], result: "i32" },
  // ssize_t read(int fd, void *address, size_t length)
  read: { parameters: ["i32", "usize", "usize"], result: "isize" },
  // ssize_t pread(int fd, void *buffer, size_t length, off_t offset)
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  // ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  // ssize_t preadv2(int fd, const struct iovec *, int count, off_t offset, int flags), of less than 2 GiB
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" },
  // pread and pwrite, on a thread of their own
  preadAsync: { name: "pread", parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  pwriteAsync: { name: "pwrite", parameters: ["i32", "buffer", "usize", "i64"], result: "isize", nonblocking: true },
  // void *memcpy(void *to, const void *from, size_t length)
  copyFromMemory: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "usize" },
  copyToMemory: { name: "memcpy", parameters: ["usize", "buffer", "usize"], result: "usize" },
  // int fdatasync(int fd)
  fdatasync: { parameters: ["i32"], result: "i32" },
  // the same, on a thread of its own
  fdatasyncAsync: { name: "fdatasync", parameters: ["i32"], result: "i32", nonblocking: true },
  // off_t lseek(int fd, off_t offset, int whence)
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  // void *memset(void *address, int byte, size_t length)
  memset: { parameters: ["usize", "i32", "usize"], result: "usize" },
  // int prctl(int option, unsigned long, unsigned long, unsigned long,
  //           unsigned long)
  prctl: { parameters: ["i32", "usize", "usize", "usize", "usize"], result: "i32" },
  // int sched_getscheduler(pid_t thread)
  sched_getscheduler: { parameters: ["i32"], result: "i32" },
  // int sched_setscheduler(pid_t thread, int policy,
  //                        const struct sched_param *)
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  // void (*signal(int number, void (*handler)(int)))(int)
  signal: { parameters: ["i32", "usize"], result: "usize" },
  // int setrlimit(int resource, const struct rlimit *)
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  // long syscall(long number, ...), as bpf(int command, union bpf_attr *, unsigned int size): libc has no name for it
  bpf: { name: "syscall", parameters: ["i64", "i32", "buffer", "u32"], result: "i64" },
  // the same, as perf_event_open(struct perf_event_attr *, pid_t, int cpu, int group, unsigned long flags)
  perf_event_open: {
    name: "syscall",
    parameters: ["i64", "buffer", "i32", "i32", "i32", "u64"],
    result: "i64",
  },
  // the same, as io_setup(unsigned int count, aio_context_t *)
  io_setup: { name: "syscall", parameters: ["i64", "u32", "buffer"], result: "i32" },
  // the same, as io_destroy(aio_context_t)
  io_destroy: { name: "syscall", parameters: ["i64", "u64"], result: "i32" },
  // the same, as io_submit(aio_context_t, long count, struct iocb **)
  io_submit: { name: "syscall", parameters: ["i64", "u64", "i64", "buffer"], result: "i32" },
  // the same, as io_getevents(aio_context_t, long least, long most, struct io_event *, struct timespec *)
  io_getevents: { name: "syscall", parameters: ["i64", "u64", "i64", "i64", "buffer", "buffer"], result: "i32" },
  // int execv(const char *path, char *const argv[])
  execv: { parameters: ["buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const LIBC = "libc.so.6";

type Library = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
let library: Library | undefined;

/** The functions of libc, for the other files of this room: what they do is theirs to explain. */
export function libc(): Library {
  if (library !== undefined) return library;
  const { os, arch } = Deno.build;
  const littleEndian = new Uint8Array(new Uint16Array([1]).buffer, 0, 1)[0] === 1;
  if (
    os !== "linux" || !["x86_64", "aarch64"].includes(arch) || !littleEndian
  ) {
    throw new Error(`dblock runs on Linux on x86_64 or aarch64, not ${os} on ${arch}`);
  }
  return library = lazily(SYMBOLS);
}

type CFunction = (...values: (number | bigint | BufferSource)[]) => unknown;

/** Called so often before a way into C of its own is made for it: a guess, far below what making it takes. */
const SLOW_CALLS = 64;
/** Those whose callers keep the function. */
const FAST_AT_ONCE: readonly string[] = ["ioctlNumber", "clock_gettime"];

/**
 * Functions of libc that are looked up one by one, each when it is first asked for. A fast way into C is machine code that
 * Deno compiles: the first takes a process 2 ms, each takes half a millisecond more, in every Worker anew. So a function
 * gets one only when it has been called some times; before that it is called by its address, which takes some
 * microseconds. All that may be amid I/O, as V8's compiling of what is called first there: an I/O flusher's memory does
 * not wait for the disk.
 */
function lazily<S extends Deno.ForeignLibraryInterface>(symbols: S): Deno.DynamicLibrary<S>["symbols"] {
  const opened = {};
  for (const [name, definition] of Object.entries(symbols) as [string, Deno.ForeignFunction][]) {
    let slow: CFunction | undefined;
    let callsLeft = definition.nonblocking || FAST_AT_ONCE.includes(name) ? 0 : SLOW_CALLS;
    const get = () => {
      if (callsLeft-- > 0) return slow ??= byAddress(name, definition);
      const value = Deno.dlopen(LIBC, { [name]: definition }).symbols[name];
      Object.defineProperty(opened, name, { value });
      return value;
    };
    Object.defineProperty(opened, name, { get, configurable: true });
  }
  return opened as Deno.DynamicLibrary<S>["symbols"];
}

function byAddress(name: string, definition: Deno.ForeignFunction): CFunction {
  const symbol = definition.name ?? name;
  const { [symbol]: address } = Deno.dlopen(LIBC, { [symbol]: { type: "pointer" } }).symbols;
  const pointer = new Deno.UnsafeFnPointer(address as Deno.PointerObject<typeof definition>, definition);
  return (...values) => pointer.call(...values);
}
