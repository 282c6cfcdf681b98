// SPDX-License-Identifier: MIT
import { assertEquals, assertRejects } from "@std/assert";
import { existsSync } from "@std/fs";
import { DblockError } from "../../../src/disk/errors.ts";
import { IntentBitmap } from "../../../src/system/intent_bitmap.ts";
import { failingSyncs, heldSyncs } from "../backends/held_syncs.ts";
import { folder } from "../backends/stores.ts";

const MIB = 2 ** 20;
const sizeBytes = 100 * MIB - 512;

/** What the file says, whoever has it open now. */
async function onDisk(path: string): Promise<string> {
  const copy = `${path}-copy`;
  await Deno.copyFile(path, copy);
  const bitmap = await IntentBitmap.open({ path: copy, sizeBytes });
  const marked = regionsOf(bitmap);
  await bitmap.close();
  return marked;
}

function regionsOf(bitmap: IntentBitmap): string {
  return [...bitmap.marked()].map(({ offsetBytes }) => offsetBytes / MIB).join();
}

Deno.test("IntentBitmap has a mark in the file before a write begins, and until it is settled and cleared", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const bitmap = await IntentBitmap.open({ path, sizeBytes });
  await bitmap.begin(MIB - 512, 1024); // two regions
  await bitmap.begin(99 * MIB, MIB - 512); // up to the end, which is no whole region
  assertEquals([await onDisk(path), bitmap.markedBytes], ["0,1,99", 3 * MIB - 512]);
  assertEquals([bitmap.isMarked(0, 512), bitmap.isMarked(2 * MIB, 512)], [true, false]);
  assertEquals([...bitmap.settled(0).keys()], [], "writes are in flight");
  bitmap.end(MIB - 512, 1024);
  const settled = bitmap.settled(0);
  assertEquals([...settled.keys()], [0, 1]);
  assertEquals([...bitmap.settled(60_000).keys()], [], "written a moment ago");
  // One is written again before it is cleared: it stays.
  await bitmap.begin(0, 512);
  bitmap.clear(settled);
  assertEquals(regionsOf(bitmap), "0,99");
  await bitmap.close();
  const again = await IntentBitmap.open({ path, sizeBytes });
  assertEquals([again.isOld, regionsOf(again)], [true, "0,99"]);
  await again.close();
});

Deno.test("IntentBitmap has every mark in the file, however many are made at the same time", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const bitmap = await IntentBitmap.open({ path, sizeBytes });
  await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    for (let turn = 0; turn < i % 7; turn++) await Promise.resolve();
    await bitmap.begin(i * MIB, 512);
    // Its own mark, at this very moment.
    const byte = Deno.readFileSync(path)[4096 + (i >> 3)]!;
    assertEquals(byte >> (i & 7) & 1, 1, `${i}`);
  }));
  await bitmap.close();
});

Deno.test("IntentBitmap.clearOld() takes marks of before away, and no mark of a write of now", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const first = await IntentBitmap.open({ path, sizeBytes });
  await first.markOld(0, 8 * MIB);
  assertEquals(await onDisk(path), "0,1,2,3,4,5,6,7");
  await first.close();
  const second = await IntentBitmap.open({ path, sizeBytes });
  await second.begin(3 * MIB, 512);
  second.end(3 * MIB, 512);
  await second.begin(5 * MIB, 512);
  await second.begin(9 * MIB, 512);
  second.clearOld();
  assertEquals(regionsOf(second), "3,5,9");
  await second.close();
});

Deno.test("IntentBitmap keeps its owner's notes, and is one owner's at a time", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const first = await IntentBitmap.open({ path, sizeBytes, notes: 2 });
  await Promise.all([first.setNote(0, 7), first.setNote(1, 9)]);
  await assertRejects(() => first.setNote(2, 1), RangeError, "there is no note 2");
  const error = await assertRejects(() => IntentBitmap.open({ path, sizeBytes, notes: 2 }), DblockError);
  assertEquals([error.code, error.wrong], ["EBUSY", "another program has it"]);
  await first.close();
  const second = await IntentBitmap.open({ path, sizeBytes, notes: 2 });
  assertEquals([second.note(0), second.note(1)], [7, 9]);
  await second.close();
  for (
    const [change, message] of [
      [{ notes: 3 }, "it belongs to a disk of"],
      [{ notes: 2, sizeBytes: MIB }, "it belongs to a disk of"],
      [{ notes: 2, regionBytes: 65536 }, "with regions of 1048576"],
    ] as const
  ) {
    await assertRejects(() => IntentBitmap.open({ path, sizeBytes, ...change }), DblockError, message);
  }
});

Deno.test("IntentBitmap leaves a file that it has made to another program that was faster to lock it", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const open = Deno.open;
  const others: Deno.FsFile[] = [];
  Deno.open = async (...args) => {
    const file = await open(...args);
    const other = await open(path, { read: true, write: true });
    others.push(other);
    assertEquals(await other.tryLock(true), true);
    return file;
  };
  try {
    assertEquals((await assertRejects(() => IntentBitmap.open({ path, sizeBytes }), DblockError)).code, "EBUSY");
  } finally {
    Deno.open = open;
    for (const other of others) other.close();
  }
  assertEquals([others.length, existsSync(path)], [1, true]);
});

Deno.test("IntentBitmap asks what a new file says, and that is in it from the beginning; or nothing is, and it stays new", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const [notes, size] = [2, 13 * MIB];
  const refused = () => {
    throw new Error("not now");
  };
  await assertRejects(() => IntentBitmap.open({ path, sizeBytes: size, notes, begin: refused }), Error, "not now");
  const begin = () => ({ notes: [7], isMarked: true });
  const first = await IntentBitmap.open({ path, sizeBytes: size, notes, begin });
  await first.close();
  const second = await IntentBitmap.open({ path, sizeBytes: size, notes, begin: refused });
  const content = [second.note(0), second.note(1), regionsOf(second)];
  assertEquals([first.isOld, second.isOld, ...content], [false, true, 7, 0, "0,1,2,3,4,5,6,7,8,9,10,11,12"]);
  second.clearOld();
  assertEquals(second.markedBytes, 0);
  await second.close();
});

Deno.test("IntentBitmap.setNote() waits for a note that is on its way, and writes one again that has not arrived", async () => {
  using dir = folder();
  const path = `${dir.path}/bitmap`;
  const bitmap = await IntentBitmap.open({ path, sizeBytes, notes: 1 });
  const syncs = heldSyncs();
  let setCount = 0;
  const sets = [1, 2].map(() => bitmap.setNote(0, 7).then(() => setCount++));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals([bitmap.note(0), setCount], [7, 0]);
  syncs[Symbol.dispose]();
  await Promise.all(sets);
  {
    using _ = failingSyncs();
    await assertRejects(() => bitmap.setNote(0, 9), Error, "no room");
    await assertRejects(() => bitmap.setNote(0, 9), Error, "no room");
  }
  await bitmap.setNote(0, 9);
  await bitmap.close();
});
