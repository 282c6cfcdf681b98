// SPDX-License-Identifier: MIT
// How a mirror begins: new, after a close, after a death, without a disk; and what it refuses.
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MirrorBackend } from "../../../src/backends/mirror.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { BreakableDisk } from "./mirror_disk.ts";
import {
  filled,
  KIB,
  MIB,
  mirrored,
  MirrorUnderTest,
  plain,
  regionBytes,
  sizeBytes,
  states,
  untilInSync,
  writesOf,
} from "./mirrored.ts";
import { powerCuts } from "./power_cut.ts";

Deno.test("after a death in the middle of a write, what was marked is copied from the first half, and no more", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  await mirror.write(filled(1), 0, plain);
  await mirror.write(filled(1), 512 * KIB, plain);
  await mirror.flush(plain);
  b.delay = ({ operation }) => operation === "write" ? new Promise(() => {}) : undefined;
  void mirror.write(filled(2), 512 * KIB, plain);
  for (let waited = 0; a.content[512 * KIB] !== 2 && waited < 1000; waited++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assertEquals([a.content[512 * KIB], b.content[512 * KIB]], [2, 1]);
  b.delay = () => undefined;
  await test.afterDeath();
  await untilInSync(test.mirror);
  // The flush came too soon after the first writes to take their marks away.
  assertEquals([b.content, test.mirror.status.resyncedBytes], [a.content, 2 * regionBytes]);
  assertEquals([...new Set(writesOf(b).map(({ offsetBytes }) => offsetBytes))], [0, 512 * KIB]);
});

Deno.test("a mirror that was closed is in sync when it is opened, and nothing is copied", async () => {
  await using test = await mirrored();
  await test.mirror.write(filled(1, 256 * KIB), 128 * KIB, plain);
  assertEquals(test.mirror.status.markedBytes, 256 * KIB);
  await test.reopen();
  assertEquals([states(test.mirror), test.mirror.status.markedBytes], [["working", "working"], 0]);
  assertEquals([test.a.asked, test.b.asked], [[], []]);
});

Deno.test("a mirror starts without a half that it knows, and copies what that has missed when it is there again", async () => {
  await using test = await mirrored();
  const { a, b } = test;
  await test.mirror.write(filled(1), 0, plain);
  a.openError = new Error("it is away");
  await test.reopen();
  assertEquals([states(test.mirror), test.mirror.status.halves[0]?.error], [["left", "working"], "Error: it is away"]);
  await test.mirror.write(filled(2), 256 * KIB, plain);
  a.openError = undefined;
  await test.reopen();
  assertEquals(states(test.mirror)[1], "working");
  await untilInSync(test.mirror);
  assertEquals([a.content, test.mirror.status.resyncedBytes], [b.content, regionBytes]);
});

Deno.test("a new mirror copies all of its first half, unless they are said to be the same", async () => {
  const disks = [new BreakableDisk("a", sizeBytes, filled(1, sizeBytes)), new BreakableDisk("b", sizeBytes)];
  disks[0]!.content.fill(0, 128 * KIB, 512 * KIB);
  await using test = await mirrored({ assumeSame: false, disks });
  assertEquals(states(test.mirror), ["working", "syncing"]);
  await untilInSync(test.mirror);
  assertEquals([test.mirror.status.resyncedBytes, test.b.content], [sizeBytes, test.a.content]);
  assert(
    test.b.asked.some(({ operation }) => operation === "writeZeroes"),
    "zeroes were written where a hole would do",
  );
  test.b.openError = new Error("it is away");
  const again = () => MirrorBackend.open(disks, { bitmapPath: `${test.bitmapPath}2` });
  await assertRejects(
    again,
    DblockError,
    "Cannot mirror a and b: b: Error: it is away (a new mirror needs all of its disks",
  );
});

Deno.test("a new mirror that could not start, because a disk was away, is new at the next start", async () => {
  await using test = new MirrorUnderTest({ assumeSame: false });
  const { a, b } = test;
  a.content.fill(1);
  b.content.fill(2);
  b.openError = new Error("it is away");
  await assertRejects(() => test.open(), DblockError, "a new mirror needs all of its disks");
  b.openError = undefined;
  await test.open();
  assertEquals(states(test.mirror), ["working", "syncing"]);
  await untilInSync(test.mirror);
  assertEquals([test.mirror.status.resyncedBytes, b.content], [sizeBytes, a.content]);
});

Deno.test("a new mirror whose record was being made when the power was cut copies everything at the next start", async () => {
  await using test = new MirrorUnderTest({ assumeSame: false });
  const { a, b, bitmapPath } = test;
  const cuts = powerCuts(bitmapPath);
  await test.open().finally(() => cuts[Symbol.dispose]());
  await test.mirror.close("left");
  assert(cuts.contents.length > 3, "the file was not seen to be made");
  for (const content of cuts.contents) {
    a.content.fill(1);
    b.content.fill(2);
    await Deno.writeFile(bitmapPath, content);
    await test.open();
    assertEquals(states(test.mirror), ["working", "syncing"]);
    await untilInSync(test.mirror);
    assertEquals([test.mirror.status.resyncedBytes, b.content], [sizeBytes, a.content]);
    await test.mirror.close("left");
  }
});

Deno.test("the record of other disks, or of the same ones in another order, is refused, as is one in use", async () => {
  await using test = await mirrored();
  const { bitmapPath, a, b } = test;
  const open = (disks: BreakableDisk[], options = {}) =>
    MirrorBackend.open(disks, { bitmapPath, regionBytes, ...options });
  await assertRejects(() => open([a, b]), DblockError, "another program has it");
  await test.mirror.close("left");
  const refused = [
    [[b, a], "its disk 1 is not b"],
    [[a, new BreakableDisk("c", sizeBytes)], "its disk 2 is not c"],
    [[a, b, new BreakableDisk("c", sizeBytes)], "its disk 3 is not c"],
  ] as const;
  for (const [disks, message] of refused) await assertRejects(() => open([...disks]), DblockError, message);
  const large = [new BreakableDisk("a", 2 * MIB), new BreakableDisk("b", 2 * MIB)];
  await assertRejects(() => open(large), DblockError, `it belongs to a disk of ${MIB} bytes`);
  for (const disk of [a, b]) assertEquals(disk.closings.at(-1), "unused");
  await Deno.writeTextFile(bitmapPath, "something else");
  await assertRejects(() => open([a, b]), DblockError, "it is another kind of file");
});

Deno.test("a mirror is of two to eight disks with names of their own, and as large as the smallest", async () => {
  const disks = (count: number) => Array.from({ length: count }, (_, i) => new BreakableDisk(`${i}`, sizeBytes));
  for (const count of [0, 1, 9]) {
    await assertRejects(() => MirrorBackend.open(disks(count)), RangeError, `not of ${count}`);
  }
  const twins = [new BreakableDisk("a", sizeBytes), new BreakableDisk("a", sizeBytes)];
  await assertRejects(() => MirrorBackend.open(twins), RangeError, "two disks of the mirror are called a");
  await assertRejects(() => MirrorBackend.open(disks(2), { regionBytes: 512 }), RangeError, "a power of two from 4096");
  const odd = [new BreakableDisk("a", sizeBytes), new BreakableDisk("b", sizeBytes - 512)];
  odd[0]!.limits = { blockBytes: 4096, maxIoBytes: 65536 };
  const mirror = await MirrorBackend.open(odd, { assumeSame: true, retryMs: 0, log: () => {} });
  assertEquals([mirror.sizeBytes, mirror.limits.blockBytes, mirror.limits.maxIoBytes], [sizeBytes - 4096, 4096, 65536]);
  // A disk that comes back with less than the mirror has promised.
  odd[1]!.failure = () => "EIO";
  await mirror.write(filled(1), 0, plain);
  odd[1]!.limits = { maxIoBytes: 4096 };
  odd[1]!.failure = () => undefined;
  await assertRejects(() => mirror.rejoin("b"), DblockError, "it takes 4096 bytes at once, and the mirror 65536");
  await mirror.close("destroyed");
  const eight = await MirrorBackend.open(disks(8), { assumeSame: true });
  await eight.write(filled(1), 0, plain);
  await eight.close("destroyed");
});

Deno.test("a mirror says at its start which half is not there, and why", async () => {
  await using test = await mirrored();
  test.b.openError = new Error("it is away");
  test.log.length = 0;
  await test.reopen();
  assertEquals([states(test.mirror), test.log], [["working", "left"], [
    "b is not in the mirror: Error: it is away",
  ]]);
});

Deno.test("a mirror that is read-only copies nothing: a half that may differ is not read, and not tried again", async () => {
  const disks = ["a", "b"].map((name, i) => new BreakableDisk(name, sizeBytes, filled(i + 1, sizeBytes)));
  const readOnly = disks.map(({ name, content }) => ({
    name,
    open: () => ({
      sizeBytes,
      readOnly: true,
      read: (buffer: Uint8Array, at: number) => buffer.set(content.subarray(at, at + buffer.length)),
      write: () => {
        throw new DblockError("EROFS", `Cannot write to ${name}`, "it is read-only");
      },
    }),
  }));
  const log: string[] = [];
  const options = { retryMs: 1, log: (line: string) => void log.push(line) };
  const mirror = await MirrorBackend.open(readOnly, options);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const wrong = "it may differ from the others, and nothing is copied to it while the mirror is read-only";
  assertEquals([states(mirror), log], [["working", "left"], [`b is not in the mirror: ${wrong}`]]);
  await assertRejects(() => mirror.rejoin("b"), DblockError, wrong);
  await mirror.close("left");
  const same = await MirrorBackend.open(readOnly, { ...options, assumeSame: true });
  assertEquals([same.readOnly, states(same), same.status.state], [true, ["working", "working"], "in sync"]);
  await same.close("left");
});

Deno.test("a half that was away from a mirror that is read-only has missed nothing, and is used when it is back", async () => {
  const disk = { sizeBytes, readOnly: true, read: (buffer: Uint8Array) => void buffer.fill(0), write: () => {} };
  let isAway = true;
  const open = () => {
    if (isAway) throw new Error("it is away");
    return disk;
  };
  await using test = await mirrored({ assumeSame: true });
  await test.mirror.close("left");
  const mirror = await MirrorBackend.open([{ name: "a", open: () => disk }, { name: "b", open }], {
    bitmapPath: test.bitmapPath,
    regionBytes,
    retryMs: 0,
    log: () => {},
  });
  assertEquals(states(mirror), ["working", "left"]);
  isAway = false;
  await mirror.rejoin("b");
  assertEquals(mirror.status.state, "in sync");
  await mirror.close("left");
});
