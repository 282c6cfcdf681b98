// dblock-ramdisk takes memory for what is written, gives it back on discard and at the end, and every thread of it is an
// I/O flusher. Hard case E2.
import { assert, assertEquals } from "@std/assert";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { ioFlushers } from "./threads.ts";

const mib = 2 ** 20;

async function lockedMib(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/^VmLck:\s+(\d+) kB$/m.exec(status)![1]) / 1024;
}

async function rssBytes(pid: number): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
}

Deno.test("a ramdisk grows with what is written, and shrinks with what is discarded", async () => {
  await using disk = await Ramdisk.start({ name: "memory", args: ["--size", "4GiB"] });
  const idle = await rssBytes(disk.pid);
  assert(idle < 400 * mib, `${idle / mib} MiB when idle`);
  await sh(`dd if=/dev/zero of=${disk.path} bs=1M count=128 oflag=direct status=none`);
  const full = await rssBytes(disk.pid);
  assert(full - idle > 125 * mib, `only ${(full - idle) / mib} MiB more`);
  await sh(`blkdiscard --force ${disk.path}`);
  const discarded = await rssBytes(disk.pid);
  assert(discarded - idle < 32 * mib, `${(discarded - idle) / mib} MiB are left`);

  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt`);
  try {
    await sh("dd if=/dev/urandom of=/mnt/file bs=1M count=64 conv=fsync status=none");
    const filled = await rssBytes(disk.pid);
    await sh("rm /mnt/file && sync -f /mnt && fstrim /mnt");
    const trimmed = await rssBytes(disk.pid);
    assert(filled - trimmed > 60 * mib, `fstrim gave back ${(filled - trimmed) / mib} MiB`);
  } finally {
    await sh("umount /mnt");
  }
  assertEquals((await runRamdisk("-d --name memory")).status, 0);
  await disk.end();
});

Deno.test("what is discarded or zeroed reads as zeroes", async () => {
  await using disk = await Ramdisk.start({ name: "zeroes", args: ["--size", "16M"] });
  for (const command of ["blkdiscard --force", "blkdiscard --force --zeroout"]) {
    await sh(`tr '\\0' x </dev/zero | dd of=${disk.path} bs=1M count=16 iflag=fullblock oflag=direct status=none`);
    // Neither end is at a page.
    await sh(`${command} --offset 512 --length ${9 * mib + 1024} ${disk.path}; blockdev --flushbufs ${disk.path}`);
    const { stdout } = await sh(`tr -d '\\0' <${disk.path} | wc -c; head -c 512 ${disk.path} | tr -d x | wc -c`);
    assertEquals(stdout.trim().split("\n").map(Number), [7 * mib - 1024, 0]);
  }
});

Deno.test("every thread of dblock-ramdisk is an I/O flusher", async () => {
  await using disk = await Ramdisk.start({ name: "flusher", args: ["--size", "16M"] });
  const threads = ioFlushers(disk.pid);
  assert(threads.length > 2);
  assert(threads.every((isFlusher) => isFlusher), threads.join());
});

Deno.test("what dblock-ramdisk has used of its own code stays in memory, and its data is not locked", async () => {
  await using disk = await Ramdisk.start({ name: "code", args: ["--size", "64M"] });
  const lockedBefore = await lockedMib(disk.pid);
  await sh(`dd if=/dev/zero of=${disk.path} bs=1M count=64 oflag=direct status=none`);
  const locked = await lockedMib(disk.pid);
  const maps = await Deno.readTextFile(`/proc/${disk.pid}/smaps`);
  const code = [...maps.matchAll(/^[0-9a-f]+-[0-9a-f]+ r-xp .* \/(?:.*\n)+?VmFlags: (.*)$/gm)].map((match) =>
    match[1]!
  );
  assert(code.length > 0 && code.every((flags) => flags.includes(" lo")), code.join("\n"));
  assert(locked > 10, `${locked} MiB are locked`);
  assert(locked - lockedBefore < 32, `${locked - lockedBefore} MiB more are locked, of 64 MiB of data`);
  await sh(`blkdiscard --force ${disk.path}`);
  assert(await rssBytes(disk.pid) < 400 * mib);
});
