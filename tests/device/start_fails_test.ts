// A disk that the block layer refuses at START is unwound: START says why, the device is gone, and all can be tried again.
// dmesg may have: cannot create duplicate|kobject_add_internal failed|Call Trace:
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { hasModule, requires, sh, waitFor } from "./harness.ts";
import { callAsync, createDevice, destroyDevice, infoOf, params } from "./server.ts";

Deno.test({
  name: "START fails with EEXIST when another driver has taken the name meanwhile",
  ignore: !requires("the brd module", hasModule("brd")),
  async fn() {
    const disk = await TestDisk.attach({ name: "ram0" });
    await sh("modprobe brd rd_nr=1 rd_size=4096");
    try {
      disk.serve();
      const { errno } = await callAsync(disk.queues[0]!.fd, abi.DBLOCK_IOC_START, abi.dblock_start);
      assertEquals(errno, ERRNO.EEXIST);
      assertEquals(infoOf("ram0"), undefined, "the name is free as soon as START has said so");
      await waitFor("the server is told to stop", () => disk.ended === ERRNO.ENODEV);
      await disk.abandon();
      await sh("dd if=/dev/ram0 of=/dev/null bs=4k count=1 iflag=direct status=none");
    } finally {
      await sh("rmmod brd");
    }
    createDevice(params("ram0"));
    assertEquals(await destroyDevice("ram0"), 0);
  },
});
