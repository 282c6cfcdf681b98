// A name in use, by a device or by anything else in /dev, is EEXIST; more devices than max_devices is ENOSPC.
import { assertEquals } from "@std/assert";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { Control, destroyDevice, params } from "./server.ts";

const limit = "/sys/module/dblock/parameters/max_devices";

Deno.test("CREATE refuses a name that is in use, whatever uses it", async () => {
  using control = new Control();
  assertEquals(control.create(params("twice")).errno, 0);
  assertEquals(control.create(params("twice")).errno, ERRNO.EEXIST);
  for (const name of ["null", "tty", "dblockctl", "shm"]) {
    assertEquals([name, control.create(params(name)).errno], [name, ERRNO.EEXIST]);
  }
  await sh("mkdir /dev/folder-ctl");
  assertEquals(control.create(params("folder")).errno, ERRNO.EEXIST);
  await sh("rmdir /dev/folder-ctl");
  assertEquals(await destroyDevice("twice"), 0);
  assertEquals(control.create(params("twice")).errno, 0);
  assertEquals(await destroyDevice("twice"), 0);
});

Deno.test("CREATE refuses the name of a live disk, and the disk goes on", async () => {
  await using disk = await TestDisk.start({ name: "live0" });
  using control = new Control();
  assertEquals(control.create(params("live0")).errno, ERRNO.EEXIST);
  await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
});

Deno.test("CREATE refuses more than max_devices", async () => {
  const before = (await Deno.readTextFile(limit)).trim();
  using control = new Control();
  await Deno.writeTextFile(limit, "2");
  try {
    assertEquals(control.create(params("limit0")).errno, 0);
    assertEquals(control.create(params("limit1")).errno, 0);
    assertEquals(control.create(params("limit2")).errno, ERRNO.ENOSPC);
    assertEquals(await destroyDevice("limit1"), 0);
    assertEquals(control.create(params("limit2")).errno, 0);
    assertEquals(await destroyDevice("limit2"), 0);
    assertEquals(await destroyDevice("limit0"), 0);
  } finally {
    await Deno.writeTextFile(limit, before);
  }
});
