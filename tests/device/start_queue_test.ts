// time limit: 180 s
// A start that waits for its turn, behind as many others as run at once whose servers never answer, is destroyed at once.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { assertWithin, waitFor } from "./harness.ts";
import { Control, createDevice, destroyDevice, infoOf, params, Queue, startDevice } from "./server.ts";
import { PAGE_BYTES } from "./syscall.ts";

// WQ_DFL_ACTIVE of include/linux/workqueue.h: 256, and 1024 since Linux 6.18.
const [major] = Deno.osRelease().split(".").map(Number) as [number];
const startsAtOnce = major >= 7 ? 1024 : 256;

Deno.test("a device whose start is behind others that hang is destroyed by force, and so are they", async () => {
  const limit = "/sys/module/dblock/parameters/max_devices";
  Deno.writeTextFileSync(limit, "2048");
  const queues: Queue[] = [];
  const create = (index: number) => {
    const created = createDevice(
      params(`turn${index}`, { flags: abi.DBLOCK_DEVICE_DIRECT, queue_depth: 1, max_io_bytes: PAGE_BYTES }),
    );
    const queue = new Queue({ ...created, name: `turn${index}` }, 0);
    assertEquals(queue.attach(), 0);
    assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
    queues.push(queue);
  };
  for (let index = 0; index <= startsAtOnce; index++) create(index);
  const last = `turn${startsAtOnce}`;
  assertEquals(infoOf(last)!.state, abi.DBLOCK_STATE_STARTING);
  const started = performance.now();
  assertEquals(await destroyDevice(last, { force: true }), 0);
  assertWithin(5_000, performance.now() - started, "destroyed by force");
  // The servers go, and with them all devices that were never live.
  for (const queue of queues) queue[Symbol.dispose]();
  using control = new Control();
  await waitFor("all devices are gone", () => control.list().length === 0, 60_000);
});
