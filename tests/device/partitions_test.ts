// A partition table written by sfdisk appears as partitions that hold their own data, and again at the next START.
import { assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { MIB } from "./server.ts";

Deno.test("sfdisk makes partitions", async () => {
  await using disk = await TestDisk.start({ name: "parted", size_bytes: 64 * MIB });
  await sh(`printf 'label: gpt\\nsize=16M\\nsize=24M\\n' | sfdisk --quiet ${disk.path}`);
  await waitFor("both partitions appear", () => exists(`${disk.path}1`) && exists(`${disk.path}2`));
  const { stdout } = await sh(`lsblk --noheadings --bytes --output SIZE,TYPE --raw ${disk.path}`);
  assertEquals(stdout, `${64 * MIB} disk\n${16 * MIB} part\n${24 * MIB} part\n`);
  await sh(`head -c 16M /dev/urandom >/tmp/part; dd if=/tmp/part of=${disk.path}1 bs=1M oflag=direct status=none`);
  await sh(`mkfs.ext4 -q ${disk.path}2; blockdev --flushbufs ${disk.path}1; cmp /tmp/part ${disk.path}1; rm /tmp/part`);
  await sh(`fsck.ext4 -fn ${disk.path}2`);
});

Deno.test("START finds the partitions that the server's data has", async () => {
  const first = await TestDisk.start({ name: "found" });
  await sh(`printf 'size=4M\\nsize=4M\\n' | sfdisk --quiet ${first.path}`);
  await first[Symbol.asyncDispose]();
  assertEquals(exists("/dev/found1"), false);
  await using second = await TestDisk.start({ name: "found", store: first.store });
  await waitFor("both partitions appear", () => exists(`${second.path}1`) && exists(`${second.path}2`));
  assertEquals((await sh(`blockdev --getsize64 ${second.path}2`)).stdout.trim(), String(4 * MIB));
});
