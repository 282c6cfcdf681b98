// SPDX-License-Identifier: MIT
/** Caches that keep writes in memory stay within their bound while the disk behind them cannot be written. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { Cache } from "../../../src/filters/cache.ts";
import { WriteCache } from "../../../src/filters/write_cache.ts";
import { settled } from "./settled.ts";

const BLOCK = 4096;
const BOUND = 16 * BLOCK;
const plain = requestOptions();
const forced = requestOptions({ fua: true });
const filled = (value: number, length = BLOCK) => new Uint8Array(length).fill(value);

interface Held {
  readonly disk: PlayedDisk;
  readonly filter: Backend & { flush: NonNullable<Backend["flush"]> };
  /** What is in its memory. */
  readonly heldBytes: () => number;
}

const caches: Readonly<Record<string, (laterSeed?: number) => Held>> = {
  "Cache, write-back": (laterSeed) => {
    const disk = brokenDisk(laterSeed);
    const filter = new Cache(disk, { maxBytes: BOUND, mode: "write-back" });
    return { disk, filter: filter as Held["filter"], heldBytes: () => filter.report().cachedBytes };
  },
  WriteCache: (laterSeed) => {
    const disk = brokenDisk(laterSeed);
    const filter = new WriteCache(disk, { maxDirtyBytes: BOUND });
    return { disk, filter, heldBytes: () => filter.dirtyBytes };
  },
};

function brokenDisk(laterSeed?: number): PlayedDisk {
  const disk = new PlayedDisk({ sizeBytes: 2 ** 20, ...(laterSeed === undefined ? {} : { laterSeed }) });
  disk.failure = { operation: "write", errno: "ENOLINK" };
  return disk;
}

/** The errno of a request; "" if it succeeds. */
async function errnoOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "";
  } catch (error) {
    return error instanceof DblockError ? error.code : String(error);
  }
}

async function firstByte(disk: Backend, offsetBytes: number): Promise<number> {
  const buffer = filled(0xee);
  await disk.read(buffer, offsetBytes, plain);
  return buffer[0]!;
}

for (const [name, make] of Object.entries(caches)) {
  for (const laterSeed of [undefined, 3]) {
    const when = laterSeed === undefined ? "" : ", later";
    for (const order of ["one by one", "all at once"] as const) {
      Deno.test(`${name}: what does not fit is refused while the disk fails${when}, ${order}, and nothing else is lost`, async () => {
        const { disk, filter, heldBytes } = make(laterSeed);
        const errnos: string[] = [];
        const write = async (i: number) => {
          errnos[i] = await errnoOf(() => filter.write(filled(i + 1), i * BLOCK, plain));
        };
        const numbers = Array.from({ length: 100 }, (_, i) => i);
        if (order === "all at once") await Promise.all(numbers.map(write));
        else for (const i of numbers) await write(i);
        assertEquals(heldBytes(), BOUND);
        assertEquals(errnos, numbers.map((i) => i < 16 ? "" : "ENOLINK"));
        // What is there already can be written again, and what was refused has not changed anything.
        await filter.write(filled(0xaa), 15 * BLOCK, plain);
        assertEquals([await firstByte(filter, 15 * BLOCK), await firstByte(filter, 16 * BLOCK)], [0xaa, 0]);
        assertEquals(heldBytes(), BOUND);

        disk.failure = undefined;
        await filter.write(filled(0xbb), 50 * BLOCK, plain);
        assert(heldBytes() <= BOUND, `${heldBytes()}`);
        await filter.flush(plain);
        const expected = numbers.map((i) => i < 15 ? i + 1 : i === 15 ? 0xaa : i === 50 ? 0xbb : 0);
        assertEquals(numbers.map((i) => disk.content[i * BLOCK]), expected);
      });
    }
  }

  Deno.test(`${name}: writes with FUA that fail stay within it`, async () => {
    const { filter, heldBytes } = make();
    for (let i = 0; i < 100; i++) {
      assertEquals(await errnoOf(() => filter.write(filled(1), i * BLOCK, forced)), "ENOLINK");
    }
    assert(heldBytes() <= BOUND, `${heldBytes()}`);
  });

  Deno.test(`${name}: a request that is larger than all of it is on top only until the next one`, async () => {
    const { disk, filter, heldBytes } = make();
    const large = 4 * BOUND;
    for (let i = 0; i < 3; i++) await errnoOf(() => filter.write(filled(i + 1, large), i * large, plain));
    assert(heldBytes() <= large, `${heldBytes()}`);
    assertEquals(await errnoOf(() => filter.write(filled(9), 3 * large, plain)), "ENOLINK");
    disk.failure = undefined;
    for (let i = 0; i < 3; i++) await filter.write(filled(i + 1, large), i * large, plain);
    assert(heldBytes() <= BOUND, `${heldBytes()}`);
    await filter.flush(plain);
    assertEquals([0, 1, 2, 3].map((i) => disk.content[(i + 1) * large - 1]), [1, 2, 3, 0]);
  });
}

Deno.test("Cache, write-back: a write takes the room of clean blocks while the disk fails", async () => {
  const { disk, filter, heldBytes } = caches["Cache, write-back"]!();
  await filter.write(filled(1), 0, plain);
  for (let i = 1; i < 16; i++) await firstByte(filter, i * BLOCK);
  assertEquals(heldBytes(), BOUND);
  await filter.write(filled(2), 20 * BLOCK, plain);
  assertEquals(heldBytes(), BOUND);
  await assertRejects(async () => await filter.flush(plain), DblockError);
  disk.failure = undefined;
  await filter.flush(plain);
  assertEquals([disk.content[0], disk.content[20 * BLOCK]], [1, 2]);
});

Deno.test("WriteCache: a write that waits for room when the power is cut fails, and is not in the cache afterwards", async () => {
  const gate = Promise.withResolvers<void>();
  const store = new Uint8Array(2 ** 20);
  const cache = new WriteCache({
    sizeBytes: store.length,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: async (buffer, offset) => {
      await gate.promise;
      store.set(buffer, offset);
    },
  }, { maxDirtyBytes: BLOCK });
  await cache.write(filled(1), 0, plain);
  const waiting = errnoOf(() => cache.write(filled(2), BLOCK, plain));
  await settled(); // the block that is in its way is being written
  const cut = cache.powerOff({ survival: 0 });
  gate.resolve();
  await cut;
  assertEquals([await waiting, cache.dirtyBytes], ["EIO", 0]);
});

Deno.test("many writers that need room at once write each block once", async () => {
  const store = new Uint8Array(2 ** 20);
  let writtenBytes = 0;
  const disk: Backend = {
    sizeBytes: store.length,
    read: (buffer, at) => buffer.set(store.subarray(at, at + buffer.length)),
    async write(buffer, at) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      writtenBytes += buffer.length;
      store.set(buffer, at);
    },
  };
  const filter = new Cache(disk, { maxBytes: BOUND, mode: "write-back" });
  let next = 0;
  const writer = async () => {
    while (next < store.length) {
      const at = next;
      next += BLOCK;
      await filter.write(filled(at / BLOCK + 1), at, plain);
    }
  };
  await Promise.all(Array.from({ length: 32 }, writer));
  await filter.flush?.(plain);
  assertEquals(store.every((byte, i) => byte === ((Math.floor(i / BLOCK) + 1) & 0xff)), true);
  assertEquals(writtenBytes, store.length);
});
