// SPDX-License-Identifier: MIT
/** What `log()` says of requests, and what becomes of its file. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { log } from "../../../src/filters/log.ts";

const plain = requestOptions();
const bytes = () => new Uint8Array(512);

/** A line without its time. */
const short = (line: string) => line.replace(/us=\d+/, "us=N");

Deno.test("log() says operation, offset, length, microseconds, errno and FUA of each request", async () => {
  const lines: string[] = [];
  const disk = new PlayedDisk({ fua: true, laterSeed: 1 });
  const filter = log(disk, { sink: (line) => lines.push(line) });
  await filter.write(bytes(), 1024, requestOptions({ fua: true }));
  await filter.read(bytes(), 512, plain);
  await filter.flush!(plain);
  await filter.discard!(0, 4096, plain);
  disk.failure = { operation: "writeZeroes", errno: "short" };
  await filter.writeZeroes!(0, 4096, plain);
  disk.failure = { operation: "read", errno: "ENODATA" };
  await assertRejects(async () => await filter.read(bytes(), 0, plain));
  assertEquals(lines.map(short), [
    "write offset=1024 length=512 us=N errno=0 fua",
    "read offset=512 length=512 us=N errno=0",
    "flush offset=0 length=0 us=N errno=0",
    "discard offset=0 length=4096 us=N errno=0",
    "writeZeroes offset=0 length=4096 us=N errno=EIO", // half of it
    "read offset=0 length=512 us=N errno=ENODATA",
  ]);
});

Deno.test("log(): one line for every so many requests, and one for each that fails", async () => {
  const lines: string[] = [];
  const disk = new PlayedDisk();
  const filter = log(disk, { sink: (line) => lines.push(line), every: 10 });
  for (let i = 0; i < 30; i++) await filter.read(bytes(), i * 512, plain);
  assertEquals(lines.map((line) => /offset=(\d+)/.exec(line)?.[1]), ["0", "5120", "10240"]);
  disk.failure = { operation: "write", errno: "EIO" };
  for (let i = 0; i < 5; i++) await assertRejects(async () => await filter.write(bytes(), 0, plain));
  assertEquals(lines.length, 8);
  assertThrows(() => log(disk, { every: 0 }), RangeError, "not 0");
});

Deno.test("log(): lines are added to a file; more than it can take are dropped and counted", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, "before\n");
    const filter = log(new PlayedDisk(), { path });
    // All in one turn: the file gets none of them meanwhile.
    for (let i = 0; i < 10_007; i++) filter.read(bytes(), 0, plain);
    await filter.close?.("destroyed");
    const lines = (await Deno.readTextFile(path)).trimEnd().split("\n");
    assertEquals([lines.length, lines[0], lines.at(-1)], [
      10_002,
      "before",
      "(7 lines were dropped: the file is too slow)",
    ]);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("log(): a file that cannot be opened is an error with what to type", () => {
  const missing = assertThrows(() => log(new PlayedDisk(), { path: "/nowhere/at/all" }), DblockError);
  assertEquals(
    missing.message,
    "Cannot open the log /nowhere/at/all: its folder is not there (mkdir -p /nowhere/at)",
  );
  assertMatch(assertThrows(() => log(new PlayedDisk(), { path: "/" }), DblockError).message, /it is a folder/);
});

Deno.test("log(): a full file system does not fail the disk", async () => {
  const said: unknown[] = [];
  const error = console.error;
  console.error = (line: unknown) => said.push(line);
  try {
    const filter = log(new PlayedDisk(), { path: "/dev/full" });
    await filter.read(bytes(), 0, plain);
    await filter.close?.("destroyed");
  } finally {
    console.error = error;
  }
  assertEquals(said.length, 1);
  assert(String(said[0]).startsWith("Cannot write 1 lines to /dev/full: "), String(said[0]));
});

Deno.test("log(): a sink that throws fails no request, and a request that fails keeps its own error", async () => {
  for (const laterSeed of [undefined, 1]) {
    const disk = new PlayedDisk(laterSeed === undefined ? {} : { laterSeed });
    let calls = 0;
    const sink = () => {
      calls++;
      throw new Error("no room");
    };
    const filter = log(disk, { sink });
    await filter.write(bytes().fill(7), 512, plain);
    const data = bytes();
    await filter.read(data, 512, plain);
    assertEquals([data[0], disk.content[512]], [7, 7]);
    disk.failure = { operation: "read", errno: "ENODATA" };
    const error = await assertRejects(async () => await filter.read(bytes(), 0, plain), DblockError);
    assertEquals([error.code, calls], ["ENODATA", 3]);
  }
});
