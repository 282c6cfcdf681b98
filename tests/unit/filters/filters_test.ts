// SPDX-License-Identifier: MIT
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { intercept, type InterceptedRequest } from "../../../src/filters/intercept.ts";
import { readOnly } from "../../../src/filters/read_only.ts";
import { retry } from "../../../src/filters/retry.ts";
import { WriteCache } from "../../../src/filters/write_cache.ts";

const plain = requestOptions();
const fua = requestOptions({ fua: true });
const block = 512;

/** A disk of memory with everything, and a list of what it was asked. */
function memoryDisk(blocks = 8): { store: Uint8Array<ArrayBuffer>; asked: string[]; disk: Required<Backend> } {
  const store = new Uint8Array(blocks * block);
  const asked: string[] = [];
  const disk = {
    sizeBytes: store.length,
    limits: { blockBytes: block },
    readOnly: false,
    fua: false,
    cacheSurvives: false,
    read: (buffer, offset) => {
      asked.push(`read ${offset}`);
      buffer.set(store.subarray(offset, offset + buffer.length));
    },
    write: (buffer, offset) => {
      asked.push(`write ${offset}`);
      store.set(buffer, offset);
    },
    flush: () => void asked.push("flush"),
    discard: (offset, length) => {
      asked.push(`discard ${offset}`);
      store.fill(0, offset, offset + length);
    },
    writeZeroes: (offset, length) => void store.fill(0, offset, offset + length),
    extents: (_offset, lengthBytes) => [{ lengthBytes, kind: "data" }],
    resize: (sizeBytes) => void asked.push(`resize ${sizeBytes}`),
    handOver: () => store,
    figures: () => [{ name: "asked_total", help: "What it was asked.", value: asked.length }],
    close: (reason) => void asked.push(`close ${reason}`),
  } satisfies Required<Backend>;
  return { store, asked, disk };
}

function filled(value: number, blocks = 1): Uint8Array<ArrayBuffer> {
  return new Uint8Array(blocks * block).fill(value);
}

async function read(disk: Backend, offset: number, blocks = 1): Promise<number[]> {
  const buffer = filled(0xee, blocks);
  await disk.read(buffer, offset, plain);
  return Array.from({ length: blocks }, (_, i) => buffer[i * block]!);
}

Deno.test("a filter shows its backend's figures behind its own", () => {
  const { disk } = memoryDisk();
  const names = [intercept(disk, () => {}), retry(disk), readOnly(disk)].map((filtered) =>
    filtered.figures?.().map(({ name }) => name)
  );
  assertEquals(names, [["asked_total"], ["retries_total", "asked_total"], ["asked_total"]]);
});

Deno.test("intercept() shows every request, and asks the backend after that", async () => {
  const { store, asked, disk } = memoryDisk();
  const seen: InterceptedRequest[] = [];
  const filtered = intercept(disk, (request) => void seen.push(request));
  filtered.write(filled(7), block, plain);
  assertEquals(await read(filtered, block), [7]);
  filtered.flush!(plain);
  filtered.discard!(block, block, fua);
  filtered.writeZeroes!(0, 2 * block, plain);
  filtered.resize!(4096);
  filtered.close!("destroyed");
  assertEquals(seen.map(({ operation, offsetBytes, lengthBytes }) => [operation, offsetBytes, lengthBytes]), [
    ["write", block, block],
    ["read", block, block],
    ["flush", 0, 0],
    ["discard", block, block],
    ["writeZeroes", 0, 2 * block],
  ]);
  assertEquals([seen[2]!.options, seen[3]!.options], [plain, fua]);
  assertEquals(asked, ["write 512", "read 512", "flush", "discard 512", "resize 4096", "close destroyed"]);
  assertEquals([filtered.sizeBytes, filtered.readOnly, filtered.fua], [store.length, false, false]);
  assertEquals([filtered.limits, filtered.cacheSurvives], [{ blockBytes: block }, false]);
  assertEquals(filtered.extents!(0, block, plain), [{ lengthBytes: block, kind: "data" }]);
  assertEquals(filtered.handOver!(), store);
});

Deno.test("intercept() has what the backend has and nothing else", () => {
  const bare: Backend = { sizeBytes: 4096, read: () => {}, write: () => {} };
  const filtered = intercept(bare, () => {});
  const optional = ["flush", "discard", "writeZeroes", "resize", "extents", "handOver"] as const;
  assertEquals(optional.filter((name) => filtered[name] !== undefined), []);
});

Deno.test("intercept(): what is thrown or rejected is the request's error; a promise is waited for", async () => {
  const { asked, disk } = memoryDisk();
  const bad = intercept(disk, ({ operation }) => {
    if (operation === "write") throw new DblockError("ENOSPC", "Cannot write", "it is full");
    if (operation === "flush") return Promise.reject(new DblockError("EIO", "Cannot flush", "no"));
    return undefined;
  });
  assertThrows(() => bad.write(filled(1), 0, plain), DblockError, "it is full");
  await assertRejects(async () => await bad.flush!(plain), DblockError, "Cannot flush");
  assertEquals(asked, []);
  const gate = Promise.withResolvers<void>();
  const slow = intercept(disk, () => gate.promise);
  const reading = read(slow, 0);
  assertEquals(asked, []);
  gate.resolve();
  assertEquals(await reading, [0]);
});

Deno.test("WriteCache keeps writes until a flush, and reads both disks", async () => {
  const { store, asked, disk } = memoryDisk();
  store.fill(9);
  const cache = new WriteCache(disk);
  await cache.write(filled(1, 2), block, plain);
  assertEquals([store[block], cache.dirtyBytes], [9, 2 * block]);
  assertEquals(await read(cache, 0, 4), [9, 1, 1, 9]);
  asked.length = 0;
  assertEquals(await read(cache, block, 2), [1, 1]);
  assertEquals(asked, [], "all of it was in the cache");
  await cache.flush();
  assertEquals([store[block], store[2 * block], store[3 * block], cache.dirtyBytes], [1, 1, 9, 0]);
  assertEquals(asked, ["write 512", "flush"], "neighbours go together");
});

Deno.test("WriteCache does not keep its caller's buffer", async () => {
  const { store, disk } = memoryDisk();
  const cache = new WriteCache(disk);
  const buffer = filled(3);
  await cache.write(buffer, 0, plain);
  buffer.fill(4);
  await cache.flush();
  assertEquals(store[0], 3);
});

Deno.test("WriteCache: a write with FUA is on the other disk, and flushed, when it is answered", async () => {
  const { store, asked, disk } = memoryDisk();
  const cache = new WriteCache(disk);
  await cache.write(filled(1), 0, plain);
  await cache.write(filled(2), block, fua);
  assertEquals([store[0], store[block], cache.dirtyBytes], [0, 2, block]);
  assertEquals(asked, ["write 512", "flush"]);
});

Deno.test("WriteCache.powerOff() loses by chance what was not flushed, and nothing else", async () => {
  const { store, disk } = memoryDisk();
  const cache = new WriteCache(disk);
  await cache.write(filled(1, 4), 0, plain);
  await cache.flush();
  await cache.write(filled(2, 4), 0, plain);
  const chances = [0.2, 0.9, 0.7, 0.1];
  const cut = await cache.powerOff({ survival: 0.5, random: () => chances.shift()! });
  assertEquals(cut, { written: 2, lost: 2 });
  assertEquals([0, 1, 2, 3].map((i) => store[i * block]), [2, 1, 1, 2]);
});

Deno.test("WriteCache refuses everything while its power is off", async () => {
  const { asked, disk } = memoryDisk();
  const cache = new WriteCache(disk);
  await cache.powerOff();
  const calls = [
    () => read(cache, 0),
    () => cache.write(filled(1), 0, plain),
    () => cache.flush(),
    async () => await cache.discard!(0, block, plain),
    () => cache.powerOff(),
  ];
  for (const call of calls) await assertRejects(call, DblockError, "its power is off");
  assertEquals(asked, []);
  cache.powerOn();
  assertEquals(await read(cache, 0), [0]);
});

Deno.test("WriteCache: a flush that the power cut meets half way fails", async () => {
  const { disk } = memoryDisk();
  const gate = Promise.withResolvers<void>();
  const slow = intercept(disk, ({ operation }) => operation === "write" ? gate.promise : undefined);
  const cache = new WriteCache(slow);
  for (const at of [0, 2, 4]) await cache.write(filled(1), at * block, plain);
  const flushing = assertRejects(() => cache.flush(), DblockError, "its power is off");
  await Promise.resolve();
  const cutting = cache.powerOff({ survival: 0 });
  gate.resolve();
  await flushing;
  // The first one was on its way.
  assertEquals(await cutting, { written: 0, lost: 2 });
});

Deno.test("WriteCache: discard, resize and close reach the other disk, and the cache forgets what is gone", async () => {
  const { asked, disk } = memoryDisk();
  const cache = new WriteCache(disk);
  await cache.write(filled(1, 8), 0, plain);
  await cache.discard!(0, 2 * block, plain);
  assertEquals([await read(cache, 0, 3), cache.dirtyBytes], [[0, 0, 1], 6 * block]);
  await cache.resize!(4 * block);
  assertEquals(cache.dirtyBytes, 2 * block);
  asked.length = 0;
  await cache.close("left");
  assertEquals(asked, ["write 1024", "flush", "close left"]);
});

Deno.test("WriteCache: neighbours go to the disk together, up to what it takes at once, whenever they were written", async () => {
  const written: [at: number, first: number[]][] = [];
  const write: Backend["write"] = (buffer, offset) => {
    written.push([offset / block, Array.from({ length: buffer.length / block }, (_, i) => buffer[i * block]!)]);
  };
  const disk = { ...memoryDisk().disk, write, limits: { maxIoBytes: 4096 } };
  const cache = new WriteCache(disk);
  for (const at of [9, 3, 1, 2]) await cache.write(filled(at), at * block, plain);
  await cache.flush();
  assertEquals(written.splice(0), [[1, [1, 2, 3]], [9, [9]]]);
  await cache.write(filled(5, 10), 0, plain);
  await cache.flush();
  assertEquals(written.splice(0).map(([at, first]) => [at, first.length]), [[0, 8], [8, 2]]);
  for (const at of [2, 1, 0]) await cache.write(filled(6), at * block, plain);
  await cache.powerOff({ survival: 1 });
  assertEquals(written.splice(0), [[2, [6]], [1, [6]], [0, [6]]], "in the order in which they were written");
});

Deno.test("WriteCache: a disk that takes less than it is given fails the flush, and nothing is forgotten", async () => {
  const { disk } = memoryDisk();
  const cache = new WriteCache({ ...disk, write: () => 100 });
  await cache.write(filled(1), 0, plain);
  await assertRejects(() => cache.flush(), DblockError, "took 100 of 512 bytes");
  assertEquals(cache.dirtyBytes, block);
});

Deno.test("WriteCache has no discard and no resize where the disk has none, and says which blocks it takes", async () => {
  const bare: Backend = { sizeBytes: 8192, read: () => {}, write: () => {} };
  const cache = new WriteCache(bare, { blockBytes: 4096 });
  assertEquals([cache.discard, cache.resize, cache.fua, cache.sizeBytes], [undefined, undefined, true, 8192]);
  await assertRejects(() => cache.write(filled(1), 0, plain), RangeError, "not whole blocks of 4096");
  for (const blockBytes of [0, 256, 1000, 16384]) {
    assertThrows(() => new WriteCache(bare, { blockBytes }), RangeError, `not ${blockBytes}`);
  }
});
