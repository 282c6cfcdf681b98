// A signal ends the wait of START, of a take-over and of DESTROY with EINTR, or with the process. The call can be made again:
// the disk is not live by that and may be destroyed, the server before goes on, and what was to go goes. Hard case A8.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { callAsync, Control, destroyDevice, infoOf, Queue, signalThread, threadsInDblock } from "./server.ts";
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

Deno.test("a signal ends a take-over that waits with EINTR; the server before goes on, and can be taken over", async () => {
  let signals = 0;
  const listener = () => void signals++;
  Deno.addSignalListener("SIGUSR1", listener);
  try {
    await using old = await TestDisk.start({ name: "signal3" });
    const read = (block: number) =>
      sh(`dd if=${old.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct status=none`);
    old.rule = () => "hold";
    const first = read(0);
    await old.untilHeld(1);
    using next = new Queue(old.info(), 0);
    const takeOver = () => next.attachAsync({ flags: abi.DBLOCK_ATTACH_TAKE_OVER });
    for (let round = 1; round <= 3; round++) {
      const taking = takeOver();
      await signalWaiter();
      assertEquals(await taking, ERRNO.EINTR);
      await waitFor("the handler runs", () => signals === round);
      const { state, attached_count, death_count } = old.info();
      assertEquals([state, attached_count, death_count], [abi.DBLOCK_STATE_LIVE, 1, 0]);
      // It is handed what is new, as before.
      const another = read(round);
      await old.untilHeld(2);
      old.release(old.held[1]!);
      await another;
    }
    old.releaseAll();
    await first;
    assertEquals(await takeOver(), 0);
    await waitFor("the old server is told", () => old.ended === ERRNO.ENOTCONN);
    assertEquals([old.info().replayed_count, old.info().error_count], [0, 0]);
  } finally {
    Deno.removeSignalListener("SIGUSR1", listener);
  }
});

/** Sends SIGUSR1 to the one thread of this process that is in the module, as soon as it is there: it may not stay long. */
function signalPasserBy(): void {
  const givenUpMs = performance.now() + 5_000;
  for (let tids: number[] = []; performance.now() < givenUpMs; tids = threadsInDblock()) {
    if (tids.length === 1) return signalThread(tids[0]!, SIGUSR1);
  }
}

Deno.test("a signal ends DESTROY with EINTR; the device goes, and DESTROY again waits for that or finds nothing", async () => {
  const listener = () => {};
  Deno.addSignalListener("SIGUSR1", listener);
  try {
    let interrupted = 0;
    // A removal that is over before the signal comes is no failure; that all of them are would be one.
    for (let round = 0; interrupted < 3 && round < 30; round++) {
      const disk = await TestDisk.start({ name: "signal4" });
      await disk.pause();
      const destroying = destroyDevice("signal4");
      signalPasserBy();
      const errno = await destroying;
      if (errno !== 0) {
        assertEquals(errno, ERRNO.EINTR);
        interrupted++;
        const state = infoOf("signal4")?.state ?? abi.DBLOCK_STATE_GONE;
        assertEquals(state >= abi.DBLOCK_STATE_REMOVING, true, `state ${state}`);
      }
      const started = performance.now();
      const again = await destroyDevice("signal4", { force: false });
      assertEquals(again === 0 || again === ERRNO.ENOENT, true, `errno ${again}`);
      assertEquals(infoOf("signal4"), undefined);
      assertWithin(5_000, performance.now() - started, "gone");
      await disk.abandon();
    }
    assertEquals(interrupted, 3);
  } finally {
    Deno.removeSignalListener("SIGUSR1", listener);
  }
});
