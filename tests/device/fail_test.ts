// Policy fail: after the server's death the device stays and answers EIO at once, until a new server comes.
// Hard cases A1, A6 (who comes second is refused).
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, sh, waitFor } from "./harness.ts";
import { Queue, startDevice } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const read = (path: string, block = 0) =>
  sh(`dd if=${path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, { check: false });

Deno.test("with every slot in the server's hands its death is EIO for all, at once", async () => {
  const options = { name: "fail0", on_death: abi.DBLOCK_ON_DEATH_FAIL, queue_depth: 4, timeout_ms: 0 };
  await using server = await ServerProcess.start(options);
  await server.holdAll();
  // More than there are slots: some are handed out, some wait.
  const reads = Array.from({ length: 8 }, (_, block) => read(server.path, block));
  await waitFor("four are held", async () => (await server.tell()).held === 4);
  const started = performance.now();
  await server.kill();
  assertEquals((await Promise.all(reads)).map(({ status }) => status), Array(8).fill(1));
  assertWithin(5_000, performance.now() - started, "EIO");

  assertEquals(exists(server.path), true);
  assertEquals((await sh("cat /sys/block/fail0/dblock/state")).stdout, "failed\n");
  assertEquals((await read(server.path, 9)).status, 1);
  await using next = await TestDisk.start({ ...options, existing: true });
  assertEquals((await sh("cat /sys/block/fail0/dblock/state")).stdout, "live\n");
  assertEquals((await read(next.path, 9)).status, 0);
  assertEquals(next.info().quarantined_count, 0);
  await next.assertIdle();
});

Deno.test("of two servers that come to a failed device one gets each queue", async () => {
  const first = await TestDisk.start({ name: "fail1", on_death: abi.DBLOCK_ON_DEATH_FAIL });
  const created = first.info();
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_FAILED);
  using loser = new Queue(created, 0);
  assertEquals(startDevice(loser.fd), ERRNO.ENOTCONN);
  await using winner = await TestDisk.start({ name: "fail1", existing: true });
  assertEquals([loser.attach(), startDevice(loser.fd)], [ERRNO.EBUSY, ERRNO.EALREADY]);
  assertEquals((await read(winner.path)).status, 0);
});
