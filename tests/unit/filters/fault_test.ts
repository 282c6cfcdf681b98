// SPDX-License-Identifier: MIT
/** Each kind of fault, what it hits, and that it can be switched while requests run. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { Fault, type FaultOptions } from "../../../src/filters/fault.ts";

const plain = requestOptions();
const filled = (value: number, length = 1024) => new Uint8Array(length).fill(value);

/** A disk of ones, and faults in front. */
function open(options: FaultOptions, laterSeed?: number): { disk: PlayedDisk; fault: Fault } {
  const disk = new PlayedDisk(laterSeed === undefined ? {} : { laterSeed }, filled(1, 65536));
  return { disk, fault: new Fault(disk, options) };
}

const operationsOf = (disk: PlayedDisk) => disk.asked.map(({ operation }) => operation);

/** How many bits differ. */
function wrongBits(bytes: Uint8Array, value: number): number {
  let count = 0;
  for (const byte of bytes) for (let bit = byte ^ value; bit !== 0; bit &= bit - 1) count++;
  return count;
}

Deno.test("Fault, error: the request fails with the errno, and the backend is not asked", async () => {
  const { disk, fault } = open({ errno: "ENODATA" });
  const error = await assertRejects(async () => await fault.read(filled(0), 0, plain), DblockError);
  assertEquals([error.code, disk.asked.length, fault.hits], ["ENODATA", 0, 1]);
});

Deno.test("Fault, late: the backend has done it, and the request fails nevertheless", async () => {
  for (const laterSeed of [undefined, 3]) {
    const { disk, fault } = open({ kind: "late", operations: ["write"] }, laterSeed);
    const error = await assertRejects(async () => await fault.write(filled(5), 512, plain), DblockError);
    assertEquals([error.code, disk.content[512], disk.content[1535]], ["EIO", 5, 5]);
  }
});

Deno.test("Fault, short: half of it is done, and it says so", async () => {
  const { disk, fault } = open({ kind: "short" });
  assertEquals(await fault.write(filled(5, 3072), 0, plain), 1536);
  assertEquals([disk.content[1535], disk.content[1536]], [5, 1]);
  assertEquals(await fault.write(filled(6, 512), 0, plain), 0);
  assertEquals(disk.content[0], 5);
});

Deno.test("Fault, flip: one bit of what is read, or of what is written, is wrong", async () => {
  const { disk, fault } = open({ kind: "flip", seed: 5, times: 2 });
  // A flush has no bits: it is no hit.
  await fault.flush!(plain);
  const read = filled(0);
  await fault.read(read, 0, plain);
  assertEquals(wrongBits(read, 1), 1);
  await fault.write(filled(9), 8192, plain);
  assertEquals([wrongBits(disk.content.subarray(8192, 9216), 9), fault.hits], [1, 2]);
  await fault.read(read, 0, plain);
  assertEquals(wrongBits(read, 1), 0); // it has had its two
});

Deno.test("Fault, drop: a write and a flush are answered and not done; a read is no hit", async () => {
  const { disk, fault } = open({ kind: "drop" });
  await fault.write(filled(5), 0, plain);
  await fault.flush!(plain);
  const read = filled(0);
  await fault.read(read, 0, plain);
  assertEquals([read[0], operationsOf(disk), fault.hits], [1, ["read"], 2]);
});

Deno.test("Fault, hang: a request waits until the faults are switched off, or the disk is closed", async () => {
  for (const end of ["disable", "close"] as const) {
    const { disk, fault } = open({ kind: "hang", operations: ["read"] });
    let isDone = false;
    const reading = Promise.resolve(fault.read(filled(0), 0, plain)).then(() => isDone = true);
    await fault.write(filled(5), 0, plain); // the others go on
    await new Promise((resolve) => setTimeout(resolve, 1));
    assertEquals(isDone, false);
    if (end === "disable") {
      fault.disable();
      await reading;
      assertEquals(operationsOf(disk), ["write", "read"]);
    } else {
      const closed = fault.close("destroyed");
      await assertRejects(() => reading, DblockError, "closed while the request hung");
      await closed;
      assertEquals([operationsOf(disk), disk.closings, disk.violations], [["write"], ["destroyed"], []]);
    }
  }
});

Deno.test("Fault is switched on and off while requests run; its counts go on", async () => {
  const { fault } = open({ enabled: false, after: 1 });
  const fails = async () => {
    try {
      await fault.read(filled(0), 0, plain);
      return false;
    } catch {
      return true;
    }
  };
  assertEquals([await fails(), await fails()], [false, false]);
  fault.enable();
  assertEquals([fault.enabled, await fails(), await fails()], [true, false, true]);
  fault.disable();
  assertEquals([fault.enabled, await fails()], [false, false]);
  fault.enable();
  assertEquals(await fails(), true);
});

Deno.test("Fault: a place is hit by whatever touches it, and by no flush", async () => {
  const { fault } = open({ place: { offsetBytes: 4096, lengthBytes: 512 } });
  await fault.flush!(plain);
  await fault.read(filled(0), 3072, plain);
  await fault.read(filled(0), 4608, plain);
  await assertRejects(async () => await fault.read(filled(0), 3584, plain), DblockError);
  await assertRejects(async () => await fault.discard!(0, 65536, plain), DblockError);
});

Deno.test("Fault: the same seed hits the same requests, another one others", async () => {
  const hits = async (seed: number) => {
    const { fault } = open({ share: 0.5, seed });
    const hit: boolean[] = [];
    for (let i = 0; i < 64; i++) {
      await Promise.resolve().then(() => fault.read(filled(0), 0, plain)).then(
        () => hit.push(false),
        () => hit.push(true),
      );
    }
    return hit.map(Number).join("");
  };
  assertEquals(await hits(4), await hits(4));
  assert(await hits(4) !== await hits(5));
});

Deno.test("Fault: options outside of their range are a RangeError", () => {
  for (const options of [{ share: 1.1 }, { share: NaN }, { after: -1 }, { times: -1 }]) {
    assertThrows(() => open(options), RangeError);
  }
});
