// Requests to the same sectors are handed out in the order in which they came, and again in that order after the server's
// death, and when they could not be handed out at first. Hard case D7. Not covered: two CPUs that submit at once, where there is no order to keep.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh, waitFor } from "./harness.ts";
import { startDevice } from "./server.ts";
import { PROT_NONE, PROT_READ_WRITE } from "./syscall.ts";

/** More than the kernel hands out between two looks at the server's memory. */
const count = 40;
const depth = 64;

Deno.test("overlapping writes keep their order, also when they are replayed", async () => {
  const options = { name: "order0", on_death: abi.DBLOCK_ON_DEATH_HOLD, queue_depth: depth };
  const first = await TestDisk.start(options);
  // Slots that were used in another order than their numbers' must not become the order of what is replayed.
  first.rule = () => "hold";
  const early = [...Array(5).keys()].map((block) =>
    sh(`dd if=${first.path} of=/dev/null bs=4k count=1 skip=${64 + block} iflag=direct status=none`)
  );
  await first.untilHeld(5);
  for (const i of [3, 0, 4, 1, 2]) {
    first.release(first.held.toSorted((a, b) => a.slot - b.slot)[Math.min(i, first.held.length - 1)]!);
  }
  await Promise.all(early);

  const writes: Promise<unknown>[] = [];
  for (let i = 0; i < count; i++) {
    // Sector i of one 8 KiB range, and all that follow: each overlaps the one before.
    writes.push(sh(
      `head -c 4096 /dev/zero | tr '\\0' '\\${(65 + i).toString(8)}' | ` +
        `dd of=${first.path} bs=4k count=1 seek=${i * 512}B oflag=direct iflag=fullblock conv=notrunc status=none`,
    ));
    await first.untilHeld(i + 1);
  }
  const offsets = [...Array(count).keys()].map((i) => i * 512);
  assertEquals(first.held.map(({ offsetBytes }) => offsetBytes), offsets);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);

  await using second = await TestDisk.attach({ ...options, existing: true, store: first.store, rule: () => "hold" });
  // The first attempt to hand them out fails, for some of them.
  const queue = second.queues[0]!;
  queue.buffer!.protect(PROT_NONE);
  assertEquals(startDevice(queue.fd), 0);
  assertEquals(queue.exchangeOnly(), -ERRNO.EFAULT);
  queue.buffer!.protect(PROT_READ_WRITE);
  second.serve();
  await second.untilHeld(count);
  assertEquals(second.held.map(({ offsetBytes }) => offsetBytes), offsets);
  second.releaseAll();
  await Promise.all(writes);
  // Each letter is there for a sector, the last for all of its block.
  const text = new TextDecoder().decode(second.store.bytes.subarray(0, (count + 7) * 512));
  const letters = [...Array(count + 7).keys()].map((sector) => text[sector * 512]);
  const expected = [...Array(count + 7).keys()].map((i) => String.fromCharCode(65 + Math.min(i, count - 1)));
  assertEquals(letters, expected);
  await waitFor("all are done", () => second.info().handed_count === 0);
});
