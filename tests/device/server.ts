/**
 * A server played by hand: devices and queues as the header describes them, every call with its exact errno, nothing
 * retried and nothing hidden. Built on src/module/abi.ts and plain system calls, not on serve(), whose mistakes it must show.
 */
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { decode, type Decoded, encode, type Struct } from "../../src/system/struct.ts";
import { close, ioctl, Memory, NR, O_NONBLOCK, O_RDWR, open, pollAsync, syscall, syscallAsync } from "./syscall.ts";

export const KIB = 2 ** 10;
export const MIB = 2 ** 20;
const POLLIN = 1;

export type CreateParams = Partial<Decoded<typeof abi.dblock_create>>;
export type Info = Decoded<typeof abi.dblock_info>;

/** A small device with one queue, delivered data, no timeout: what a test does not care about. */
export function params(name: string, overrides: CreateParams = {}): CreateParams {
  return {
    name,
    size_bytes: 16 * MIB,
    logical_block_bytes: 512,
    physical_block_bytes: 4096,
    max_io_bytes: 128 * KIB,
    queue_count: 1,
    queue_depth: 16,
    ...overrides,
  };
}

/** Result of {@linkcode call}: errno 0 is success. */
export interface CallResult<S extends Struct> {
  readonly errno: number;
  readonly out: Decoded<S>;
}

/**
 * An ioctl with a structure. Checks that the errno in the structure is the errno of the call.
 *
 * @param patch changes the encoded bytes, for values that do not fit a number
 */
export function call<S extends Struct>(
  fd: number,
  request: number,
  layout: S,
  values: Partial<Decoded<S>> = {},
  patch?: (view: DataView) => void,
): CallResult<S> {
  const bytes = encode(layout, values);
  patch?.(new DataView(bytes.buffer));
  const result = ioctl(fd, request, bytes);
  return toResult(layout, bytes, result);
}

/** {@linkcode call} on another thread, for calls that wait. */
export async function callAsync<S extends Struct>(
  fd: number,
  request: number,
  layout: S,
  values: Partial<Decoded<S>> = {},
): Promise<CallResult<S>> {
  const bytes = encode(layout, values);
  return toResult(layout, bytes, await syscallAsync(NR.ioctl, fd, request, bytes));
}

function toResult<S extends Struct>(layout: S, bytes: Uint8Array, result: number): CallResult<S> {
  assert(result <= 0, `an ioctl returned ${result}`);
  const errno = 0 - result;
  const inBand = new DataView(bytes.buffer).getUint32(0, true);
  if (errno !== ERRNO.EFAULT && errno !== ERRNO.ENOTTY) {
    assertEquals(inBand, errno, `${layout.name}.error is not the call's errno`);
  }
  // Decoded when asked for: a patch may have put more into a field than a number holds.
  return {
    errno,
    get out() {
      return decode(layout, bytes);
    },
  };
}

/** An open /dev/dblockctl. */
export class Control implements Disposable {
  readonly fd = open(abi.DBLOCK_CONTROL_PATH, O_RDWR);

  constructor() {
    assert(this.fd >= 0, `${abi.DBLOCK_CONTROL_PATH}: errno ${-this.fd}`);
  }

  create(values: CreateParams, patch?: (view: DataView) => void): CallResult<typeof abi.dblock_create> {
    return call(this.fd, abi.DBLOCK_IOC_CREATE, abi.dblock_create, values, patch);
  }

  /** DESTROY on another thread: the one that serves may be needed for it. */
  destroy(name: string, options: { force?: boolean } = {}): Promise<CallResult<typeof abi.dblock_destroy>> {
    const flags = options.force ? abi.DBLOCK_DESTROY_FORCE : 0;
    return callAsync(this.fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name, flags });
  }

  /** Undefined: there is no such device. */
  info(name: string): Info | undefined {
    const { errno, out } = call(this.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name });
    if (errno === ERRNO.ENOENT) return undefined;
    assertEquals(errno, 0);
    return out;
  }

  /** LIST: every device there is, up to so many. */
  list(capacity = 64): Info[] {
    using infos = new Memory(capacity * abi.dblock_info.size);
    const values = { capacity, infos_address: infos.address };
    const { errno, out } = call(this.fd, abi.DBLOCK_IOC_LIST, abi.dblock_list, values);
    assertEquals(errno, 0);
    return Array.from({ length: out.count }, (_, i) => {
      return decode(abi.dblock_info, infos.bytes.subarray(i * abi.dblock_info.size));
    });
  }

  [Symbol.dispose](): void {
    close(this.fd);
  }
}

/** INFO by name; undefined if there is no such device. */
export function infoOf(name: string): Info | undefined {
  using control = new Control();
  return control.info(name);
}

/** Destroys a device if it is there, and says how that went. */
export async function destroyDevice(name: string, options: { force?: boolean } = { force: true }): Promise<number> {
  using control = new Control();
  return (await control.destroy(name, options)).errno;
}

/** struct dblock_request, and which queue it came from. */
export interface Request {
  readonly queue: number;
  readonly slot: number;
  readonly generation: number;
  readonly operation: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** struct dblock_completion; what is left out is 0. */
export type Completion = Partial<Decoded<typeof abi.dblock_completion>>;

/** Flags of EXCHANGE. */
export interface ExchangeOptions {
  /** The eventfd tells when to come again. */
  readonly arm?: boolean;
  /** It sleeps for a moment before it says EAGAIN. */
  readonly linger?: boolean;
}

function flagsOf({ arm = false, linger = false }: ExchangeOptions): number {
  return (arm ? abi.DBLOCK_EXCHANGE_ARM : 0) + (linger ? abi.DBLOCK_EXCHANGE_LINGER : 0);
}

/** What an EXCHANGE did: `result` is the call's, and the header is there unless that is EFAULT. */
export interface Exchanged {
  readonly result: number;
  readonly header: Decoded<typeof abi.dblock_ring_header>;
  readonly requests: readonly Request[];
  /** enum dblock_status of each completion looked at. */
  readonly statuses: readonly number[];
}

/** What a COMMIT did. */
export interface Committed {
  readonly errno: number;
  readonly completionCount: number;
  readonly refusedCount: number;
  readonly statuses: readonly number[];
}

/** An open /dev/NAME-ctl with memory for one queue. Attaches only when told to. */
export class Queue implements Disposable {
  readonly fd: number;
  readonly index: number;
  readonly depth: number;
  readonly ring: Memory;
  /** Slots of a delivered device; undefined in direct mode. */
  readonly buffer: Memory | undefined;
  readonly slotBytes: number;
  /** COMMIT's completions, so that the ring's own stay for EXCHANGE. */
  readonly #late: Memory;
  #closed = false;

  constructor(created: CreateParams, index: number, options: { blocking?: boolean; inherited?: boolean } = {}) {
    const { name, queue_depth: depth = 0, max_io_bytes: slotBytes = 0, flags = 0 } = created;
    this.index = index;
    this.depth = depth;
    this.slotBytes = slotBytes;
    this.fd = open(`/dev/${name}-ctl`, O_RDWR | (options.blocking ? 0 : O_NONBLOCK), options.inherited);
    assert(this.fd >= 0, `open /dev/${name}-ctl: errno ${-this.fd}`);
    this.ring = new Memory(abi.DBLOCK_RING_BYTES(depth));
    this.#late = new Memory(depth * abi.dblock_completion.size);
    this.buffer = flags & abi.DBLOCK_DEVICE_DIRECT ? undefined : new Memory(depth * slotBytes);
  }

  /** ATTACH; returns the errno. */
  attach(overrides: Partial<Decoded<typeof abi.dblock_attach>> = {}, patch?: (view: DataView) => void): number {
    return call(this.fd, abi.DBLOCK_IOC_ATTACH, abi.dblock_attach, this.#attachment(overrides), patch).errno;
  }

  /** ATTACH on another thread. */
  async attachAsync(overrides: Partial<Decoded<typeof abi.dblock_attach>> = {}): Promise<number> {
    return (await callAsync(this.fd, abi.DBLOCK_IOC_ATTACH, abi.dblock_attach, this.#attachment(overrides))).errno;
  }

  #attachment(overrides: Partial<Decoded<typeof abi.dblock_attach>>): Partial<Decoded<typeof abi.dblock_attach>> {
    return {
      queue: this.index,
      ring_address: this.ring.address,
      ring_bytes: this.ring.bytes.length,
      buffer_address: this.buffer?.address ?? 0,
      buffer_bytes: this.buffer?.bytes.length ?? 0,
      ...overrides,
    };
  }

  /** The slot of a request in the buffer, as long as the request. */
  data(request: Request): Uint8Array<ArrayBuffer> {
    const start = request.slot * this.slotBytes;
    return this.buffer!.bytes.subarray(start, start + request.lengthBytes);
  }

  /** EXCHANGE, on this thread: for a queue that does not block. */
  exchange(completions: readonly Completion[] = [], options: ExchangeOptions = {}): Exchanged {
    this.#write(this.#completionsAt, this.ring, completions);
    const result = ioctl(this.fd, abi.DBLOCK_IOC_EXCHANGE, completions.length + flagsOf(options));
    return this.read(result, completions.length);
  }

  /** Answers what waits, without data, until nothing does. */
  answerAll(): void {
    for (let { requests } = this.exchange(); requests.length > 0;) {
      ({ requests } = this.exchange(requests.map((request) => done(request))));
    }
  }

  /** EXCHANGE without looking at the ring, which may not be there: the call's result. */
  exchangeOnly(count = 0): number {
    return ioctl(this.fd, abi.DBLOCK_IOC_EXCHANGE, count);
  }

  /** EXCHANGE on another thread: it may wait. */
  async exchangeAsync(completions: readonly Completion[] = [], options: ExchangeOptions = {}): Promise<Exchanged> {
    this.#write(this.#completionsAt, this.ring, completions);
    const argument = completions.length + flagsOf(options);
    const result = await syscallAsync(NR.ioctl, this.fd, abi.DBLOCK_IOC_EXCHANGE, argument);
    return this.read(result, completions.length);
  }

  /** What the ring says after an EXCHANGE. */
  read(result: number, completionCount: number): Exchanged {
    const bytes = this.ring.bytes;
    const header = decode(abi.dblock_ring_header, bytes);
    if (result < 0 && result !== -ERRNO.EFAULT && result !== -ERRNO.ENOTCONN && result !== -ERRNO.EBUSY) {
      assertEquals(header.error, -result, "the ring's error is not the call's errno");
    }
    const requests = Array.from({ length: Math.max(0, result) }, (_, i) => this.#request(i));
    return { result, header, requests, statuses: this.#statuses(this.#completionsAt, this.ring, completionCount) };
  }

  /** COMMIT. */
  commit(
    completions: readonly Completion[],
    overrides: Partial<Decoded<typeof abi.dblock_commit>> = {},
  ): Committed {
    this.#write(0, this.#late, completions.slice(0, this.depth));
    const { errno, out } = call(this.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, {
      count: completions.length,
      completions_address: this.#late.address,
      ...overrides,
    });
    return {
      errno,
      completionCount: out.completion_count,
      refusedCount: out.refused_count,
      statuses: this.#statuses(0, this.#late, completions.length),
    };
  }

  get #completionsAt(): number {
    return abi.dblock_ring_header.size + this.depth * abi.dblock_request.size;
  }

  #write(at: number, memory: Memory, completions: readonly Completion[]): void {
    completions.forEach((completion, i) => {
      memory.bytes.set(encode(abi.dblock_completion, completion), at + i * abi.dblock_completion.size);
    });
  }

  #statuses(at: number, memory: Memory, count: number): number[] {
    return Array.from({ length: Math.min(count, this.depth) }, (_, i) => {
      const start = at + i * abi.dblock_completion.size;
      return decode(abi.dblock_completion, memory.bytes.subarray(start)).status;
    });
  }

  #request(index: number): Request {
    const start = abi.dblock_ring_header.size + index * abi.dblock_request.size;
    const request = decode(abi.dblock_request, this.ring.bytes.subarray(start));
    return {
      queue: this.index,
      slot: request.slot,
      generation: request.generation,
      operation: request.operation,
      flags: request.flags,
      offsetBytes: request.offset_bytes,
      lengthBytes: request.length_bytes,
    };
  }

  /** poll(2) for input, on another thread: revents. */
  async poll(timeoutMs: number): Promise<number> {
    return (await pollFds([this.fd], timeoutMs))[0]!;
  }

  /** Closes the file; the memory stays until the end of the process, as a request may be copied from it still. */
  [Symbol.dispose](): void {
    if (!this.#closed) close(this.fd);
    this.#closed = true;
  }
}

/** poll(2) for input: revents of each. */
export async function pollFds(fds: readonly number[], timeoutMs: number): Promise<number[]> {
  const bytes = new Uint8Array(new ArrayBuffer(Math.max(128, fds.length * 8)));
  const view = new DataView(bytes.buffer);
  fds.forEach((fd, i) => {
    view.setInt32(i * 8, fd, true);
    view.setInt16(i * 8 + 4, POLLIN, true);
  });
  await pollAsync(bytes, fds.length, timeoutMs);
  return fds.map((_, i) => view.getInt16(i * 8 + 6, true));
}

/** A reserved array of a structure with a 1 in one place. */
export function oneAt(index: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => i === index ? 1 : 0);
}

/** START; returns the errno. */
export function startDevice(fd: number, flags = 0): number {
  return call(fd, abi.DBLOCK_IOC_START, abi.dblock_start, { flags }).errno;
}

/** RESIZE; returns the errno. */
export function resizeDevice(fd: number, sizeBytes: number, flags = 0): number {
  return call(fd, abi.DBLOCK_IOC_RESIZE, abi.dblock_resize, { size_bytes: sizeBytes, flags }).errno;
}

/** The completion that says "done", or failed with `error`. */
export function done(request: Request, error = 0): Completion {
  return { slot: request.slot, generation: request.generation, length_bytes: request.lengthBytes, error };
}

/** Makes a device and checks that it worked. */
export function createDevice(values: CreateParams): Decoded<typeof abi.dblock_create> {
  using control = new Control();
  const { errno, out } = control.create(values);
  assertEquals(errno, 0, `CREATE ${values.name}`);
  return out;
}

/** Sends a signal to one thread of this process. */
export function signalThread(tid: number, signal: number): void {
  assertEquals(syscall(NR.tgkill, Deno.pid, tid, signal), 0);
}

/** The threads of a process that wait in an ioctl of the module. (wchan would name its function, but not on Linux 5.10.) */
export function threadsInDblock(pid = Deno.pid): number[] {
  const typeOf = (request: number) => (request >>> 8) & 0xff;
  return threadsAsleep(pid, ([number, , request]) => {
    return number === NR.ioctl && typeOf(request!) === typeOf(abi.DBLOCK_IOC_EXCHANGE);
  });
}

/** The threads of this process that sleep in {@linkcode Queue.poll}. */
export function threadsInPoll(): number[] {
  return threadsAsleep(Deno.pid, ([number]) => number === NR.ppoll);
}

/** The threads that sleep in a system call, known by its number and its arguments. */
function threadsAsleep(pid: number, isMeant: (call: readonly number[]) => boolean): number[] {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => Number(name)).filter((tid) => {
    try {
      // "running" for one that does not sleep.
      return isMeant(Deno.readTextFileSync(`/proc/${pid}/task/${tid}/syscall`).split(" ").map(Number));
    } catch {
      return false; // it ended meanwhile
    }
  });
}
