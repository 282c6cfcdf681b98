// A signal ends the wait of START and of a destroy with EINTR, or with the process; the disk is not live by that, and can be
// started again or destroyed. Hard case A8.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/abi.ts";
import { ERRNO } from "../../src/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { callAsync, Control, destroyDevice, infoOf, signalThread, threadsInDblock } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const SIGUSR1 = 10;

/** Sends SIGUSR1 to the one thread of this process that waits in the module. */
async function signalWaiter(): Promise<void> {
  await waitFor("a thread waits in the module", () => threadsInDblock().length === 1);
  signalThread(threadsInDblock()[0]!, SIGUSR1);
}

Deno.test("a signal ends START with EINTR; START again waits for the same start", async () => {
  let signals = 0;
  const listener = () => void signals++;
  Deno.addSignalListener("SIGUSR1", listener);
  try {
    await using disk = await TestDisk.attach({ name: "signal0" });
    const start = () => callAsync(disk.queues[0]!.fd, abi.DBLOCK_IOC_START, abi.dblock_start);
    for (let round = 1; round <= 3; round++) {
      const starting = start();
      await signalWaiter();
      assertEquals((await starting).errno, ERRNO.EINTR);
      await waitFor("the handler runs", () => signals === round);
      assertEquals(disk.info().state, abi.DBLOCK_STATE_STARTING);
    }
    const starting = start();
    disk.serve();
    assertEquals([(await starting).errno, disk.info().state], [0, abi.DBLOCK_STATE_LIVE]);
    await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  } finally {
    Deno.removeSignalListener("SIGUSR1", listener);
  }
});

Deno.test("a disk whose START was interrupted is destroyed as any other", async () => {
  const listener = () => {};
  Deno.addSignalListener("SIGUSR1", listener);
  try {
    const disk = await TestDisk.attach({ name: "signal1" });
    const starting = callAsync(disk.queues[0]!.fd, abi.DBLOCK_IOC_START, abi.dblock_start);
    await signalWaiter();
    assertEquals((await starting).errno, ERRNO.EINTR);
    const started = performance.now();
    using control = new Control();
    // Nobody has it open but the partition scan, which waits for an answer that will not come.
    assertEquals((await control.destroy("signal1", { force: true })).errno, 0);
    assertWithin(5_000, performance.now() - started, "destroyed");
    await disk.abandon();
    assertEquals(await destroyDevice("signal1"), ERRNO.ENOENT);
  } finally {
    Deno.removeSignalListener("SIGUSR1", listener);
  }
});

Deno.test("SIGKILL of a server in START takes process and device away", async () => {
  await using server = await ServerProcess.start({ name: "signal2", attachOnly: true });
  await server.tell({ start: true });
  await waitFor("it starts", () => infoOf("signal2")?.state === abi.DBLOCK_STATE_STARTING);
  const started = performance.now();
  await server.kill();
  await waitFor("the device is gone", () => infoOf("signal2") === undefined, 5_000);
  assertWithin(5_000, performance.now() - started, "gone");
});
