// dblock-ramdisk --list tells what an operator asks of every disk; --json tells all that `DeviceInfo` has. Two disks
// at once do not see each other's data.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DeviceInfo } from "../../src/mod.ts";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

Deno.test("dblock-ramdisk --list shows every disk, its use and its counts; each disk has its own data", async () => {
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
    /^ {2}on death remove, timeout 30 s; 0 dead, 0 left, 0 replayed, 0 timed out, 0 stale, 0 refused, 0 errors$/,
  );
  assertMatch(lines[2]!, /^ {2}done: read \d+ \(.*\), write 10 \(640 KiB\), flush 0, discard 0, write zeroes 0$/);
  assertMatch(lines[3]!, /^ {2}now: 0 in flight .*; average batch \d+\.\d$/);
  assertMatch(lines[5]!, /no timeout/);

  const [first, second] = JSON.parse((await runRamdisk("--list --json")).stdout) as DeviceInfo[];
  assertEquals([first!.name, first!.state, first!.server?.pid], ["list0", "live", one.pid]);
  assertEquals(first!.requests.write.count, 10);
  assertEquals([second!.path, second!.timeoutMs], ["/dev/list1", 0]);

  // Each has its own content, and one goes on when the other is destroyed.
  await sh("for i in 0 1; do head -c 8M /dev/urandom >/tmp/list$i; done");
  const write = (i: number) => sh(`dd if=/tmp/list${i} of=/dev/list${i} bs=1M oflag=direct status=none`);
  const compare = (i: number) => sh(`dd if=/dev/list${i} bs=1M count=8 iflag=direct status=none | cmp - /tmp/list${i}`);
  await Promise.all([write(0), write(1)]);
  await compare(0);
  await compare(1);
  assertEquals((await runRamdisk("-d --name list0")).status, 0);
  assertEquals([(await one.end()).code, infoOf("list0")], [0, undefined]);
  await compare(1);
  assertEquals((await runRamdisk("-d --name list1")).status, 0);
  await two.end();
  await sh("rm /tmp/list0 /tmp/list1");
});

Deno.test("dblock-ramdisk --list takes root, as everything does", async () => {
  const { status, stderr } = await runRamdisk("--list", { prefix: "setpriv --reuid=65534 --clear-groups" });
  assertEquals(status, 1);
  assert(stderr.includes("is for root only"), stderr);
});
