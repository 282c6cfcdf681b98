/** A disk with so much to answer that one call for all of it takes a second; for big_batch_test.ts. */
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { sh, waitFor } from "./harness.ts";
import { createDevice, done, KIB, MIB, params, Queue, type Request, startDevice } from "./server.ts";
import { Memory } from "./syscall.ts";

/** Each reads so much, in one request or in several. */
export const [readers, readMib] = [48, 16];

/** What is ready to be answered. */
export interface Load {
  readonly queue: Queue;
  readonly requests: readonly Request[];
  readonly reading: Promise<unknown>;
}

/** A disk of many large requests that are all with the server. */
export async function loadedQueue(name: string, ioMib: number): Promise<Load> {
  const created = createDevice(params(name, {
    size_bytes: readers * readMib * MIB,
    max_io_bytes: ioMib * MIB,
    queue_depth: 1024,
    flags: abi.DBLOCK_DEVICE_DIRECT,
    on_death: abi.DBLOCK_ON_DEATH_HOLD,
  }));
  const queue = new Queue(created, 0);
  assertEquals(queue.attach(), 0);
  assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
  const page = new Memory(128 * KIB);
  let { header, requests } = queue.exchange();
  while (header.state === abi.DBLOCK_STATE_STARTING) {
    const answers = requests.map((request) => ({ ...done(request), address: page.address }));
    ({ header, requests } = queue.exchange(answers));
    if (requests.length === 0) await queue.poll(20);
  }
  Deno.writeTextFileSync(`/sys/block/${name}/queue/max_sectors_kb`, String(ioMib * KIB));
  const one = (i: number) =>
    `dd if=/dev/${name} of=/dev/null bs=${readMib}M count=1 skip=${i} iflag=direct status=none &`;
  const reading = sh(`${Array.from({ length: readers }, (_, i) => one(i)).join(" ")} wait`, { check: false });
  const arrived: Request[] = [];
  await waitFor("all reads are with the server", () => {
    arrived.push(...queue.exchange().requests);
    return arrived.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) === readers * readMib * MIB;
  }, 60_000);
  return { queue, requests: arrived, reading };
}

/** Answers everything in one call. Returns the errno, how many were refused, and how long it took. */
export function commitAll(
  { queue, requests }: Load,
  ioMib: number,
): { errno: number; refused: number; tookMs: number } {
  using source = new Memory(ioMib * MIB);
  source.bytes.fill(7);
  const answers = requests.map((request) => ({ ...done(request), address: source.address }));
  const started = performance.now();
  const { errno, refusedCount: refused } = queue.commit(answers);
  return { errno, refused, tookMs: performance.now() - started };
}
