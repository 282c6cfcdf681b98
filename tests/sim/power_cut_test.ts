// SPDX-License-Identifier: MIT
// A WriteCache in front of a disk that answers late and in any order, used by several tasks at once until its power is cut.
// Whatever the seed: what was flushed is there, what is there was written, and a read never sees what is older than answered.
import { assert } from "@std/assert";
import type { Backend } from "../../src/disk/backend.ts";
import { requestOptions } from "../../src/disk/request.ts";
import { WriteCache } from "../../src/filters/write_cache.ts";
import { forEachSeed, type Random } from "./random.ts";

const blockBytes = 512;
const blocks = 12;
const plain = requestOptions();

/** Blocks hold a number, the version that was written last. */
function put(bytes: Uint8Array, version: number): Uint8Array {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, version);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(bytes.length - 4, version);
  return bytes;
}

function versionOf(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(0);
  assert(view.getUint32(bytes.length - 4) === version, "half a block");
  return version;
}

/** A disk of memory: each answer takes a few turns, and the data moves in one of them. */
function lateDisk(random: Random): { readonly disk: Backend; readonly store: Uint8Array } {
  const store = new Uint8Array(blocks * blockBytes);
  const turns = async () => {
    for (let i = random.below(6); i > 0; i--) await Promise.resolve();
  };
  const disk: Backend = {
    sizeBytes: store.length,
    async read(buffer, offset) {
      await turns();
      buffer.set(store.subarray(offset, offset + buffer.length));
      await turns();
    },
    async write(buffer, offset) {
      await turns();
      store.set(buffer, offset);
      await turns();
    },
    flush: turns,
  };
  return { disk, store };
}

async function simulate(random: Random): Promise<{ lost: number; flushed: number; reads: number }> {
  const { disk, store } = lateDisk(random);
  const cache = new WriteCache(disk);
  /** Of each block: the last version that was begun, that was answered, and that must survive. */
  const begun = new Uint32Array(blocks);
  const answered = new Uint32Array(blocks);
  const durable = new Uint32Array(blocks);
  let [isOver, reads, flushed] = [false, 0, 0];

  const writer = async (block: number) => {
    while (!isOver) {
      const version = ++begun[block]!;
      const fua = random.chance(0.1);
      await cache.write(put(new Uint8Array(blockBytes), version) as Uint8Array<ArrayBuffer>, block * blockBytes, {
        ...plain,
        fua,
      });
      answered[block] = version;
      if (fua) durable[block] = Math.max(durable[block]!, version);
      for (let i = random.below(8); i > 0; i--) await Promise.resolve();
    }
  };
  const reader = async () => {
    while (!isOver) {
      const first = random.below(blocks);
      const count = 1 + random.below(blocks - first);
      const oldest = answered.slice();
      const buffer = new Uint8Array(count * blockBytes);
      await cache.read(buffer, first * blockBytes, plain);
      reads++;
      for (let i = 0; i < count; i++) {
        const version = versionOf(buffer.subarray(i * blockBytes, (i + 1) * blockBytes));
        const [low, high] = [oldest[first + i]!, begun[first + i]!];
        assert(version >= low && version <= high, `block ${first + i} reads as ${version}, not ${low} to ${high}`);
      }
    }
  };
  const flusher = async () => {
    while (!isOver) {
      const sure = answered.slice();
      await cache.flush();
      flushed++;
      sure.forEach((version, block) => durable[block] = Math.max(durable[block]!, version));
      for (let i = random.below(40); i > 0; i--) await Promise.resolve();
    }
  };
  // Whoever meets the power cut fails with it; any other error is the test's.
  const unlessOff = (task: Promise<void>) =>
    task.catch((error) => assert(isOver && String(error).includes("its power is off"), error));
  const tasks = [
    ...Array.from({ length: blocks }, (_, block) => writer(block)),
    reader(),
    reader(),
    flusher(),
    flusher(),
  ]
    .map(unlessOff);
  for (let i = 200 + random.below(2_000); i > 0; i--) await Promise.resolve();
  isOver = true;
  const { lost } = await cache.powerOff({ survival: random.next(), random: () => random.next() });
  await Promise.all(tasks);
  for (let block = 0; block < blocks; block++) {
    const version = versionOf(store.subarray(block * blockBytes, (block + 1) * blockBytes));
    const [low, high] = [durable[block]!, begun[block]!];
    assert(version >= low && version <= high, `block ${block} is ${version} after the cut, not ${low} to ${high}`);
  }
  return { lost, flushed, reads };
}

Deno.test("after a power cut everything that was flushed is there, and nothing that was never written", async () => {
  const sums = { lost: 0, flushed: 0, reads: 0 };
  await forEachSeed(200, "tests/sim/power_cut_test.ts", async (random) => {
    const { lost, flushed, reads } = await simulate(random);
    sums.lost += lost;
    sums.flushed += flushed;
    sums.reads += reads;
  });
  if (Deno.env.get("DBLOCK_SEED") === undefined) {
    assert(sums.lost > 0 && sums.flushed > 0 && sums.reads > 0, JSON.stringify(sums));
  }
});
