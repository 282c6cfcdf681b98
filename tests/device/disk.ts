/**
 * A disk served from the test's own event loop out of a piece of memory, with a rule that says what to answer: at once,
 * with an error, wrongly, or not yet. Built on server.ts. The test must leave all I/O to other processes.
 */
import { Buffer } from "node:buffer";
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { exists, waitFor } from "./harness.ts";
import {
  type Committed,
  type Completion,
  Control,
  createDevice,
  type CreateParams,
  destroyDevice,
  done,
  type Info,
  infoOf,
  MIB,
  params,
  pollFds,
  Queue,
  type Request,
  startDevice,
} from "./server.ts";
import { Memory } from "./syscall.ts";

/** What to do with a request: do it, keep it open, or answer with exactly this (`error` alone is enough to fail it). */
export type Verdict = "serve" | "hold" | Completion;

/** Decides about each request as it arrives. */
export type Rule = (request: Request) => Verdict;

/** Options of {@linkcode TestDisk.start}. */
export interface DiskOptions extends CreateParams {
  readonly name: string;
  /** Serves a device that exists already, instead of creating one. */
  readonly existing?: boolean;
  /** The content; at least as long as the device. @default zeroes */
  readonly store?: Memory;
  /** @default every request is served */
  readonly rule?: Rule;
  /** Files that children of this process get. @default false */
  readonly inherited?: boolean;
  /** In direct mode: the content is in this file, from there on. @default it is in `store` */
  readonly file?: { readonly fd: number; readonly atBytes: number };
  /** Takes over from a running server. @default false */
  readonly takeOver?: boolean;
  /** Attaches only so many queues, the first ones. @default all */
  readonly attachCount?: number;
}

const pollMs = 20;

/** True if all bytes are the same as this one. A loop in JavaScript takes seconds for what memcmp does at once. */
export function isFilled(bytes: Uint8Array, value: number): boolean {
  return bytes.length === 0 ||
    bytes[0] === value && Buffer.compare(bytes.subarray(1), bytes.subarray(0, bytes.length - 1)) === 0;
}

/** A disk that is being served. */
export class TestDisk implements AsyncDisposable {
  readonly name: string;
  readonly path: string;
  readonly queues: Queue[] = [];
  readonly store: Memory;
  /** May be changed at any time. */
  rule: Rule;
  /** Requests that are open because the rule said so. */
  readonly held: Request[] = [];
  /** Every request that arrived, oldest first. */
  readonly seen: Request[] = [];
  /** Completions that were refused by EXCHANGE. */
  refusedCount = 0;
  /** Why serving ended: an errno, ENODEV when the device is gone. Undefined while it goes on. */
  ended: number | undefined;
  readonly #direct: boolean;
  readonly #file: DiskOptions["file"];
  #stopped = false;
  #pump: Promise<void> | undefined;

  private constructor(options: DiskOptions, created: CreateParams) {
    this.name = options.name;
    this.path = `/dev/${options.name}`;
    this.rule = options.rule ?? (() => "serve");
    this.store = options.store ?? new Memory(created.size_bytes ?? 16 * MIB);
    this.#file = options.file;
    this.#direct = ((created.flags ?? 0) & abi.DBLOCK_DEVICE_DIRECT) !== 0;
    for (let index = 0; index < (created.queue_count ?? 1); index++) {
      this.queues.push(new Queue(created, index, { inherited: options.inherited ?? false }));
    }
  }

  /** Creates (or finds) the device, attaches all queues, and serves until it is live. */
  static async start(options: DiskOptions): Promise<TestDisk> {
    const disk = await TestDisk.attach(options);
    assertEquals(startDevice(disk.queues[0]!.fd, abi.DBLOCK_START_NO_WAIT), 0, `START ${disk.name}`);
    disk.serve();
    await disk.untilState(abi.DBLOCK_STATE_LIVE);
    await waitFor(`${disk.path} appears`, () => exists(disk.path));
    return disk;
  }

  /** The first half of {@linkcode start}: attached, and nothing is served yet. */
  static async attach(options: DiskOptions): Promise<TestDisk> {
    const { existing = false, store: _store, rule: _rule, inherited: _inherited, takeOver = false, ...others } =
      options;
    const { attachCount, file, ...values } = others;
    const created = existing ? infoOf(options.name)! : createDevice(params(options.name, values));
    const disk = new TestDisk(options, created);
    for (const queue of disk.queues.slice(0, attachCount)) {
      const errno = await queue.attachAsync({
        flags: (takeOver ? abi.DBLOCK_ATTACH_TAKE_OVER : 0) | (file === undefined ? 0 : abi.DBLOCK_ATTACH_FILE),
        file_fd: file?.fd ?? 0,
      });
      assertEquals(errno, 0, `ATTACH queue ${queue.index} of ${disk.name}`);
    }
    return disk;
  }

  /** INFO; throws if the device is gone. */
  info(): Info {
    const info = infoOf(this.name);
    if (info === undefined) throw new Error(`${this.path} is gone`);
    return info;
  }

  /** Waits for a state (enum dblock_state). */
  async untilState(state: number, timeoutMs = 10_000): Promise<void> {
    await waitFor(`${this.name} is in state ${state}`, () => infoOf(this.name)?.state === state, timeoutMs);
  }

  /** Begins to serve from this event loop. */
  serve(): void {
    this.#pump ??= this.#serve();
  }

  /** Stops serving; the device stays, and what it asks waits. */
  async pause(): Promise<void> {
    this.#stopped = true;
    await this.#pump;
    this.#pump = undefined;
    this.#stopped = false;
  }

  async #serve(): Promise<void> {
    const fds = this.queues.map((queue) => queue.fd);
    while (!this.#stopped && this.ended === undefined) {
      for (const queue of this.queues) this.#drain(queue);
      if (this.ended === undefined) await pollFds(fds, pollMs);
    }
  }

  #drain(queue: Queue): void {
    let completions: Completion[] = [];
    for (;;) {
      const { result, header, requests } = queue.exchange(completions);
      this.refusedCount += header.refused_count;
      if (result < 0) {
        this.ended = -result;
        return;
      }
      if (requests.length === 0) return;
      completions = requests.flatMap((request) => this.#decide(request) ?? []);
    }
  }

  #decide(request: Request): Completion | undefined {
    this.seen.push(request);
    const verdict = this.rule(request);
    if (verdict === "serve") return this.fulfil(request);
    if (verdict === "hold") {
      this.held.push(request);
      return undefined;
    }
    return { ...done(request), ...verdict };
  }

  /** Does what a request asks for. Returns its completion, which is not sent yet. */
  fulfil(request: Request): Completion {
    const { operation, offsetBytes, lengthBytes } = request;
    const range = this.store.bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
    const isData = operation === abi.DBLOCK_OPERATION_READ || operation === abi.DBLOCK_OPERATION_WRITE;
    if (this.#file !== undefined) return { ...done(request), address: this.#file.atBytes + offsetBytes };
    if (operation === abi.DBLOCK_OPERATION_DISCARD || operation === abi.DBLOCK_OPERATION_WRITE_ZEROES) range.fill(0);
    if (isData && this.#direct) return { ...done(request), address: this.store.address + offsetBytes };
    if (operation === abi.DBLOCK_OPERATION_READ) this.queues[request.queue]!.data(request).set(range);
    if (operation === abi.DBLOCK_OPERATION_WRITE) range.set(this.queues[request.queue]!.data(request));
    return done(request);
  }

  /** Answers a held request now, with what the rule should have said. */
  release(request: Request, answer: Completion = this.fulfil(request)): Committed {
    const index = this.held.indexOf(request);
    if (index >= 0) this.held.splice(index, 1);
    return this.queues[request.queue]!.commit([{ ...done(request), ...answer }]);
  }

  /** Answers everything held. */
  releaseAll(): void {
    for (const request of [...this.held]) this.release(request);
  }

  /** Waits until so many requests are held. */
  async untilHeld(count: number, timeoutMs = 10_000): Promise<void> {
    await waitFor(`${count} requests are held`, () => this.held.length >= count, timeoutMs);
  }

  /** Checks that nothing is in flight any more, for us and for the block layer. */
  async assertIdle(): Promise<void> {
    const inFlight = () => Deno.readTextFileSync(`/sys/block/${this.name}/inflight`).trim().split(/\s+/).map(Number);
    await waitFor(`nothing is in flight on ${this.name}`, () => {
      const info = this.info();
      return info.waiting_count + info.handed_count === 0 && inFlight().every((count) => count === 0);
    });
  }

  /** As if the process died: the files are closed, the device is left to its policy. */
  async abandon(): Promise<void> {
    await this.pause();
    for (const queue of this.queues) queue[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const errno = await destroyDevice(this.name, { force: true });
    await this.abandon();
    if (errno !== ERRNO.ENOENT) assertEquals(errno, 0, `DESTROY ${this.name}`);
    using control = new Control();
    assertEquals(control.info(this.name), undefined);
  }
}
