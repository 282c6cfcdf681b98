// ./dblock-ramdisk creates a 4 GiB disk, serves it, and ends with status 0 when it is destroyed by -d or by a signal.
// time limit: 180 s
import { assertEquals, assertMatch } from "@std/assert";
import { exists, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";

Deno.test("dblock-ramdisk serves /dev/dblockramdisk until -d destroys it", async () => {
  await using disk = await Ramdisk.start();
  assertMatch(disk.stdout, /^\/dev\/dblockramdisk is ready: 4 GiB, .*mkfs\.ext4 \/dev\/dblockramdisk.*\n$/);
  assertEquals((await sh(`blockdev --getsize64 ${disk.path}`)).stdout.trim(), String(4 * 2 ** 30));
  await sh(`head -c 1M /dev/urandom >/tmp/in; dd if=/tmp/in of=${disk.path} bs=64k oflag=direct status=none`);
  await sh(`dd if=${disk.path} bs=64k count=16 iflag=direct status=none | cmp - /tmp/in`);

  const destroyed = await runRamdisk("-d");
  assertEquals(destroyed, { status: 0, stdout: "/dev/dblockramdisk is destroyed\n", stderr: "" });
  assertEquals((await disk.end()).code, 0);
  assertMatch(disk.stdout, /\n.*\/dev\/dblockramdisk has ended: destroyed by another process.*\n$/);
  assertEquals(disk.stderr, "");
  assertEquals([exists("/dev/dblockramdisk"), exists("/dev/dblockramdisk-ctl")], [false, false]);
});

Deno.test("dblock-ramdisk takes name, size, queues and timeout; at SIGTERM it destroys its disk and ends with status 0", async () => {
  await using disk = await Ramdisk.start({
    name: "a.b_c-1",
    args: ["--size=3MiB", "--queues=1", "--timeout=0"],
  });
  assertMatch(disk.stdout, /^\/dev\/a\.b_c-1 is ready: 3 MiB, 1 queue\./);
  assertEquals((await sh(`blockdev --getsize64 ${disk.path}`)).stdout.trim(), String(3 * 2 ** 20));
  assertEquals((await sh("cat /sys/block/a.b_c-1/dblock/timeout_ms")).stdout.trim(), "0");
  disk.child.kill("SIGTERM");
  assertEquals((await disk.end()).code, 0);
  assertMatch(disk.stdout, /has ended: destroyed; its memory is given back\n$/);
  assertEquals(exists(disk.path), false);
});

Deno.test("dblock-ramdisk at a signal says who uses the disk, and forces at the second", async () => {
  await using disk = await Ramdisk.start({ name: "busy", args: ["--size", "64M"] });
  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt`);
  try {
    disk.child.kill("SIGINT");
    await waitFor("it says who is in the way", () => disk.stderr.includes("\n"));
    assertMatch(disk.stderr, /Cannot destroy \/dev\/busy: it is in use: mounted on \/mnt .*\n/);
    assertEquals(exists(disk.path), true);
    disk.child.kill("SIGINT");
    assertEquals((await disk.end()).code, 0);
  } finally {
    await sh("umount /mnt");
  }
});

Deno.test("on a terminal, too, dblock-ramdisk says nothing but its own words", async () => {
  // What is drawn over on a slow machine, "starting /dev/terminal (2 s)", is left out.
  const onTerminal = async (args: string) =>
    (await sh(`script -qec "./dblock-ramdisk ${args}" /dev/null`, { timeoutMs: 120_000 })).stdout
      .split("\r\x1b[K").filter((part) => !/\(\d+ s\)\r*$/.test(part)).join("");
  const serving = onTerminal("--name terminal --size 64M");
  await waitFor("/dev/terminal is there", () => exists("/dev/terminal"), 60_000);
  const { stdout: comm } = await sh("cat /proc/$(cat /sys/block/terminal/dblock/server_pid)/comm");
  assertEquals(comm, "dblock-ramdisk\n");
  assertEquals(await onTerminal("-d --name terminal"), "/dev/terminal is destroyed\r\n");
  assertMatch(await serving, /^\/dev\/terminal is ready: [^\r]+\r\n[^\r]*\/dev\/terminal has ended: [^\r]+\r\n$/);
});
