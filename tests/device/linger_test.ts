// time limit: 120 s
// EXCHANGE with DBLOCK_EXCHANGE_LINGER, of a server that does not block: it sleeps for up to poll_us before it says EAGAIN, and a
// request ends that sleep; not while the server has requests in hand, and seldom where they come later than that.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { figure, sh, waitFor } from "./harness.ts";
import {
  createDevice,
  destroyDevice,
  done,
  infoOf,
  params,
  Queue,
  signalThread,
  startDevice,
  threadsInDblock,
} from "./server.ts";

const parameter = "/sys/module/dblock/parameters/poll_us";
const LONG_US = 10_000;
const SIGUSR2 = 12;
/** Fewer than a trial of polling lasts: the module does not poll by itself yet. */
const READS = 16;

/** A device that is live, whose server has nothing to do. */
async function started(name: string): Promise<Queue> {
  const queue = new Queue(createDevice(params(name)), 0);
  assertEquals(queue.attach(), 0);
  assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
  while (infoOf(name)!.state !== abi.DBLOCK_STATE_LIVE || infoOf(name)!.waiting_count > 0) {
    queue.answerAll();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return queue;
}

/** How long an EXCHANGE takes that finds nothing, in ms. */
function nothingMs(queue: Queue, linger: boolean): number {
  const began = performance.now();
  assertEquals(queue.exchange([], { linger }).header.error, ERRNO.EAGAIN);
  return performance.now() - began;
}

const read = (name: string) =>
  sh(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct status=none`, { check: false });

Deno.test("an EXCHANGE that lingers", async (t) => {
  const before = (await Deno.readTextFile(parameter)).trim();
  await Deno.writeTextFile(parameter, `${LONG_US}`);
  using queue = await started("linger0");
  try {
    await t.step("sleeps for as long as poll_us says, four times in a row, and then seldom", () => {
      const took = Array.from({ length: 4 + 32 }, () => nothingMs(queue, true));
      const slept = took.map((ms) => ms >= LONG_US / 1000);
      assertEquals(slept.slice(0, 4), [true, true, true, true]);
      // One in sixteen; a slow machine can make others look long, and none short.
      const short = slept.slice(4).filter((isLong) => !isLong).length;
      assert(short >= 20 && short < 32, `${short} of 32 did not sleep`);
      const plain = Array.from({ length: 8 }, () => nothingMs(queue, false));
      assert(Math.min(...plain) < LONG_US / 1000, "it sleeps without being asked to");
    });

    await t.step("ends with a request that comes meanwhile", async () => {
      // Whoever reads one block after the other asks again when it has its answer: in the call that has brought it, or later.
      const met = { with: 0, without: 0 };
      using queue = await started("linger1"); // nothing was missed there
      for (const linger of [false, true]) {
        const reading = sh(`dd if=/dev/linger1 of=/dev/null bs=4k count=${READS} iflag=direct status=none`);
        await waitFor("a request waits", () => infoOf("linger1")!.waiting_count === 1);
        let { requests } = queue.exchange();
        for (let answered = 1; answered < READS; answered++) {
          ({ requests } = queue.exchange(requests.map((request) => done(request)), { linger }));
          if (requests.length > 0) met[linger ? "with" : "without"]++;
          while (requests.length === 0) ({ requests } = queue.exchange());
        }
        queue.exchange(requests.map((request) => done(request)));
        await reading;
      }
      figure({ "requests met by who lingers": [met.with, ` of ${READS - 1}`], "by who does not": [met.without, ""] });
      // On a slow machine it comes later now and then.
      assert(met.with > met.without + READS / 4, `${met.with} with it, ${met.without} without, of ${READS - 1}`);
      assertEquals(await destroyDevice("linger1"), 0);
    });

    await t.step("does not sleep while the server has a request", async () => {
      using queue = await started("linger2"); // it would sleep four times
      const reading = read("linger2");
      await waitFor("a request waits", () => infoOf("linger2")!.waiting_count === 1);
      const { requests } = queue.exchange([], { linger: true });
      assertEquals(requests.length, 1);
      const took = Array.from({ length: 4 }, () => nothingMs(queue, true));
      assert(Math.min(...took) < LONG_US / 1000, `${took} ms with a request in hand`);
      queue.exchange([done(requests[0]!)]);
      assertEquals((await reading).status, 0);
      assertEquals(await destroyDevice("linger2"), 0);
    });

    await t.step("says EINTR if a signal comes", async () => {
      // It stays: Deno ends the process for a signal of which it hears when nobody listens any more.
      Deno.addSignalListener("SIGUSR2", () => {});
      let error = 0;
      // Most do not sleep, and few of those that do are found asleep in time.
      for (let round = 0; round < 5_000 && error !== ERRNO.EINTR; round++) {
        const lingering = queue.exchangeAsync([], { linger: true });
        for (const tid of threadsInDblock()) signalThread(tid, SIGUSR2);
        error = (await lingering).header.error;
      }
      assertEquals(error, ERRNO.EINTR);
    });

    await t.step("takes no count that is too large", () => {
      for (const flags of [abi.DBLOCK_EXCHANGE_LINGER, abi.DBLOCK_EXCHANGE_LINGER + 2 ** 29]) {
        assertEquals(queue.exchangeOnly(flags + infoOf("linger0")!.queue_depth + 1), -ERRNO.EINVAL);
      }
    });

    await t.step("has nothing to say once the device is gone", async () => {
      assertEquals(await destroyDevice("linger0"), 0);
      assertEquals(queue.exchange([], { linger: true }).result, -ERRNO.ENODEV);
    });
  } finally {
    await Deno.writeTextFile(parameter, before);
  }
});
