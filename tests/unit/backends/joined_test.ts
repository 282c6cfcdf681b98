// SPDX-License-Identifier: MIT
// Where a concat and a stripe put what they are given. What every backend does is in contract_test.ts.
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { concat } from "../../../src/backends/concat.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { NullBackend } from "../../../src/backends/null.ts";
import { stripe } from "../../../src/backends/stripe.ts";
import type { Backend, CloseReason, Extent } from "../../../src/disk/backend.ts";
import { requestOptions } from "../../../src/disk/request.ts";

const KIB = 2 ** 10;
const plain = requestOptions();

/** Disks of memory that note what they are asked. */
function memories(sizes: readonly number[]): { readonly disks: MemoryBackend[]; readonly asked: string[] } {
  const asked: string[] = [];
  const disks = sizes.map((sizeBytes, index) => {
    const disk = new MemoryBackend({ sizeBytes });
    const { writeZeroes, discard } = disk;
    disk.writeZeroes = (offset, length, options) => {
      asked.push(`${index}: ${offset}+${length}`);
      writeZeroes.call(disk, offset, length, options);
    };
    disk.discard = (offset, length) => {
      asked.push(`${index}: ${offset}+${length}`);
      discard.call(disk, offset, length);
    };
    return disk;
  });
  return { disks, asked };
}

Deno.test("stripe() puts chunks on its disks in turn, as a naive loop does, at every offset and length", async () => {
  const chunkBytes = 4 * KIB;
  const { disks } = memories([16 * KIB, 16 * KIB, 20 * KIB]);
  const striped = stripe(disks, { chunkBytes });
  assertEquals([striped.sizeBytes, striped.limits?.optimalIoBytes], [48 * KIB, 12 * KIB]);
  const model = new Uint8Array(48 * KIB);
  let value = 0;
  for (let offset = 0; offset < 48 * KIB; offset += 512) {
    for (const length of [512, 3584, 4096, 9 * KIB, 48 * KIB]) {
      if (offset + length > 48 * KIB) continue;
      const data = Uint8Array.from({ length }, () => value++);
      model.set(data, offset);
      await striped.write(data, offset, plain);
    }
    for (let at = 0; at < 48 * KIB; at += 512) {
      const chunk = Math.floor(at / chunkBytes);
      const place = Math.floor(chunk / 3) * chunkBytes + at % chunkBytes;
      const found = disks[chunk % 3]!.bytes(place, 512);
      if (found.some((byte, i) => byte !== model[at + i])) throw new Error(`${at} is wrong after a write at ${offset}`);
    }
  }
  assertEquals(disks[2]!.bytes(16 * KIB).some((byte) => byte !== 0), false, "behind the smallest disk's end");
  await striped.close?.("destroyed");
});

Deno.test("stripe() zeroes and discards with one call a disk, and exactly the range", async () => {
  const { disks, asked } = memories([64 * KIB, 64 * KIB]);
  const striped = stripe(disks, { chunkBytes: 4 * KIB });
  const ranges = [[0, 128 * KIB], [512, 3072], [3584, 1024], [2 * KIB, 12 * KIB], [4 * KIB, 4 * KIB], [127 * KIB, KIB]];
  for (const operation of ["writeZeroes", "discard"] as const) {
    for (const [offset, length] of ranges as [number, number][]) {
      await striped.write(new Uint8Array(128 * KIB).fill(1), 0, plain);
      asked.length = 0;
      await striped[operation]?.(offset, length, plain);
      const after = new Uint8Array(128 * KIB);
      await striped.read(after, 0, plain);
      assertEquals([after.indexOf(0), after.lastIndexOf(0)], [offset, offset + length - 1]);
      assertEquals(after.filter((byte) => byte === 0).length, length);
      assertEquals(asked.length, new Set(asked.map((line) => line[0])).size, `more than one call a disk: ${asked}`);
    }
  }
  assertEquals(asked, ["1: 64512+1024"]);
});

Deno.test("concat() leaves out the end of a disk that is no whole block", async () => {
  const block = { blockBytes: 4096 };
  const small = new MemoryBackend({ sizeBytes: 12 * KIB });
  const odd: Backend = {
    ...new NullBackend({ sizeBytes: 9 * KIB }),
    sizeBytes: 9 * KIB,
    read: (b) => void b.fill(9),
    write() {},
  };
  const joined = concat([
    odd,
    { sizeBytes: 4096, limits: block, read: (b) => void b.fill(4), write() {} },
    small,
  ]);
  assertEquals([joined.sizeBytes, joined.limits?.blockBytes], [24 * KIB, 4096]);
  const all = new Uint8Array(24 * KIB);
  await joined.read(all, 0, plain);
  assertEquals([0, 8191, 8192, 12287, 12288].map((at) => all[at]), [9, 9, 4, 4, 0]);
});

Deno.test("a set tells extents across its disks, in blocks of its own", async () => {
  const extents: readonly Extent[] = [
    { lengthBytes: 512, kind: "hole" },
    { lengthBytes: 512, kind: "data" },
    {
      lengthBytes: 7 * KIB,
      kind: "hole",
    },
    { lengthBytes: 512, kind: "zero" },
    { lengthBytes: 2 ** 30, kind: "hole" },
  ];
  const disk = { sizeBytes: 16 * KIB, read() {}, write() {} };
  const said = (found: readonly Extent[] | undefined) =>
    found?.map(({ lengthBytes, kind }) => `${kind} ${lengthBytes}`);
  const whole = concat([{ ...disk, extents: () => extents }, { ...disk, limits: { blockBytes: 4096 } }]);
  assertEquals(said(await whole.extents?.(0, 32 * KIB, plain)), [
    "data 4096",
    "hole 4096",
    "zero 4096",
    "hole 4096",
    "data 16384",
  ]);
  const brief = concat([{ ...disk, extents: () => extents.slice(0, 2) }, disk]);
  assertEquals(
    said(await brief.extents?.(0, 32 * KIB, plain)),
    ["hole 512", "data 512"],
    "it goes on where it has to ask again",
  );
});

Deno.test("a set is made of one disk or more, and of chunks that fit", () => {
  const disk = new NullBackend({ sizeBytes: 64 * KIB });
  assertThrows(() => concat([]), RangeError, "of one disk or more");
  assertThrows(() => stripe([]), RangeError, "of one disk or more");
  for (const chunkBytes of [0, 512, 4097, 2 ** 25]) {
    assertThrows(() => stripe([disk], { chunkBytes }), RangeError, "chunkBytes is 4096 to 16777216");
  }
  assertThrows(
    () => stripe([disk], { chunkBytes: 128 * KIB }),
    RangeError,
    "smaller than a chunk of 131072",
  );
});

Deno.test("a set closes each of its disks once with its reason, also when one cannot be closed", async () => {
  const closed: string[] = [];
  const disk = (name: string): Backend => ({
    sizeBytes: 64 * KIB,
    read() {},
    write() {},
    close: (reason: CloseReason) => {
      closed.push(`${name} ${reason}`);
      if (name === "a") throw new Error("it cannot be closed");
    },
  });
  await assertRejects(async () => await concat([disk("a"), disk("b")]).close?.("left"), Error, "it cannot be closed");
  assertEquals(closed, ["a left", "b left"]);
});
