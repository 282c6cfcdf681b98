// Two disks at once do not see each other's data, and one goes on when the other is destroyed.
import { assertEquals } from "@std/assert";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

Deno.test("two ramdisks hold their own data", async () => {
  const args = ["--size", "16M"];
  const disks = await Promise.all(["one", "two"].map((name) => Ramdisk.start({ name, args })));
  await using one = disks[0]!;
  await using two = disks[1]!;
  for (const disk of disks) {
    await sh(`head -c 16M /dev/urandom >/tmp/${disk.name}`);
  }
  await Promise.all(
    disks.map((disk) => sh(`dd if=/tmp/${disk.name} of=${disk.path} bs=1M oflag=direct status=none`)),
  );
  for (const disk of disks) await sh(`blockdev --flushbufs ${disk.path}; cmp ${disk.path} /tmp/${disk.name}`);

  assertEquals((await runRamdisk("-d --name one")).status, 0);
  assertEquals((await one.end()).code, 0);
  assertEquals(infoOf("one"), undefined);
  await sh(`blockdev --flushbufs ${two.path}; cmp ${two.path} /tmp/two`);
  assertEquals((await runRamdisk("-d --name two")).status, 0);
  await sh("rm /tmp/one /tmp/two");
});
