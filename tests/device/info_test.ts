// INFO, LIST and sysfs tell the same, sysfs in the files that are documented, and count what happened: operations, bytes,
// errors, batches, who serves, who has it open.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { sh, waitFor } from "./harness.ts";
import { call, Control, type Info, KIB, MIB } from "./server.ts";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES } = {
  READ: abi.DBLOCK_OPERATION_READ,
  WRITE: abi.DBLOCK_OPERATION_WRITE,
  FLUSH: abi.DBLOCK_OPERATION_FLUSH,
  DISCARD: abi.DBLOCK_OPERATION_DISCARD,
  WRITE_ZEROES: abi.DBLOCK_OPERATION_WRITE_ZEROES,
};
const states = ["created", "starting", "live", "held", "failed", "removing", "gone"];
const policies = ["remove", "fail", "hold"];
const operations = ["read", "write", "flush", "discard", "write_zeroes"];

/** Every file of /sys/block/NAME/dblock as INFO would have it. */
function expectedSysfs(info: Info): Record<string, string> {
  const numbers = Object.entries(info).filter(([, value]) => typeof value === "number").map(([key, value]) =>
    [key, String(value)] as const
  );
  return {
    ...Object.fromEntries(numbers),
    state: states[info.state]!,
    on_death: policies[info.on_death]!,
    ...Object.fromEntries(operations.map((name, i) => [`${name}_requests`, String(info.requests[i])])),
    ...Object.fromEntries(operations.map((name, i) => [`${name}_bytes`, String(info.bytes[i])])),
  };
}

/** The files that kmod/README.md lists, with what is in braces written out. */
async function documentedFiles(): Promise<string[]> {
  const section = /^## \/sys\/block\/NAME\/dblock\/$([^]*?)^## /m.exec(await Deno.readTextFile("kmod/README.md"))?.[1];
  assert(section !== undefined, "kmod/README.md has no such section");
  const words = [...section.matchAll(/`([a-z0-9_{},]+)`/g)].map((match) => match[1]!);
  return (await sh(`printf '%s\\n' ${words.join(" ")}`)).stdout.trim().split("\n").sort();
}

Deno.test("INFO counts requests, bytes, errors and batches", async () => {
  await using disk = await TestDisk.start({
    name: "info0",
    flags: abi.DBLOCK_DEVICE_WRITE_CACHE | abi.DBLOCK_DEVICE_DISCARD | abi.DBLOCK_DEVICE_WRITE_ZEROES,
    discard_granularity_bytes: 4096,
    max_discard_bytes: MIB,
    max_write_zeroes_bytes: MIB,
    on_death: abi.DBLOCK_ON_DEATH_FAIL,
    timeout_ms: 20_000,
  });
  const before = disk.info();
  await sh(`dd if=/dev/zero of=${disk.path} bs=64k count=4 oflag=direct status=none`);
  await sh(`dd if=${disk.path} of=/dev/null bs=32k count=3 iflag=direct status=none`);
  await sh(
    `blkdiscard --force --length 256k ${disk.path}; blkdiscard --force --zeroout --length 128k ${disk.path}; sync ${disk.path}`,
  );
  disk.rule = () => ({ error: 5 });
  await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  disk.rule = () => "serve";
  const info = disk.info();
  const grown = (key: "requests" | "bytes", operation: number) => info[key][operation]! - before[key][operation]!;
  assertEquals([grown("requests", WRITE), grown("bytes", WRITE)], [4, 256 * KIB]);
  assertEquals([grown("requests", READ), grown("bytes", READ)], [3, 96 * KIB]);
  assertEquals([grown("requests", DISCARD), grown("bytes", DISCARD)], [1, 256 * KIB]);
  assertEquals([grown("requests", WRITE_ZEROES), grown("bytes", WRITE_ZEROES)], [1, 128 * KIB]);
  assertEquals([grown("requests", FLUSH) > 0, grown("bytes", FLUSH)], [true, 0]);
  assertEquals(info.error_count - before.error_count, 1);
  assertEquals(info.handed_total, disk.seen.length);
  assert(info.batch_count > before.batch_count && info.batch_count <= info.handed_total);
  assertEquals([info.state, info.server_pid, info.attached_count], [abi.DBLOCK_STATE_LIVE, Deno.pid, 1]);
  assertEquals([info.on_death, info.timeout_ms, info.queue_depth], [1, 20_000, 16]);
  const [major, minor] = (await sh(`stat --format '%t %T' ${disk.path}`)).stdout.split(" ").map((hex) =>
    parseInt(hex, 16)
  );
  assertEquals([info.disk_major, info.disk_minor], [major!, minor!]);
});

Deno.test("INFO on the control node, on the server node, LIST and sysfs agree", async () => {
  await using disk = await TestDisk.start({ name: "info1" });
  await sh(`dd if=/dev/zero of=${disk.path} bs=64k count=4 oflag=direct status=none`);
  await disk.assertIdle();
  using control = new Control();
  const info = disk.info();
  assertEquals(control.list(), [info]);
  assertEquals(call(disk.queues[0]!.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info).out, info);
  const expected = expectedSysfs(info);
  const { stdout } = await sh(`cd /sys/block/${disk.name}/dblock && grep -H . *`);
  const files = stdout.trim().split("\n").map((line) => line.split(":") as [string, string]);
  // A line a queue, which INFO does not have: too little came for its server to try to poll.
  expected.queue_waits = "0 sleeps 0 0";
  for (const [file, value] of files) assertEquals([file, value], [file, expected[file]]);
  assertEquals(files.map(([file]) => file).sort(), await documentedFiles());
});

Deno.test("INFO says what is in flight, and how many have the disk open", async () => {
  await using disk = await TestDisk.start({ name: "info2", queue_depth: 2 });
  disk.rule = () => "hold";
  const reads = [0, 1, 2].map((block) =>
    sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct status=none`)
  );
  await waitFor("three have it open", () => disk.info().open_count === 3);
  await disk.untilHeld(2);
  const { handed_count, waiting_count } = disk.info();
  // The third has no tag, or no slot, depending on who comes first.
  assertEquals([handed_count, waiting_count <= 1], [2, true]);
  disk.rule = () => "serve";
  disk.releaseAll();
  await Promise.all(reads);
  await waitFor("nobody has it open", () => disk.info().open_count === 0);
  await disk.assertIdle();
});
