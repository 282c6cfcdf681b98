// The kernel's own NBD client on our server: ext4 keeps a tree of 20 MB across a remount, over two connections, and detaches cleanly.
import { assertEquals } from "@std/assert";
import { MemoryBackend, serveNbd } from "../../src/mod.ts";
import { keepsTree } from "./filesystem.ts";
import { hasModule, requires, sh, waitFor } from "./harness.ts";

Deno.test({
  name: "nbd-client: ext4 keeps a tree across a remount",
  ignore: !requires("the nbd module", hasModule("nbd")),
  async fn() {
    await sh("modprobe nbd max_part=0 nbds_max=1");
    const disk = new MemoryBackend({ sizeBytes: 2 ** 30 });
    await using server = await serveNbd({ disk }, { address: "unix:/tmp/nbd.sock" });
    await sh("nbd-client -unix /tmp/nbd.sock /dev/nbd0 -N disk -connections 2");
    try {
      assertEquals((await sh("blockdev --getsize64 /dev/nbd0")).stdout.trim(), `${2 ** 30}`);
      await waitFor("two connections", () => server.connectionCount === 2);
      await keepsTree("/dev/nbd0");
      const discarded = await sh(
        "blkdiscard /dev/nbd0 && dd if=/dev/nbd0 bs=1M count=8 status=none | tr -d '\\0' | wc -c",
      );
      assertEquals(discarded.stdout.trim(), "0");
    } finally {
      await sh("nbd-client -d /dev/nbd0");
    }
    await waitFor("no connection", () => server.connectionCount === 0);
    await sh("rmmod nbd");
  },
});
