// A logical volume is the store of a disk: it is served by its path, locked meanwhile, and has what was written afterwards.
// machine: debian
// time limit: 180 s
import { assertEquals, assertMatch } from "@std/assert";
import { isDebian } from "./debian.ts";
import { fio, fioErrors } from "./fio.ts";
import { sh } from "./harness.ts";
import { dblock, Serving } from "./serving.ts";

Deno.test({
  name: "a logical volume is a store, also with O_DIRECT",
  ignore: !isDebian(),
  async fn() {
    await using below = await Serving.start("serve memory:96MiB --name lvmstore".split(" "));
    await sh("vgcreate -qq vgstore /dev/lvmstore && lvcreate -qq -y -n data -L 40M vgstore", { timeoutMs: 60_000 });
    try {
      for (const spec of ["/dev/vgstore/data", "/dev/vgstore/data?direct"]) {
        await using serving = await Serving.start(["serve", spec, "--name", "onlvm"]);
        assertEquals((await sh("blockdev --getsize64 /dev/onlvm /dev/vgstore/data")).stdout, "41943040\n41943040\n");
        const load = "--direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-64k --size=4M";
        const result = await fio(`${load} --verify=crc32c --fsync=32 --name=lvm --filename=/dev/onlvm`);
        assertEquals([result.status, fioErrors(result)], [0, [0]], result.stderr);
        await sh(
          "head -c 8M /dev/urandom >/tmp/lvm.in; dd if=/tmp/lvm.in of=/dev/onlvm bs=1M seek=16 conv=fsync status=none",
        );
        const second = await dblock("serve /dev/vgstore/data --name onlvm2");
        assertEquals(second.status, 1);
        assertMatch(
          second.stderr,
          /^dblock serve: Cannot keep a disk in \/dev\/vgstore\/data: it is mounted, [^\n]*\n$/,
        );
        serving.child.kill("SIGTERM");
        assertEquals((await serving.end(60_000)).code, 0, serving.stderr);
        await sh("dd if=/dev/vgstore/data bs=1M skip=16 count=8 iflag=direct status=none | cmp - /tmp/lvm.in");
      }
    } finally {
      await sh("vgremove -qq -f -y vgstore && pvremove -qq /dev/lvmstore; rm -f /tmp/lvm.in", { check: false });
    }
    below.child.kill("SIGTERM");
    assertEquals((await below.end(60_000)).code, 0, below.stderr);
  },
});
