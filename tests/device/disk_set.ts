/**
 * Many small disks, all served by the test's own thread, for tests of numbers: a thousand at once, ten thousand one after
 * another. Each is read-only as far as anybody looks: its first bytes are its number. The test must leave all I/O to
 * other processes.
 */
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { waitFor } from "./harness.ts";
import { type Completion, Control, done, KIB, params, pollFds, Queue, startDevice } from "./server.ts";
import { Memory, PAGE_BYTES } from "./syscall.ts";

const sizeBytes = 64 * KIB;
const queueDepth = 4;
const pollMs = 20;
/** A start that has not come to its end after so many turns never will. */
const startTurns = 1_000_000;

/** One disk of a set. */
export interface SmallDisk {
  readonly name: string;
  readonly queue: Queue;
  /** From CREATE to the disk's being there, milliseconds. */
  readonly readyMs: number;
}

/** The disks, and the memory they are made of. Whatever is left at the end goes with the files, as when a server dies. */
export class DiskSet implements Disposable {
  readonly disks: SmallDisk[] = [];
  readonly control = new Control();
  readonly #store: Memory;
  readonly #capacity: number;

  /** @param capacity how many there may be at once; memory is taken for those that were there */
  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#store = new Memory(capacity * sizeBytes);
  }

  /** Makes a disk and serves it until it is there. */
  add(name: string): SmallDisk {
    const place = this.disks.length % this.#capacity;
    new DataView(this.#store.bytes.buffer).setUint32(place * sizeBytes, place, true);
    const started = performance.now();
    const { errno, out } = this.control.create(params(name, {
      size_bytes: sizeBytes,
      queue_depth: queueDepth,
      max_io_bytes: PAGE_BYTES,
      flags: abi.DBLOCK_DEVICE_DIRECT,
    }));
    assertEquals(errno, 0, `CREATE ${name}`);
    const queue = new Queue(out, 0);
    assertEquals(queue.attach(), 0, `ATTACH ${name}`);
    assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0, `START ${name}`);
    this.#serveStart(queue, place);
    const disk = { name, queue, readyMs: performance.now() - started };
    this.disks.push(disk);
    return disk;
  }

  /** Answers what the partition scan asks, until the disk is live. */
  #serveStart(queue: Queue, place: number): void {
    let completions: Completion[] = [];
    for (let turn = 0; turn < startTurns; turn++) {
      const { result, header, requests } = queue.exchange(completions);
      if (result < 0) throw new Error(`EXCHANGE while starting: errno ${-result}`);
      completions = requests.map((request) => this.#answer(place, request));
      if (header.state === abi.DBLOCK_STATE_LIVE && completions.length === 0) return;
    }
    throw new Error("the disk does not become live");
  }

  #answer(place: number, request: Parameters<typeof done>[0]): Completion {
    return { ...done(request), address: this.#store.address + place * sizeBytes + request.offsetBytes };
  }

  /** Serves all of them until something has come to its end; returns that. */
  async serveWhile<T>(action: Promise<T>): Promise<T> {
    let isOver = false;
    const end = () => isOver = true;
    action.then(end, end);
    const fds = this.disks.map(({ queue }) => queue.fd);
    while (!isOver) {
      const events = await pollFds(fds, pollMs);
      for (const [place, { queue }] of this.disks.entries()) {
        if (events[place] !== 0) this.#drain(queue, place);
      }
    }
    return await action;
  }

  #drain(queue: Queue, place: number): void {
    let completions: Completion[] = [];
    do {
      completions = queue.exchange(completions).requests.map((request) => this.#answer(place, request));
    } while (completions.length > 0);
  }

  /** Destroys the last disks, `count` of them at once, as long as nobody has them open. */
  async destroyLast(count: number): Promise<void> {
    const disks = this.disks.splice(-count);
    await Promise.all(disks.map(async ({ name, queue }) => {
      // The kernel's own reader of partition tables closes the disk a moment after it is there.
      await waitFor(`nobody has ${name} open`, () => this.control.info(name)!.open_count === 0);
      assertEquals((await this.control.destroy(name)).errno, 0, `DESTROY ${name}`);
      assertEquals(queue.exchange().result, -ERRNO.ENODEV, `${name} is destroyed, and its server is not told`);
      queue[Symbol.dispose]();
    }));
  }

  /** Closes the files of the last disks; each device hears that its server is dead, and goes. */
  abandonLast(count: number): void {
    for (const { queue } of this.disks.splice(-count)) queue[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.abandonLast(this.disks.length);
    this.control[Symbol.dispose]();
  }
}
