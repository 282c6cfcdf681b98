// A server stopped by SIGSTOP: I/O waits, force destroy still takes at most 5 s, and with a timeout I/O gets EIO.
// Hard cases A10, C2, C3.
import { assert, assertEquals } from "@std/assert";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { destroyDevice, infoOf } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

async function timedMs(what: Promise<unknown>): Promise<number> {
  const started = performance.now();
  await what;
  return performance.now() - started;
}

Deno.test("force destroy with a stopped server, and everything stuck behind it, takes at most 5 s", async () => {
  await using server = await ServerProcess.start({ name: "stopped0", size_bytes: 64 * 2 ** 20 });
  await sh(`mkfs.ext4 -q ${server.path} && mount ${server.path} /mnt && cp src/*.ts /mnt && sync -f /mnt`);
  await server.kill("SIGSTOP");
  const stuck = [
    sh(`dd if=${server.path} of=/dev/null bs=4k count=1 skip=999 iflag=direct`, { check: false }),
    sh("cp /data/bin/bash /mnt; sync -f /mnt", { check: false }),
    sh(`blockdev --flushbufs ${server.path}`, { check: false }),
    sh(`echo 32 >/sys/block/${server.name}/queue/nr_requests`, { check: false }),
    sh(`echo none >/sys/block/${server.name}/queue/scheduler`, { check: false }),
  ];
  await waitFor("requests wait", () => infoOf("stopped0")!.waiting_count > 0);
  assertEquals(await destroyDevice("stopped0", { force: false }), 16);
  const tookMs = await timedMs(destroyDevice("stopped0", { force: true }));
  assertWithin(5_000, tookMs, "destroyed");
  assertEquals(infoOf("stopped0"), undefined);
  await Promise.all(stuck);
  assertWithin(5_000, await timedMs(sh("umount /mnt")), "unmounted");
  await server.kill("SIGCONT");
});

Deno.test("requests that wait for a stopped server, which never saw them, end in EIO after the timeout", async () => {
  await using server = await ServerProcess.start({ name: "stopped1", timeout_ms: 1_000 });
  await server.kill("SIGSTOP");
  const read = sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  const tookMs = await timedMs(read);
  assertEquals((await read).status, 1);
  assert(tookMs >= 1_000, `EIO came after ${tookMs} ms`);
  assertWithin(4_500, tookMs, "EIO");
  const info = infoOf("stopped1")!;
  // No server has seen it, so no answer is due.
  assertEquals([info.timeout_count, info.quarantined_count, info.waiting_count], [1, 0, 0]);
  await server.kill("SIGCONT");
  await sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
});
