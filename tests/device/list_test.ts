// dblock-ramdisk --list tells what an operator asks of every disk; --json tells all that `DeviceInfo` has.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DeviceInfo } from "../../src/mod.ts";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";

Deno.test("dblock-ramdisk --list shows every disk, its use and its counts", async () => {
  assertEquals(await runRamdisk("--list"), { status: 0, stdout: "there is no disk\n", stderr: "" });
  assertEquals((await runRamdisk("--list --json")).stdout, "[]\n");

  await using one = await Ramdisk.start({ name: "list0", args: ["--size", "64M", "--queues", "1"] });
  await using two = await Ramdisk.start({ name: "list1", args: ["--size", "16M", "--timeout", "0"] });
  await sh(`dd if=/dev/zero of=${one.path} bs=64k count=10 oflag=direct status=none`);
  const { status, stdout, stderr } = await runRamdisk("--list");
  assertEquals([status, stderr], [0, ""]);
  const lines = stdout.trimEnd().split("\n");
  assertEquals(lines.length, 8);
  assertEquals(lines[0], `/dev/list0: live, 64 MiB, 1 queue of 128, served by process ${one.pid}, open 0`);
  assertMatch(
    lines[1]!,
    /^ {2}on death remove, timeout 30 s; 0 dead, 0 replayed, 0 timed out, 0 stale, 0 refused, 0 errors$/,
  );
  assertMatch(lines[2]!, /^ {2}done: read \d+ \(.*\), write 10 \(640 KiB\), flush 0, discard 0, write zeroes 0$/);
  assertMatch(lines[3]!, /^ {2}now: 0 in flight .*; average batch \d+\.\d$/);
  assertMatch(lines[5]!, /no timeout/);

  const [first, second] = JSON.parse((await runRamdisk("--list --json")).stdout) as DeviceInfo[];
  assertEquals([first!.name, first!.state, first!.server?.pid], ["list0", "live", one.pid]);
  assertEquals(first!.requests.write.count, 10);
  assertEquals([second!.path, second!.timeoutMs], ["/dev/list1", 0]);
  for (const name of ["list0", "list1"]) assertEquals((await runRamdisk(`-d --name ${name}`)).status, 0);
  await Promise.all([one.end(), two.end()]);
});

Deno.test("dblock-ramdisk --list takes root, as everything does", async () => {
  const { status, stderr } = await runRamdisk("--list", { prefix: "setpriv --reuid=65534 --clear-groups" });
  assertEquals(status, 1);
  assert(stderr.includes("is for root only"), stderr);
});
