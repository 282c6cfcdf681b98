// With a write cache, fsync() is a FLUSH after the writes it covers, FUA is a flag or a FLUSH, and their errors reach the
// caller, on the bare disk and through ext4; without one, no FLUSH is sent. Hard case D1.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { MIB, type Request } from "./server.ts";

const { DBLOCK_OPERATION_FLUSH: FLUSH, DBLOCK_OPERATION_WRITE: WRITE, DBLOCK_REQUEST_FUA: FUA } = abi;
const { DBLOCK_DEVICE_FUA, DBLOCK_DEVICE_WRITE_CACHE: CACHE } = abi;
const synced = (path: string, how: string) =>
  sh(`dd if=/dev/zero of=${path} bs=4k count=8 ${how} status=none`, { check: false });

Deno.test("fsync() sends a FLUSH after the last write", async () => {
  await using disk = await TestDisk.start({ name: "flush0", flags: CACHE });
  disk.seen.length = 0;
  assertEquals((await synced(disk.path, "conv=fsync")).status, 0);
  const operations = disk.seen.map((request) => request.operation);
  assert(operations.includes(WRITE));
  assertEquals(operations.lastIndexOf(WRITE) < operations.lastIndexOf(FLUSH), true, String(operations));
  const flush = disk.seen.findLast((request) => request.operation === FLUSH)!;
  assertEquals([flush.offsetBytes, flush.lengthBytes, flush.flags], [0, 0, 0]);
});

Deno.test("fsync() sends its FLUSH only after the writes it covers are answered", async () => {
  await using disk = await TestDisk.start({ name: "flush1", flags: CACHE });
  disk.seen.length = 0;
  disk.rule = (request) => request.operation === WRITE ? "hold" : "serve";
  const syncing = synced(disk.path, "conv=fsync");
  await disk.untilHeld(1);
  await sh("sleep 0.5");
  const isSent = () => disk.seen.some((request) => request.operation === FLUSH);
  assertEquals(isSent(), false);
  disk.rule = () => "serve";
  disk.releaseAll();
  assertEquals([(await syncing).status, isSent()], [0, true]);
});

/** What eight O_DSYNC writes become. */
async function dsyncWrites(name: string, flags: number): Promise<{ fua: number; writes: number; flushes: number }> {
  await using disk = await TestDisk.start({ name, flags });
  disk.seen.length = 0;
  assertEquals((await synced(disk.path, "oflag=direct,dsync")).status, 0);
  const writes = disk.seen.filter((request) => request.operation === WRITE);
  return {
    fua: writes.filter((request) => (request.flags & FUA) !== 0).length,
    writes: writes.length,
    flushes: disk.seen.filter((request) => request.operation === FLUSH).length,
  };
}

Deno.test("an O_DSYNC write is FUA where the device has it, else a write and a FLUSH", async () => {
  const withFua = await dsyncWrites("flush2", CACHE | DBLOCK_DEVICE_FUA);
  assertEquals([withFua.writes, withFua.fua], [8, 8]);
  const without = await dsyncWrites("flush3", CACHE);
  assertEquals([without.writes, without.fua], [8, 0]);
  // Linux sends one FLUSH more for each in either case, and the block layer one in place of FUA.
  assertEquals(without.flushes - withFua.flushes, 8);
});

Deno.test("without a write cache no FLUSH is sent, and fsync() succeeds", async () => {
  await using disk = await TestDisk.start({ name: "flush4" });
  assertEquals((await synced(disk.path, "conv=fsync")).status, 0);
  assertEquals((await synced(disk.path, "oflag=direct,dsync")).status, 0);
  assertEquals(disk.seen.some((request) => request.operation === FLUSH || request.flags & FUA), false);
});

Deno.test("a failed FLUSH fails fsync()", async () => {
  const rule = (request: { operation: number }) =>
    request.operation === FLUSH ? { error: ERRNO.EIO } : "serve" as const;
  await using disk = await TestDisk.start({ name: "flush5", flags: CACHE, rule });
  const { status, stderr } = await synced(disk.path, "conv=fsync");
  assertEquals([status, /fsync failed.*Input\/output error/.test(stderr)], [1, true], stderr);
});

Deno.test("an O_DSYNC write whose FUA fails is the caller's error, and so is a FLUSH in place of FUA", async () => {
  const failing = [
    { name: "flush6", flags: CACHE | DBLOCK_DEVICE_FUA, fails: (request: Request) => (request.flags & FUA) !== 0 },
    { name: "flush7", flags: CACHE, fails: (request: Request) => request.operation === FLUSH },
  ];
  for (const { name, flags, fails } of failing) {
    await using disk = await TestDisk.start({ name, flags });
    assertEquals((await synced(disk.path, "oflag=direct,dsync")).status, 0);
    disk.rule = (request) => fails(request) ? { error: ERRNO.EIO } : "serve";
    const { status, stderr } = await synced(disk.path, "oflag=direct,dsync");
    assertEquals([name, status, /error writing.*Input\/output error/.test(stderr)], [name, 1, true], stderr);
    // The same write without O_DSYNC asks for no durability, so nothing fails.
    assertEquals((await synced(disk.path, "oflag=direct")).status, 0);
  }
});

Deno.test("a WRITE that fails after write() has returned fails the fsync() after it, once", async () => {
  await using disk = await TestDisk.start({ name: "flush8", flags: CACHE });
  disk.rule = (request) => request.operation === WRITE ? { error: ERRNO.EIO } : "serve";
  const { status, stderr } = await synced(disk.path, "conv=fsync");
  assertEquals([status, /fsync failed.*Input\/output error/.test(stderr)], [1, true], stderr);
  assertEquals(/error writing/.test(stderr), false, stderr);
  disk.rule = () => "serve";
  assertEquals((await synced(disk.path, "conv=fsync")).status, 0);
});

for (const journal of ["has_journal", "^has_journal"]) {
  Deno.test(`a failed FLUSH fails fsync() of a file on ext4 with ${journal}`, async () => {
    await using disk = await TestDisk.start({ name: "flush9", flags: CACHE, size_bytes: 32 * MIB });
    await sh(`mkfs.ext4 -q -O ${journal} ${disk.path} && mount ${disk.path} /mnt`);
    try {
      assertEquals((await synced("/mnt/good", "conv=fsync")).status, 0);
      disk.rule = (request) => request.operation === FLUSH ? { error: ERRNO.EIO } : "serve";
      const { status, stderr } = await synced("/mnt/bad", "conv=fsync");
      assertEquals([status, /fsync failed.*Input\/output error/.test(stderr)], [1, true], stderr);
    } finally {
      disk.rule = () => "serve";
      await sh("umount /mnt");
    }
  });
}
