// Without force a mounted disk is not destroyed: the answer says so, and the file system goes on.
import { assertEquals, assertMatch } from "@std/assert";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { Control, infoOf } from "./server.ts";

Deno.test("destroy refuses a mounted disk without force, and takes it with force", async () => {
  await using disk = await Ramdisk.start({ name: "mounted", args: ["--size", "64M"] });
  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt && echo before >/mnt/file`);
  try {
    using control = new Control();
    const { errno, out } = await control.destroy("mounted");
    assertEquals([errno, out.open_count], [ERRNO.EBUSY, infoOf("mounted")!.open_count]);
    assertEquals(out.open_count > 0, true);

    const refused = await runRamdisk("-d --name mounted");
    assertEquals([refused.status, refused.stdout], [1, ""]);
    assertMatch(
      refused.stderr,
      /^dblock-ramdisk: Cannot destroy \/dev\/mounted: it is in use: mounted on \/mnt .*-d --force --name mounted.*\)\n$/,
    );
    await sh("echo after >>/mnt/file && sync -f /mnt && grep -q before /mnt/file");
  } finally {
    await sh("umount /mnt");
  }
  await sh(`fsck.ext4 -fn ${disk.path} && mount ${disk.path} /mnt`);
  const forced = await runRamdisk("-d --force --name mounted");
  await sh("umount /mnt");
  assertEquals(forced, { status: 0, stdout: "/dev/mounted is destroyed\n", stderr: "" });
  assertEquals((await disk.end()).code, 0);
});

Deno.test("destroy without force refuses a disk that is only open, until it is closed", async () => {
  await using disk = await TestDisk.start({ name: "opened" });
  const file = await Deno.open(disk.path);
  using control = new Control();
  assertEquals((await control.destroy("opened")).errno, ERRNO.EBUSY);
  assertEquals(infoOf("opened")!.open_count, 1);
  file.close();
  assertEquals((await control.destroy("opened")).errno, 0);
  assertEquals((await control.destroy("opened")).errno, ERRNO.ENOENT);
});
