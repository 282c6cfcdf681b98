/**
 * What counting costs a request where it is dispatched: without a meter, with one that is off, as when nobody looks, and with
 * one that is on, which counts sizes, times and places. Runs on the host, in seconds: nothing but dispatch is measured, of a
 * backend that does nothing.
 *
 *     src/build/deno.sh run -A tests/bench/meter.ts
 */
import { cpuUsage } from "node:process";
import type { Backend } from "../../src/disk/backend.ts";
import { Dispatcher, type Geometry } from "../../src/disk/dispatch.ts";
import { Meter, putMeter } from "../../src/disk/meter.ts";
import { monotonicMs } from "../../src/system/clock.ts";

const REQUESTS = 1_000_000;
/** Requests that come at once: a client that waits for each answer, and one that does not. */
const BATCHES = [1, 8] as const;
const ROUNDS = 15;
const BLOCK_BYTES = 4096;

const geometry: Geometry = {
  sizeBytes: 2 ** 30,
  blockBytes: 512,
  maxIoBytes: 2 ** 20,
  maxDiscardBytes: 2 ** 30,
  maxWriteZeroesBytes: 2 ** 30,
  readOnly: false,
  timeoutMs: 0,
};

const KINDS = ["no meter", "off", "on"] as const;

function dispatcherOf(kind: typeof KINDS[number]): Dispatcher {
  const backend: Backend = { sizeBytes: geometry.sizeBytes, read: () => {}, write: () => {} };
  if (kind !== "no meter") {
    const meter = new Meter(monotonicMs);
    meter.isOn = kind === "on";
    putMeter(backend, meter);
  }
  const memory = new Uint8Array(geometry.maxIoBytes);
  const transport = { view: (_: number, length: number) => memory.subarray(0, length), answer: () => {} };
  return new Dispatcher(backend, geometry, transport, () => {});
}

/** @returns nanoseconds of this process a request: what others do with the processor is not its cost */
function measure(dispatcher: Dispatcher, batch: number): number {
  const begun = cpuUsage();
  let offset = 0;
  for (let i = 0; i < REQUESTS; i += batch) {
    dispatcher.batchBegins();
    for (let slot = 0; slot < batch; slot++) {
      offset = (offset + 7919 * BLOCK_BYTES) % geometry.sizeBytes;
      dispatcher.dispatch((i + slot) % 2 === 0 ? "read" : "write", 0, offset, BLOCK_BYTES, slot);
    }
    dispatcher.batchEnds();
  }
  const { user, system } = cpuUsage(begun);
  return (user + system) * 1e3 / REQUESTS;
}

// All kinds in turn, so that what the machine does meets all alike; the first round warms up.
const cases = BATCHES.flatMap((batch) => KINDS.map((kind) => ({ batch, kind, dispatcher: dispatcherOf(kind) })));
const rounds = Array.from(
  { length: ROUNDS + 1 },
  () => cases.map(({ dispatcher, batch }) => measure(dispatcher, batch)),
).slice(1);
for (const [i, { batch, kind }] of cases.entries()) {
  const all = rounds.map((round) => round[i]!).sort((a, b) => a - b);
  const [least, median] = [all[0]!.toFixed(1), all[ROUNDS >> 1]!.toFixed(1)];
  console.log(`${batch} at once, ${kind.padEnd(9)} ${least} ns a request at least, ${median} in the median`);
}
