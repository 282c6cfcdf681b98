// SPDX-License-Identifier: MIT
// A mirror whose halves fail and come back. What every backend does is in contract_test.ts.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { BreakableDisk } from "./mirror_disk.ts";
import {
  filled,
  KIB,
  mirrored,
  plain,
  read,
  regionBytes,
  sizeBytes,
  states,
  turns,
  untilInSync,
  writesOf,
} from "./mirrored.ts";

Deno.test("writes that overlap end the same on both halves, and are one of them in each block", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  let turn = 1;
  // Each half does what it is asked in an order of its own.
  for (const disk of [a, b]) disk.delay = () => turns((turn = turn * 1103515245 + 12345 >>> 0) >>> 16 & 31);
  for (let round = 0; round < 100; round++) {
    const values = [1, 2, 3, 4].map((i) => (round * 4 + i) % 251);
    await Promise.all(values.map((value, i) => mirror.write(filled(value, 16 * KIB), i * 4096, plain)));
    assertEquals(a.content, b.content);
    for (let at = 0; at < 28 * KIB; at += 4096) assert(values.includes(a.content[at]!));
  }
  assertEquals(mirror.status.state, "in sync");
});

Deno.test("a half that fails is left and named, nobody notices, and that is on record before the answer", async () => {
  await using test = await mirrored();
  const { mirror, a, b, log } = test;
  await mirror.write(filled(1), 0, plain);
  a.failure = () => "EREMOTEIO";
  await mirror.write(filled(2), 4096, plain);
  const [half] = mirror.status.halves;
  assertEquals([mirror.status.state, half?.name, half?.state], ["degraded", "a", "left"]);
  assertEquals([half?.error, log], ["Cannot write: a is broken", ["a has left the mirror: Cannot write: a is broken"]]);
  assertEquals([await read(mirror, 0), await read(mirror, 4096)], [filled(1), filled(2)]);
  a.asked = [];
  await mirror.write(filled(3), 8192, plain);
  await mirror.flush(plain);
  assertEquals([a.asked, a.closings, b.content[8192]], [[], ["left"], 3]);
  // The next program knows, however this one has ended: of the half that is behind, nothing is read.
  a.failure = () => undefined;
  b.openError = new Error("it is elsewhere");
  const error = await assertRejects(() => test.afterDeath(), DblockError);
  assertEquals(
    error.message,
    "Cannot mirror a and b: no disk that has everything is there: a: it is not up to date; b: Error: it is elsewhere",
  );
});

Deno.test("a half that comes back gets what it has missed and nothing else, also what is written meanwhile", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  b.content.fill(9, 512 * KIB);
  a.content.fill(9, 512 * KIB);
  b.failure = () => "EIO";
  await mirror.write(filled(1), 0, plain);
  await mirror.write(filled(2, 8 * KIB), 60 * KIB, plain); // two regions
  await mirror.writeZeroes(512 * KIB, 4096, plain);
  b.failure = () => undefined;
  b.asked = [];
  let isWritten = false;
  b.delay = ({ operation }) => {
    if (operation !== "write" || isWritten) return undefined;
    isWritten = true; // while its first region is copied
    void mirror.write(filled(3), 4096, plain);
    void mirror.write(filled(4), 900 * KIB, plain);
    return turns(20);
  };
  await mirror.rejoin("b");
  await mirror.flush(plain);
  assertEquals([mirror.status.state, a.content], ["in sync", b.content]);
  assertEquals([b.content[4096], b.content[900 * KIB], b.content[512 * KIB]], [3, 4, 0]);
  assertEquals(mirror.status.resyncedBytes, 3 * regionBytes);
  const touched = writesOf(b).map(({ offsetBytes }) => Math.floor(offsetBytes / regionBytes));
  assertEquals([...new Set(touched)].sort((x, y) => x - y), [0, 1, 8, 14]);
  assertEquals(mirror.status.halves[1]?.syncLeftBytes, 0);
});

Deno.test("a half that has left is opened again by itself until it is there", async () => {
  await using test = await mirrored({ retryMs: 10 });
  const { mirror, a, b } = test;
  b.openError = new Error("it is not there yet");
  b.failure = () => "ETIMEDOUT";
  await mirror.write(filled(1), 0, plain);
  b.failure = () => undefined;
  for (let waitedMs = 0; mirror.status.halves[1]?.error !== "Error: it is not there yet" && waitedMs < 20_000;) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    waitedMs += 5;
  }
  assertEquals([states(mirror), mirror.status.halves[1]?.error], [["working", "left"], "Error: it is not there yet"]);
  b.openError = undefined;
  await untilInSync(mirror);
  assertEquals(a.content, b.content);
});

Deno.test("a half that fails again while it is copied to is left again, with what is still missing", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  b.failure = () => "EIO";
  for (let region = 0; region < 4; region++) await mirror.write(filled(region + 1), region * regionBytes, plain);
  let writes = 0;
  b.failure = ({ operation }) => operation === "write" && ++writes > 2 ? "EIO" : undefined;
  await assertRejects(
    () => mirror.rejoin("b"),
    DblockError,
    "Cannot use b in the mirror again: Cannot write: b is broken",
  );
  assertEquals([states(mirror), mirror.status.markedBytes], [["working", "left"], 4 * regionBytes]);
  b.failure = () => undefined;
  await mirror.rejoin("b");
  assertEquals([states(mirror), a.content], [["working", "working"], b.content]);
});

Deno.test("what one half cannot read comes from the other, and is written again", async () => {
  await using test = await mirrored();
  const { mirror, a } = test;
  await mirror.write(filled(7, 8192), 8192, plain);
  const bad = new Set([8192]);
  a.failure = ({ operation, offsetBytes }) => {
    if (operation === "write") bad.delete(offsetBytes);
    return operation === "read" && bad.has(offsetBytes) ? "EIO" : undefined;
  };
  a.content.fill(0, 8192, 12288);
  assertEquals(await read(mirror, 8192), filled(7));
  for (let waited = 0; bad.size > 0 && waited < 1000; waited++) await turns(1);
  await turns(50);
  const { state, repairedBytes, halves } = mirror.status;
  assertEquals([state, repairedBytes, halves[0]?.readErrorCount], ["in sync", 4096, 1]);
  assertEquals([a.content[8192], await read(mirror, 8192)], [7, filled(7)]);
});

Deno.test("a half that can neither be read nor written again is left", async () => {
  for (const broken of ["write", "read"]) {
    await using test = await mirrored();
    const { mirror, a } = test;
    await mirror.write(filled(7), 0, plain);
    // A write that "succeeds" and cannot be read back is no repair.
    a.failure = ({ operation }) => operation === "read" || operation === broken ? "EIO" : undefined;
    assertEquals(await read(mirror, 0), filled(7));
    for (let waited = 0; mirror.status.state === "in sync" && waited < 20_000; waited++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals([states(mirror), mirror.status.repairedBytes], [["left", "working"], 0]);
  }
});

Deno.test("a half that cannot be repaired stays if the other one has left meanwhile: it is the last", async () => {
  await using test = await mirrored();
  const { mirror, a, b, log } = test;
  const awake = Promise.withResolvers<void>();
  a.delay = ({ operation, offsetBytes }) => operation === "write" && offsetBytes === 0 ? awake.promise : undefined;
  a.failure = ({ operation, offsetBytes }) => operation !== "flush" && offsetBytes === 0 ? "EIO" : undefined;
  assertEquals(await read(mirror, 0), filled(0));
  for (let waited = 0; writesOf(a).length === 0 && waited < 10_000; waited++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  b.failure = () => "EIO";
  await mirror.write(filled(1), 512 * KIB, plain);
  assertEquals(states(mirror), ["working", "left"]);
  awake.resolve();
  await assertRejects(() => read(mirror, 0, 8192), DblockError, "a is broken"); // after the repair
  assertEquals([states(mirror), log], [["working", "left"], ["b has left the mirror: Cannot write: b is broken"]]);
  assertEquals(await read(mirror, 512 * KIB), filled(1));
});

Deno.test("repairs that fail again and again are few lines: the first, and at the end how many there were", async () => {
  await using test = await mirrored();
  const { mirror, a, b, log } = test;
  a.failure = ({ operation }) => operation === "read" ? "EIO" : undefined;
  let isRead = false;
  // The other half answers the reader, and fails when the repair reads it.
  b.failure = ({ operation }) => operation === "read" && !(isRead = !isRead) ? "EIO" : undefined;
  for (let i = 0; i < 20; i++) {
    assertEquals(await read(mirror, i * 4096), filled(0));
    for (let waited = 0; isRead && waited < 10_000; waited++) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await turns(50);
  assertEquals([states(mirror), log.length], [["working", "working"], 1]);
  assertMatch(log[0]!, /^Cannot repair 4096 bytes at 0 of a: /);
  await mirror.close("destroyed");
  assertMatch(log[1]!, /^Cannot repair 4096 bytes at \d+ of a: .*; 19 more in the last \d+ s$/);
});

Deno.test("if all halves fail, the request does, with its errno; one stays, and the others are copied when they can", async () => {
  for (const operation of ["write", "flush", "writeZeroes"] as const) {
    await using test = await mirrored();
    const { mirror, a, b } = test;
    await mirror.write(filled(1), 0, plain);
    a.failure = b.failure = (asked) => asked.operation === operation ? "ENOSPC" : undefined;
    const ask = {
      write: () => mirror.write(filled(2), 0, plain),
      flush: () => mirror.flush(plain),
      writeZeroes: () => mirror.writeZeroes(0, 4096, plain),
    }[operation];
    const error = await assertRejects(ask, DblockError, "a is broken");
    assertEquals([error.code, states(mirror)], ["ENOSPC", ["working", "left"]]);
    b.content.fill(5, 0, 4096); // whatever the failed request has left there
    a.failure = b.failure = () => undefined;
    await mirror.rejoin("b");
    assertEquals([mirror.status.state, b.content], ["in sync", a.content]);
  }
  await using test = await mirrored();
  test.a.failure = test.b.failure = ({ operation }) => operation === "read" ? "ENODATA" : undefined;
  assertEquals((await assertRejects(() => read(test.mirror, 0), DblockError, "a is broken")).code, "ENODATA");
  test.a.failure = test.b.failure = () => undefined;
  await test.mirror.flush(plain);
});

Deno.test("of three halves, one that is away keeps its marks when another one has been copied to", async () => {
  const disks = ["a", "b", "c"].map((name, i) => new BreakableDisk(name, sizeBytes, filled(i, sizeBytes)));
  const [a, b, c] = disks as [BreakableDisk, BreakableDisk, BreakableDisk];
  c.failure = ({ operation }) => operation === "flush" ? undefined : "EIO";
  await using test = await mirrored({ assumeSame: false, disks });
  const { mirror } = test;
  for (let waitedMs = 0; states(mirror).join() !== "working,working,left" && waitedMs < 20_000; waitedMs += 5) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assertEquals([states(mirror), b.content], [["working", "working", "left"], a.content]);
  c.failure = () => undefined;
  await mirror.rejoin("c");
  assertEquals([mirror.status.state, mirror.status.markedBytes, c.content], ["in sync", 0, a.content]);
});

Deno.test("a disk that is another one under the same name is copied as a whole if that is asked for", async () => {
  await using test = await mirrored();
  const { mirror, a, b } = test;
  await mirror.write(filled(1), 0, plain);
  await mirror.write(filled(2), 512 * KIB, plain);
  await test.reopen();
  b.failure = () => "EIO";
  await test.mirror.write(filled(3), 0, plain);
  b.failure = () => undefined;
  b.content.fill(0);
  await test.mirror.rejoin("b", { whole: true });
  assertEquals([test.mirror.status.resyncedBytes, b.content], [sizeBytes, a.content]);
  await assertRejects(() => test.mirror.rejoin("b"), RangeError, "there is no disk b that has left");
});
