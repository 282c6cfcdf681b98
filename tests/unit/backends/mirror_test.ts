// SPDX-License-Identifier: MIT
// A mirror whose halves fail, come back, and differ after a crash. What every backend does is in contract_test.ts.
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MirrorBackend } from "../../../src/backends/mirror.ts";
import type { MirrorBackendOptions } from "../../../src/backends/mirror_assembly.ts";
import { DblockError, type ErrnoName } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { type Asked, BreakableDisk } from "./mirror_disk.ts";
import { folder } from "./stores.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const sizeBytes = MIB;
const regionBytes = 64 * KIB;
const plain = requestOptions();

function filled(value: number, length = 4096): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

async function read(disk: MirrorBackend, at: number, length = 4096): Promise<Uint8Array> {
  const buffer = filled(0xee, length);
  await disk.read(buffer, at, plain);
  return buffer;
}

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await Promise.resolve();
};

/** A mirror of two disks, in sync, with a file of marks; closed at the end of the test. */
async function mirrored(options: MirrorBackendOptions & { readonly disks?: BreakableDisk[] } = {}) {
  const dir = folder();
  const bitmapPath = `${dir.path}/bitmap`;
  const disks = options.disks ?? [new BreakableDisk("a", sizeBytes), new BreakableDisk("b", sizeBytes)];
  const log: string[] = [];
  const all = {
    bitmapPath,
    regionBytes,
    assumeSame: true,
    retryMs: 0,
    log: (line: string) => log.push(line),
    ...options,
  };
  let path = bitmapPath;
  let mirror: MirrorBackend | undefined = await MirrorBackend.open(disks, all);
  return {
    a: disks[0]!,
    b: disks[1]!,
    disks,
    log,
    bitmapPath,
    get mirror() {
      if (mirror === undefined) throw new Error("nobody serves the mirror");
      return mirror;
    },
    /** As if the program had been killed: the next one has the disks and the file as they are now. */
    async afterDeath(): Promise<void> {
      const copy = `${bitmapPath}-${crypto.randomUUID()}`;
      // The program that is dead in this play still has the file itself, and its lock.
      Deno.copyFileSync(path, copy);
      path = copy;
      mirror = undefined;
      for (const disk of disks) disk.die();
      mirror = await MirrorBackend.open(disks, { ...all, bitmapPath: copy });
    },
    async reopen(changes: MirrorBackendOptions = {}): Promise<void> {
      await mirror?.close("left");
      for (const disk of disks) disk.asked = [];
      mirror = await MirrorBackend.open(disks, { ...all, bitmapPath: path, ...changes });
    },
    async [Symbol.asyncDispose]() {
      await mirror?.close("destroyed").catch(() => {});
      dir[Symbol.dispose]();
    },
  };
}

const states = (mirror: MirrorBackend) => mirror.status.halves.map(({ state }) => state);
const writesOf = (disk: BreakableDisk) =>
  disk.asked.filter(({ operation }) => operation === "write" || operation === "writeZeroes");

async function untilInSync(mirror: MirrorBackend): Promise<void> {
  for (let waitedMs = 0; mirror.status.state !== "in sync"; waitedMs += 5) {
    if (waitedMs > 20_000) throw new Error(`not in sync: ${JSON.stringify(mirror.status)}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

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

Deno.test("a half that does not answer is left after its time, and what it does too late does no harm", async () => {
  for (const operation of ["write", "read", "flush"] as const) {
    await using test = await mirrored({ lateMs: 50 });
    const { mirror, a, b } = test;
    await mirror.write(filled(1), 0, plain);
    const awake = Promise.withResolvers<void>();
    a.delay = (asked) => asked.operation === operation || asked.operation === "write" ? awake.promise : undefined;
    if (operation === "read") assertEquals(await read(mirror, 0), filled(1));
    if (operation === "flush") await mirror.flush(plain);
    await mirror.write(filled(2), 0, plain); // a write of before, which reaches the disk after this one
    for (let waitedMs = 0; states(mirror)[0] !== "left" && waitedMs < 20_000; waitedMs += 5) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await mirror.write(filled(3), 0, plain);
    assertEquals([states(mirror), mirror.status.halves[0]?.error], [
      ["left", "working"],
      "Cannot use a: it has not answered for 0.05 s",
    ]);
    const returned = mirror.rejoin("a"); // once it has answered: not before
    await turns(100);
    assertEquals([states(mirror)[0], a.openCount], ["left", 1]);
    a.delay = () => undefined;
    awake.resolve();
    await returned;
    assertEquals([mirror.status.state, a.content, b.content[0]], ["in sync", b.content, 3]);
    // Nobody else has what the last one has: it is waited for.
    b.failure = () => "EIO";
    await mirror.write(filled(4), 0, plain);
    a.delay = () => new Promise((resolve) => setTimeout(resolve, 300));
    await mirror.write(filled(5), 0, plain);
    assertEquals(await read(mirror, 0), filled(5));
    a.delay = () => undefined;
  }
});

Deno.test("a mark that cannot be recorded fails the write, before any half has it", async () => {
  await using test = await mirrored();
  const { mirror, a } = test;
  a.asked = [];
  using _ = failingSyncs();
  await assertRejects(() => mirror.write(filled(1), 0, plain), Error, "no room for the mark");
  assertEquals(a.asked, []);
});

/** Makes every sync of a file fail, until it is disposed. */
function failingSyncs(): Disposable {
  const { syncData } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.syncData = () => Promise.reject(new Error("no room for the mark"));
  return { [Symbol.dispose]: () => void (Deno.FsFile.prototype.syncData = syncData) };
}

// Halves fail and come back by chance, and the program dies in between; the naive disk beside it knows what must be read.
for (const seed of [1, 2, 3, Number(Deno.env.get("DBLOCK_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0])]) {
  Deno.test(`a mirror whose halves fail by chance reads what was written (seed ${seed}: DBLOCK_SEED)`, async () => {
    let state = seed >>> 0;
    const below = (end: number) => {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      return Math.floor(state / 2 ** 32 * end);
    };
    await using test = await mirrored();
    const model = new Uint8Array(sizeBytes);
    const errnos: readonly ErrnoName[] = ["EIO", "ENOSPC", "EREMOTEIO"];
    for (const disk of test.disks) disk.delay = () => turns(below(20));
    for (let step = 0; step < 300; step++) {
      const broken = test.disks[below(2)]!;
      const errno = errnos[below(3)]!;
      const isBreaking = below(8) === 0 && test.mirror.status.state === "in sync";
      const operation = ["read", "write", "flush"][below(3)];
      if (isBreaking) broken.failure = (asked: Asked) => asked.operation === operation ? errno : undefined;
      await Promise.all(Array.from({ length: 4 }, async (_, lane) => {
        const at = lane * 256 * KIB + below(60) * 4096;
        const data = filled(below(256), 4096 * (1 + below(4)));
        switch (below(4)) {
          case 0: {
            const found = await read(test.mirror, at, data.length);
            return assertEquals(found, model.slice(at, at + data.length), `step ${step}: ${at}`);
          }
          case 1:
            await test.mirror.writeZeroes(at, data.length, plain);
            return model.fill(0, at, at + data.length);
          case 2:
            return await test.mirror.flush(plain);
          default:
            model.set(data, at);
            return await test.mirror.write(data, at, plain);
        }
      }));
      broken.failure = () => undefined;
      // Repairs come first: a half that is left by one must not be the one that is whole when the other breaks.
      await read(test.mirror, 0, sizeBytes);
      const left = test.mirror.status.halves.find((half) => half.state === "left");
      if (left !== undefined && below(3) === 0) await test.mirror.rejoin(left.name);
      if (below(30) === 0) {
        await test.afterDeath();
        if (below(2) === 0) await untilInSync(test.mirror);
      }
    }
    for (const { name, state } of test.mirror.status.halves) if (state === "left") await test.mirror.rejoin(name);
    await untilInSync(test.mirror);
    assertEquals([test.a.content, test.b.content], [model, model]);
    assertThrows(
      () => assertEquals(test.a.content, new Uint8Array(sizeBytes)),
      Error,
      undefined,
      "nothing was written",
    );
  });
}
