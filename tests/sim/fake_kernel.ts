// SPDX-License-Identifier: MIT
/**
 * dblock.ko in TypeScript, behind the same `Kernel` interface and over the same memory: it reads and writes a server's
 * rings and buffers at the addresses it was given.
 *
 * It has what a server meets: CREATE, DESTROY, INFO, LIST, ATTACH, START with a read of the partition table, EXCHANGE,
 * COMMIT, poll, policies on death, take-over. It does not have permissions, or most of CREATE's checks.
 */
import {
  dblock_attach,
  DBLOCK_ATTACH_EVENTFD,
  DBLOCK_ATTACH_TAKE_OVER,
  dblock_commit,
  DBLOCK_COMMIT_FLUSHED,
  DBLOCK_COMMIT_LEAVES,
  DBLOCK_CONTROL_PATH,
  DBLOCK_EXCHANGE_ARM,
  DBLOCK_EXCHANGE_LINGER,
  DBLOCK_IOC_ATTACH,
  DBLOCK_IOC_COMMIT,
  DBLOCK_IOC_EXCHANGE,
  DBLOCK_IOC_START,
  DBLOCK_ON_DEATH_HOLD,
  DBLOCK_ON_DEATH_REMOVE,
  DBLOCK_OPERATION_READ,
  dblock_request,
  dblock_ring_header,
  dblock_start,
  DBLOCK_STATE_CREATED,
  DBLOCK_STATE_FAILED,
  DBLOCK_STATE_GONE,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
} from "../../src/module/abi.ts";
import { DblockError, ERRNO } from "../../src/disk/errors.ts";
import { type Kernel, O_NONBLOCK } from "../../src/system/libc.ts";
import { decode, type Decoded, encode } from "../../src/system/struct.ts";
import type { PollFiles } from "../../src/system/waiting.ts";
import {
  answer,
  type FakeDevice,
  type FakeFile,
  IN_PROGRESS,
  isDevice,
  isReadable,
  isReady,
  serves,
  write,
} from "./fake_device.ts";
import { FakeControl } from "./fake_control.ts";
import { FakeEvent } from "./fake_event.ts";
import { FakeFileSet } from "./fake_file_set.ts";
import { type FakeQueue, type Io, KIND, memoryAt, type Mischief } from "./fake_queue.ts";
import { Random } from "./random.ts";
import { type Later, REAL } from "./scheduler.ts";

const PARTITION_TABLE_BYTES = 4096;
const POLLIN = 1;

/** Options of a `FakeKernel`. */
export interface FakeKernelOptions {
  /** @default none */
  readonly mischief?: Mischief;
  readonly random?: Random;
  /** @default the real event loop */
  readonly later?: Later;
  /** Called when a blocking EXCHANGE has nothing: it must submit or destroy something. */
  readonly onBlock?: () => void;
  readonly abiVersion?: number;
}

export class FakeKernel implements Kernel {
  readonly devices: Map<string, FakeDevice>;
  readonly files = new Map<number, FakeFile>();
  /** Who calls. */
  pid = Deno.pid;
  /** Files that are closed and whose numbers are still taken. */
  readonly abandoned = new Set<number>();
  /** Epoll sets of Workers. */
  readonly epolls = new Set<number>();
  /** Those that a bell was rung for, in order. */
  readonly rung: number[] = [];
  /** Whether there is room to wait for files. */
  hasRoomToWait = true;
  /** Whether the event loop can wait for a file by itself. */
  hasEvents = true;
  /** The module is one that knows no eventfd. */
  isOlder = false;
  /** Calls that may sleep a moment, of a device that is live. */
  lingerCount = 0;
  /** Whether files of others have something to read. */
  readonly pollable = new Map<number, () => boolean>();
  /** Eventfds that were opened. */
  readonly events = new Map<number, FakeEvent>();
  /** Errnos that open() gives for a path. */
  readonly refusedPaths = new Map<string, number>();
  /** Errnos that an ioctl gives instead of what it would. */
  readonly refusedIoctls = new Map<number, number>();
  /** Whether a thread may be an I/O flusher. */
  mayFlushIo = true;
  readonly #control: FakeControl;
  readonly #options: FakeKernelOptions;
  readonly #mischief: Mischief;
  readonly #random: Random;
  readonly #later: Later;
  readonly #fileSets = new Map<number, FakeFileSet>();
  #nextFd = 100;
  #waiters: { file: FakeFile; wake: () => void }[] = [];

  constructor(options: FakeKernelOptions = {}) {
    this.#options = options;
    this.#mischief = options.mischief ?? KIND;
    this.#random = options.random ?? new Random(1);
    this.#later = options.later ?? REAL;
    this.#control = new FakeControl({
      abiVersion: options.abiVersion,
      mischief: this.#mischief,
      random: this.#random,
      onRemoved: () => this.#wake(),
    });
    this.devices = this.#control.devices;
  }

  now(): number {
    return this.#later.nowMs;
  }

  ensureIoFlusher(): boolean {
    return this.mayFlushIo;
  }

  open(path: string, flags: number): number {
    const refused = this.refusedPaths.get(path);
    if (refused !== undefined) return -refused;
    const device = path === DBLOCK_CONTROL_PATH
      ? undefined
      : this.devices.get(path.replace("/dev/", "").replace(/-ctl$/, ""));
    if (path !== DBLOCK_CONTROL_PATH && device === undefined) return -ERRNO.ENOENT;
    const nonblocking = (flags & O_NONBLOCK) !== 0;
    const unattached = { queue: undefined, registration: undefined, event: undefined, isRung: false };
    this.files.set(this.#nextFd, { device, nonblocking, ...unattached });
    return this.#nextFd++;
  }

  close(fd: number): void {
    if (this.abandoned.delete(fd)) return;
    const file = this.files.get(fd);
    if (file === undefined) throw new Error(`close(${fd}): EBADF`);
    this.forget(fd);
    this.files.delete(fd);
    if (file.queue !== undefined && !file.queue.gone && serves(file) && file.device !== undefined) {
      file.queue.lose();
      this.#serverDied(file.device);
    }
  }

  forget(fd: number): void {
    const file = this.files.get(fd);
    this.#wake((waiter) => waiter === file);
  }

  abandon(fd: number): void {
    this.close(fd);
    this.abandoned.add(fd);
  }

  openEvent(): FakeEvent | undefined {
    if (!this.hasEvents || !this.hasRoomToWait) return undefined;
    const event = new FakeEvent(this.#nextFd++, this.#later);
    this.events.set(event.fd, event);
    return event;
  }

  /** Nobody waits here: what is ready now is found. */
  poll(files: Int32Array<ArrayBuffer>): number {
    if (this.#random.chance(this.#mischief.interrupt)) return -1;
    let count = 0;
    for (let i = 0; i < files.length; i += 2) {
      const file = this.files.get(files[i]!);
      const isFound = file === undefined ? this.pollable.get(files[i]!)?.() === true : isReady(file);
      files[i + 1] = isFound ? POLLIN << 16 | POLLIN : POLLIN;
      if (isFound) count++;
    }
    return count;
  }

  watch(_fd: number): void {
    if (!this.hasRoomToWait) throw new DblockError("EMFILE", "Cannot wait", "the kernel has no room");
  }

  openPollFiles(): PollFiles {
    this.watch(-1);
    this.epolls.add(this.#nextFd);
    return { epoll: this.#nextFd++, bell: 0 };
  }

  openFileSet(): FakeFileSet {
    return this.#fileSet(this.openPollFiles());
  }

  /** What a Worker waits with that was given these. */
  fileSetOf(files: PollFiles): FakeFileSet {
    const set = this.#fileSet(files, files.bell);
    this.#fileSets.set(files.epoll, set);
    return set;
  }

  #fileSet(files: PollFiles, bell?: number): FakeFileSet {
    return new FakeFileSet({
      isOpen: (fd) => this.files.has(fd),
      isReady: (fd) => isReadable(this.#file(fd)),
      waitFor: (fds, wake) => this.#waitForOne(fds.map((fd) => this.#file(fd)), wake),
      close: () => this.closePollFiles(files),
    }, bell);
  }

  #waitForOne(files: readonly FakeFile[], wake: () => void): void {
    const waiters = files.map((file) => ({ file, wake: () => found() }));
    const found = () => {
      this.#waiters = this.#waiters.filter((waiter) => !waiters.includes(waiter));
      this.#later.after(0, wake);
    };
    this.#waiters.push(...waiters);
    if (files.some(isReadable) || this.#random.chance(this.#mischief.spuriousWake)) found();
  }

  /** A file that is abandoned ends its wait by itself here. */
  ringPollFiles({ epoll }: PollFiles): void {
    this.rung.push(epoll);
    this.#fileSets.get(epoll)?.ring();
  }

  closePollFiles({ epoll }: PollFiles): void {
    if (!this.epolls.delete(epoll)) throw new Error(`close(${epoll}): EBADF`);
  }

  /** Force destroy, from inside the kernel. */
  remove(name: string): void {
    const device = this.devices.get(name);
    if (device !== undefined) this.#control.remove(device);
  }

  #serverDied(device: FakeDevice): void {
    const policy = device.params.on_death;
    if (device.state === DBLOCK_STATE_CREATED || policy === DBLOCK_ON_DEATH_REMOVE) return this.#control.remove(device);
    device.state = policy === DBLOCK_ON_DEATH_HOLD ? DBLOCK_STATE_HELD : DBLOCK_STATE_FAILED;
    if (device.state === DBLOCK_STATE_FAILED) device.queues.forEach((queue) => queue.fail());
  }

  setNonblocking(fd: number, isNonblocking = true): void {
    this.#file(fd).nonblocking = isNonblocking;
  }

  #file(fd: number): FakeFile {
    const file = this.files.get(fd);
    if (file === undefined) throw new Error(`EBADF: ${fd}`);
    return file;
  }

  readonly ioctlNumber = (fd: number, request: number, argument: bigint): number => {
    if (request !== DBLOCK_IOC_EXCHANGE) return -1;
    const arm = (argument & BigInt(DBLOCK_EXCHANGE_ARM)) !== 0n;
    if ((argument & BigInt(DBLOCK_EXCHANGE_LINGER)) !== 0n && this.#file(fd).device?.state === DBLOCK_STATE_LIVE) {
      this.lingerCount++;
    }
    // Nothing comes while a call is made here, so whoever lingers misses nothing.
    const count = argument & ~BigInt(DBLOCK_EXCHANGE_ARM + (this.isOlder ? 0 : DBLOCK_EXCHANGE_LINGER));
    return this.#exchange(this.#file(fd), Number(count), arm);
  };

  #exchange(file: FakeFile, count: number, arm: boolean): number {
    const queue = file.queue;
    const registration = file.registration;
    if (queue === undefined || registration === undefined) return -1;
    file.isRung = false;
    const depth = queue.slots.length;
    const requests = registration.ringAddress + dblock_ring_header.size;
    const completions = requests + depth * dblock_request.size;
    const say = (header: Partial<Decoded<typeof dblock_ring_header>>, result: number): number => {
      const all = { ...header, queue: file.device?.queues.indexOf(queue) ?? 0, id: file.device?.params.id ?? 0 };
      memoryAt(registration.ringAddress, 32).set(encode(dblock_ring_header, all).subarray(0, 32));
      return result;
    };
    if (!serves(file) && !queue.gone) return say({ error: ERRNO.ENOTCONN }, -1);
    if (count > depth) return say({ error: ERRNO.EINVAL }, -1);
    const { taken, refused, interrupted } = queue.take(completions, count);
    this.#wake();
    const outcome = { completion_count: taken, refused_count: refused };
    if (interrupted) return say({ ...outcome, error: ERRNO.EINTR }, -1);
    for (;;) {
      if (queue.gone) return say({ ...outcome, error: ERRNO.ENODEV }, -1);
      if (this.#random.chance(this.#mischief.interrupt)) return say({ ...outcome, error: ERRNO.EINTR }, 0);
      const given = queue.give(requests, depth);
      if (given > 0) return say({ ...outcome, request_count: given }, given);
      if (file.nonblocking) {
        if (arm) this.#arm(file);
        return say({ ...outcome, error: ERRNO.EAGAIN }, 0);
      }
      if (this.#options.onBlock === undefined) throw new Error("EXCHANGE would block for ever");
      this.#options.onBlock();
    }
  }

  /** Its eventfd is rung once, when EXCHANGE has something to say, or for nothing. */
  #arm(file: FakeFile): void {
    const { event } = file;
    if (event === undefined || this.#waiters.some((waiter) => waiter.file === file)) return;
    const ring = () => {
      file.isRung = true;
      event.ring();
    };
    if (isReady(file) || this.#random.chance(this.#mischief.spuriousWake)) ring();
    else this.#waiters.push({ file, wake: ring });
  }

  ioctl(fd: number, request: number, structure: Uint8Array): number {
    const file = this.#file(fd);
    const refused = this.refusedIoctls.get(request);
    if (refused !== undefined) return answer(structure, refused);
    switch (request) {
      case DBLOCK_IOC_ATTACH:
        return this.#attach(file, structure) === 0 ? 0 : -1;
      case DBLOCK_IOC_COMMIT:
        return this.#commit(file, structure);
      default:
        return this.#control.ioctl(request, structure, file.device);
    }
  }

  async ioctlAsync(fd: number, request: number, structure: Uint8Array): Promise<number> {
    await new Promise<void>((resolve) => this.#later.after(0, resolve));
    if (request === DBLOCK_IOC_START) return await this.#start(this.#file(fd), structure);
    if (request === DBLOCK_IOC_ATTACH && !this.refusedIoctls.has(request)) {
      for (;;) {
        const result = this.#attach(this.#file(fd), structure);
        if (result !== IN_PROGRESS) return result;
        await new Promise<void>((resolve) => this.#later.after(1, resolve));
      }
    }
    return this.ioctl(fd, request, structure);
  }

  pollAsync(fd: number): Promise<void> {
    const file = this.#file(fd);
    return new Promise((resolve) => {
      const wake = () => this.#later.after(0, resolve);
      if (isReady(file) || this.#random.chance(this.#mischief.spuriousWake)) return wake();
      this.#waiters.push({ file, wake });
    });
  }

  /** Ends every poll(). */
  wakeAll(): void {
    this.#wake(() => true);
  }

  #wake(ends = isReady): void {
    const ready = this.#waiters.filter(({ file }) => ends(file));
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const { wake } of ready) wake();
  }

  #attach(file: FakeFile, structure: Uint8Array): number {
    const attach = decode(dblock_attach, structure);
    const queue = file.device?.queues[attach.queue];
    if (queue === undefined) return answer(structure, ERRNO.EINVAL);
    const hasEvent = (attach.flags & DBLOCK_ATTACH_EVENTFD) !== 0;
    if (hasEvent && this.isOlder) return answer(structure, ERRNO.EOPNOTSUPP);
    const event = this.events.get(attach.event_fd);
    if (hasEvent ? event?.isOver !== false : attach.event_fd !== 0) return answer(structure, ERRNO.EINVAL);
    if (file.device !== undefined && !isDevice(file.device, attach.id)) return answer(structure, ERRNO.ESTALE);
    if (queue.gone) return answer(structure, ERRNO.ENODEV);
    if (queue.registration !== undefined) {
      if ((attach.flags & DBLOCK_ATTACH_TAKE_OVER) === 0) return answer(structure, ERRNO.EBUSY);
      queue.isBeingTaken = true;
      if (queue.handedCount > 0) return IN_PROGRESS;
      queue.lose();
    }
    if (attach.ring_address % 8 !== 0 || attach.buffer_address % 4096 !== 0) {
      return answer(structure, ERRNO.EINVAL);
    }
    queue.registration = { ringAddress: attach.ring_address, bufferAddress: attach.buffer_address };
    if (file.device !== undefined) file.device.serverPid = this.pid;
    file.queue = queue;
    file.registration = queue.registration;
    file.event = event;
    this.#wake();
    return answer(structure, 0);
  }

  #commit(file: FakeFile, structure: Uint8Array): number {
    const commit = decode(dblock_commit, structure);
    if (file.queue === undefined) return answer(structure, ERRNO.ENOTCONN);
    if (file.queue.gone) return answer(structure, ERRNO.ENODEV);
    if (!serves(file)) return answer(structure, ERRNO.ENOTCONN);
    const isLeaving = (commit.flags & DBLOCK_COMMIT_LEAVES) !== 0;
    if (isLeaving && this.isOlder) return answer(structure, ERRNO.EOPNOTSUPP);
    const { taken, refused, interrupted } = file.queue.take(commit.completions_address, commit.count);
    this.#wake();
    const error = interrupted ? ERRNO.EINTR : 0;
    const isFlushed = error === 0 && (commit.flags & DBLOCK_COMMIT_FLUSHED) !== 0;
    if (isFlushed && file.device !== undefined) file.device.isFlushed = true;
    if (isLeaving && file.device !== undefined) file.device.isLeft = true;
    write(dblock_commit, structure, { ...commit, error, completion_count: taken, refused_count: refused });
    return error === 0 ? 0 : -1;
  }

  async #start(file: FakeFile, structure: Uint8Array): Promise<number> {
    const device = file.device;
    const refused = this.refusedIoctls.get(DBLOCK_IOC_START);
    if (refused !== undefined) return answer(structure, refused);
    if (device === undefined || device.queues.some((queue) => queue.registration === undefined)) {
      return answer(structure, ERRNO.ENOTCONN);
    }
    if (!isDevice(device, decode(dblock_start, structure).id)) return answer(structure, ERRNO.ESTALE);
    if (device.state === DBLOCK_STATE_GONE) return answer(structure, ERRNO.ENODEV);
    if (device.state === DBLOCK_STATE_LIVE) return answer(structure, ERRNO.EALREADY);
    if (device.state === DBLOCK_STATE_CREATED) await this.#readPartitionTable(device);
    if (device.queues.some((queue) => queue.gone)) return answer(structure, ERRNO.ENODEV);
    device.state = DBLOCK_STATE_LIVE;
    return answer(structure, 0);
  }

  async #readPartitionTable({ params }: FakeDevice): Promise<void> {
    const lengthBytes = Math.min(PARTITION_TABLE_BYTES, params.size_bytes);
    const data = new Uint8Array(lengthBytes);
    await this.submit(params.name, { operation: DBLOCK_OPERATION_READ, flags: 0, offsetBytes: 0, lengthBytes, data });
  }

  /** A request of the block layer to a device: its errno. */
  submit(name: string, io: Omit<Io, "end">): Promise<number> {
    return new Promise((resolve) => this.send(this.queueOf(name), { ...io, end: resolve }));
  }

  /** A request to a queue; EIO at once if that is gone. Ends once, later. */
  send(queue: FakeQueue | undefined, io: Io): void {
    let ended = false;
    const end = (errno: number) => {
      if (ended) throw new Error("a request ended twice");
      ended = true;
      this.#later.after(0, () => io.end(errno));
    };
    if (queue === undefined || queue.gone) return end(ERRNO.EIO);
    queue.waiting.push({ ...io, end });
    this.#wake();
  }

  /** One of the queues of a device that is there. */
  queueOf(name: string): FakeQueue | undefined {
    const queues = this.devices.get(name)?.queues;
    return queues === undefined ? undefined : this.#random.pick(queues);
  }

  /** Fails one request that a server is at, as its timeout would. */
  expireOne(queue: FakeQueue): boolean {
    const expired = queue.expire();
    this.#wake();
    return expired;
  }
}
