// SPDX-License-Identifier: MIT
/**
 * The naive disk that a simulation is compared with, and the workload on both. It keeps one request per block at a time, so
 * what a read has to give is always known, or known to be unknown: after a write that failed, a block may hold the old
 * data, the new, or some of each.
 */
import { assert, assertEquals } from "@std/assert";
import {
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_FLUSH,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
  DBLOCK_REQUEST_FUA,
  DBLOCK_REQUEST_NO_UNMAP,
} from "../../src/module/abi.ts";
import type { FakeKernel } from "./fake_kernel.ts";
import type { Random } from "./random.ts";

export const BLOCK_BYTES = 512;

/** What the model sends. */
export interface Traffic {
  readonly name: string;
  readonly maxIoBytes: number;
  /** Largest DISCARD and WRITE_ZEROES. */
  readonly maxRangeBytes: number;
  /** Which operations; one that is there twice is sent twice as often. */
  readonly operations: readonly number[];
  /** Errnos that may come; anything else is a failure. */
  readonly errnos: ReadonlySet<number>;
}

export class ModelDisk {
  readonly #bytes: Uint8Array;
  /** By block: 1 if its content is not known. */
  readonly #unknown: Uint8Array;
  /** By block: 1 if a request is at it. */
  readonly #busy: Uint8Array;
  readonly #random: Random;
  endedCount = 0;
  errorCount = 0;

  constructor(sizeBytes: number, random: Random) {
    this.#bytes = new Uint8Array(sizeBytes);
    this.#unknown = new Uint8Array(sizeBytes / BLOCK_BYTES);
    this.#busy = new Uint8Array(sizeBytes / BLOCK_BYTES);
    this.#random = random;
  }

  /** One random request; resolves when it has ended and was compared. The work is done as it ends, not a promise later. */
  one(kernel: FakeKernel, traffic: Traffic): Promise<void> {
    const random = this.#random;
    const operation = random.pick(traffic.operations);
    const isRange = operation === DBLOCK_OPERATION_DISCARD || operation === DBLOCK_OPERATION_WRITE_ZEROES;
    const isFlush = operation === DBLOCK_OPERATION_FLUSH;
    const blocks = this.#busy.length;
    const first = isFlush ? 0 : random.below(blocks);
    const most = (isRange ? traffic.maxRangeBytes : traffic.maxIoBytes) / BLOCK_BYTES;
    const count = isFlush ? 0 : Math.min(1 + random.below(most), blocks - first);
    if (this.#busy.subarray(first, first + count).includes(1)) return Promise.resolve();
    this.#busy.fill(1, first, first + count);
    const data = new Uint8Array(count * BLOCK_BYTES);
    if (operation === DBLOCK_OPERATION_WRITE) random.fill(data);
    let flags = 0;
    if (operation === DBLOCK_OPERATION_WRITE && random.chance(0.2)) flags |= DBLOCK_REQUEST_FUA;
    if (operation === DBLOCK_OPERATION_WRITE_ZEROES && random.chance(0.3)) flags |= DBLOCK_REQUEST_NO_UNMAP;
    const queue = kernel.queueOf(traffic.name);
    const io = { operation, flags, offsetBytes: first * BLOCK_BYTES, lengthBytes: data.length, data };
    const result = new Promise<void>((resolve, reject) => {
      const end = (errno: number) => {
        try {
          this.#judge(operation, first, data, errno, traffic);
        } catch (error) {
          return reject(error);
        }
        // After a timeout the backend may still be at it: nobody else may be then.
        const release = () => void this.#busy.fill(0, first, first + count);
        if (errno === 0 || queue === undefined) release();
        else queue.whenAnswered(release);
        resolve();
      };
      kernel.send(queue, { ...io, end });
    });
    result.catch(() => {}); // heard of when it is waited for, with the seed
    return result;
  }

  #judge(operation: number, first: number, data: Uint8Array, errno: number, traffic: Traffic): void {
    this.#ended(errno, traffic);
    if (operation !== DBLOCK_OPERATION_READ) {
      this.#bytes.set(data, first * BLOCK_BYTES); // discarded and zeroed blocks read as zeroes here
      this.#unknown.fill(errno === 0 ? 0 : 1, first, first + data.length / BLOCK_BYTES);
    } else if (errno === 0) {
      this.#compare(first, data);
    }
  }

  #ended(errno: number, traffic: Traffic): void {
    this.endedCount++;
    if (errno === 0) return;
    this.errorCount++;
    assert(traffic.errnos.has(errno), `a request ended with errno ${errno}`);
  }

  #compare(firstBlock: number, data: Uint8Array): void {
    for (let block = 0; block < data.length / BLOCK_BYTES; block++) {
      if (this.#unknown[firstBlock + block] === 1) continue;
      const at = (firstBlock + block) * BLOCK_BYTES;
      assertEquals(
        data.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES),
        this.#bytes.subarray(at, at + BLOCK_BYTES),
        `block ${firstBlock + block} reads as something that was not written there last`,
      );
    }
  }

  /** Compares everything that is known with a store. */
  compareAll(store: Uint8Array): void {
    this.#compare(0, store);
  }
}
