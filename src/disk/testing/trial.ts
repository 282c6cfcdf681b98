// SPDX-License-Identifier: MIT
/** One test of one backend: the backend behind dispatch, chance from a seed, and the model that it is compared with. */
import type { Backend, CloseReason } from "../backend.ts";
import type { Operation } from "../operation.ts";
import { Random } from "../random.ts";
import { type Flags, Host } from "./host.ts";
import { Model } from "./model.ts";
import type { TestBackendOptions } from "./options.ts";

/** Tests look at so much of a disk, half of it at each end. */
const TESTED_BYTES = 4 * 2 ** 20;

/** A range of the disk. */
export interface Range {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** One backend, opened for one test. */
export class Trial {
  readonly random: Random;
  /** What the disk has to contain now. */
  model: Model;
  readonly options: TestBackendOptions;
  host: Host;
  #isClosed = false;

  constructor(backend: Backend, seed: number, options: TestBackendOptions) {
    this.options = options;
    this.random = new Random(seed);
    this.host = this.#hostOf(backend);
    this.model = new Model(this.blockBytes);
  }

  #hostOf(backend: Backend): Host {
    return new Host(backend, { answerWithinMs: this.options.answerWithinMs ?? 60_000 });
  }

  get backend(): Backend {
    return this.host.backend;
  }

  get blockBytes(): number {
    return this.host.limits.blockBytes;
  }

  get sizeBytes(): number {
    return this.host.sizeBytes;
  }

  /** Whether anything can be written. */
  get isWritable(): boolean {
    return this.backend.readOnly !== true;
  }

  /** Whether what is written is kept: discards and zeroes can be compared then. */
  get isKept(): boolean {
    return this.options.content === undefined;
  }

  /** What is tested of the disk: all of it, or both ends. */
  areas(): Range[] {
    if (this.sizeBytes <= TESTED_BYTES) return [{ offsetBytes: 0, lengthBytes: this.sizeBytes }];
    const lengthBytes = TESTED_BYTES / 2;
    return [{ offsetBytes: 0, lengthBytes }, { offsetBytes: this.sizeBytes - lengthBytes, lengthBytes }];
  }

  /** A range in one of the areas: often short, sometimes the longest, often at an end. */
  range(mostBytes: number): Range {
    const area = this.random.pick(this.areas());
    const blocks = area.lengthBytes / this.blockBytes;
    const most = Math.max(1, Math.min(blocks, Math.floor(mostBytes / this.blockBytes)));
    const longest = this.random.chance(0.1) ? most : Math.min(most, 2 ** this.random.below(9));
    const count = this.random.chance(0.1) ? longest : 1 + this.random.below(longest);
    const last = blocks - count;
    const first = this.random.chance(0.1) ? (this.random.chance(0.5) ? 0 : last) : this.random.below(last + 1);
    return { offsetBytes: area.offsetBytes + first * this.blockBytes, lengthBytes: count * this.blockBytes };
  }

  /** Data to write there. */
  dataFor({ offsetBytes, lengthBytes }: Range): Uint8Array<ArrayBuffer> {
    const data = new Uint8Array(lengthBytes);
    if (this.options.content !== undefined) this.options.content(data, offsetBytes);
    else this.random.fill(data);
    return data;
  }

  /** Which operations the disk has; zeroes are written by dispatch where it cannot zero. */
  operations(): Operation[] {
    if (!this.isWritable) return ["read"];
    const { flush, discard } = this.backend;
    return [
      "read",
      "read",
      "write",
      "write",
      "write",
      ...(this.isKept ? ["writeZeroes"] as const : []),
      ...(flush === undefined ? [] : ["flush"] as const),
      ...(discard === undefined || !this.isKept ? [] : ["discard"] as const),
    ];
  }

  /** Reads a range and compares it. */
  async check(range: Range, when: string): Promise<void> {
    const most = this.host.limits.maxIoBytes;
    for (let done = 0; done < range.lengthBytes; done += most) {
      const at = range.offsetBytes + done;
      const data = await this.host.do("read", at, Math.min(most, range.lengthBytes - done));
      if (!this.isKept) this.model.set(at, this.dataFor({ offsetBytes: at, lengthBytes: data.length }));
      this.model.check(at, data, when);
    }
  }

  /** Reads everything that is tested and compares it. At first: learns what it is. */
  async checkAll(when: string): Promise<void> {
    for (const area of this.areas()) await this.check(area, when);
  }

  /** Writes random data to a range; the model knows it. */
  async write(range: Range, flags: Flags = {}): Promise<Uint8Array<ArrayBuffer>> {
    const data = this.dataFor(range);
    await this.host.do("write", range.offsetBytes, data, flags);
    this.model.set(range.offsetBytes, data);
    return data;
  }

  /** The most that one request of this kind may be about, as far as it makes sense to try. */
  mostOf(operation: Operation): number {
    const { maxIoBytes, maxDiscardBytes, maxWriteZeroesBytes } = this.host.limits;
    if (operation === "discard") return Math.min(maxDiscardBytes, TESTED_BYTES);
    if (operation === "writeZeroes") return Math.min(maxWriteZeroesBytes, TESTED_BYTES);
    return maxIoBytes;
  }

  /** Ends the backend and opens the same disk again. */
  async reopen(how: "died" | "left"): Promise<void> {
    const { reopen } = this.options;
    if (reopen === undefined) throw new TypeError("there is no reopen()");
    const old = this.backend;
    this.host.checkMemory();
    if (how === "left") await old.close?.("left");
    this.#isClosed = true;
    const backend = await reopen(old, how);
    this.#isClosed = false;
    this.host = this.#hostOf(backend);
  }

  /** Looks once more at the memory, and closes the backend. */
  async end(reason: CloseReason): Promise<void> {
    // What is done too late is done within a turn or two.
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
    this.host.checkMemory();
    await this.close(reason);
  }

  /** Closes the backend, once. */
  async close(reason: CloseReason): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.backend.close?.(reason);
  }
}
