// SPDX-License-Identifier: MIT
/** What `readahead()` has in memory, and when it is void. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { readahead } from "../../../src/filters/readahead.ts";
import { settled } from "./settled.ts";

const STEP = 4096;
const WINDOW = 16384;
const plain = requestOptions();

function open(): { disk: PlayedDisk; filter: ReturnType<typeof readahead> } {
  const content = Uint8Array.from({ length: 2 ** 18 }, (_, i) => i / STEP);
  const disk = new PlayedDisk({}, content);
  return { disk, filter: readahead(disk, { windowBytes: WINDOW }) };
}

async function read(filter: ReturnType<typeof readahead>, step: number): Promise<number> {
  const buffer = new Uint8Array(STEP);
  await filter.read(buffer, step * STEP, plain);
  return buffer[0]!;
}

Deno.test("readahead(): from the third read in order on, the data is there before it is asked for", async () => {
  const { disk, filter } = open();
  for (const step of [8, 9]) assertEquals(await read(filter, step), step);
  await settled();
  const before = disk.asked.length;
  assertEquals(await read(filter, 10), 10);
  // The backend was not asked for this step, but perhaps for the next window.
  assert(disk.asked.slice(before).every(({ offsetBytes }) => offsetBytes > 10 * STEP));
  for (let step = 11; step < 40; step++) assertEquals(await read(filter, step), step);
  assert(disk.asked.length < 16, `${disk.asked.length} requests for 32 reads`);
  assertEquals(disk.violations, []);
});

Deno.test("readahead(): who reads here and there causes no read ahead", async () => {
  const { disk, filter } = open();
  for (const step of [3, 40, 7, 22, 50, 11]) assertEquals(await read(filter, step), step);
  await settled();
  assertEquals(disk.asked.length, 6);
});

Deno.test("readahead(): two who read in order, in turns, are both ahead of the disk; with one stream neither is", async () => {
  const requests = async (streams: number) => {
    const { disk } = open();
    const filter = readahead(disk, { windowBytes: WINDOW, streams });
    for (let step = 0; step < 24; step++) {
      for (const first of [0, 32]) {
        assertEquals(await read(filter, first + step), first + step);
        await settled();
      }
    }
    assertEquals(disk.violations, []);
    return disk.asked.length;
  };
  const [two, one] = [await requests(2), await requests(1)];
  assert(two < 24, `${two} requests for 48 reads of two streams`);
  assert(one >= 48, `${one} requests where one stream is known`);
});

Deno.test("readahead(): a window or a number of streams that cannot be is refused", () => {
  const { disk } = open();
  for (const options of [{ windowBytes: 0 }, { windowBytes: -1 }, { streams: 0 }, { streams: 1.5 }]) {
    assertThrows(() => readahead(disk, options), RangeError);
  }
});

Deno.test("readahead(): what is written, zeroed or discarded is not read from memory", async () => {
  const { disk, filter } = open();
  for (const step of [0, 1]) await read(filter, step);
  await settled();
  await filter.write(new Uint8Array(512).fill(99), 2 * STEP, plain);
  assertEquals(await read(filter, 2), 99);
  await settled();
  await filter.writeZeroes!(4 * STEP, STEP, plain);
  assertEquals([await read(filter, 3), await read(filter, 4), await read(filter, 5)], [3, 0, 5]);
  assertEquals(disk.violations, []);
});

Deno.test("readahead(): what cannot be read ahead is an error for who asks for it, and for nobody before", async () => {
  const { disk, filter } = open();
  disk.failure = { operation: "read", errno: "ENODATA", place: { offsetBytes: 4 * STEP, lengthBytes: STEP } };
  for (const step of [0, 1, 2, 3]) assertEquals(await read(filter, step), step);
  const error = await assertRejects(() => read(filter, 4), DblockError);
  assertEquals(error.code, "ENODATA");
  assertEquals(await read(filter, 5), 5);
});

Deno.test("readahead() asks nothing behind the end, and nothing after it is closed", async () => {
  const { disk, filter } = open();
  for (let step = 60; step < 64; step++) assertEquals(await read(filter, step), step);
  await filter.close?.("left");
  await settled();
  assertEquals([disk.violations, disk.closings], [[], ["left"]]);
});
