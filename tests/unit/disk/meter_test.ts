// SPDX-License-Identifier: MIT
/** What a meter counts of what a dispatcher is asked: nothing while it is off, all of it while it is on. */
import { assert, assertEquals } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { Dispatcher, type Geometry, LATER } from "../../../src/disk/dispatch.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { endOfTimeCell, MAP_CELLS, Meter, type MeterReport, putMeter, TIME_CELLS } from "../../../src/disk/meter.ts";
import { REQUEST_FUA } from "../../../src/disk/operation.ts";

const KIB = 1024;
const geometry: Geometry = {
  sizeBytes: 1024 * KIB,
  blockBytes: 512,
  maxIoBytes: 512 * KIB,
  maxDiscardBytes: 1024 * KIB,
  maxWriteZeroesBytes: 1024 * KIB,
  readOnly: false,
  timeoutMs: 0,
};

/** A dispatcher with a meter whose clock stands until it is set. */
function metered(backend: Partial<Backend>) {
  const memory = new Uint8Array(geometry.maxIoBytes);
  const clock = { ms: 1000 };
  const meter = new Meter(() => clock.ms);
  const whole: Backend = { sizeBytes: geometry.sizeBytes, read: () => {}, write: () => {}, ...backend };
  putMeter(whole, meter);
  const answers: number[] = [];
  const transport = {
    view: (_: number, length: number) => memory.subarray(0, length),
    answer: (slot: number) => void answers.push(slot),
  };
  return { clock, meter, answers, dispatcher: new Dispatcher(whole, geometry, transport, () => {}) };
}

/** Rows as text: what, how many, how many bytes, how many succeeded. */
const rowsOf = ({ rows }: MeterReport) =>
  rows.map(({ operation, sizeClass, count, bytes, succeeded }) =>
    `${operation} ${sizeClass} ${count} ${bytes} ${succeeded}`
  );
const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);

Deno.test("a meter that is off counts nothing; one that is on counts requests, bytes, sizes, errors", () => {
  const write = (_: Uint8Array, offset: number) => {
    if (offset === 4096) throw new DblockError("ENOSPC", "Cannot write");
  };
  const { meter, dispatcher } = metered({ write });
  dispatcher.dispatch("read", 0, 0, 4096, 0);
  assertEquals(meter.report().rows, []);
  meter.isOn = true;
  for (const length of [512, 4 * KIB, 8 * KIB, 64 * KIB, 128 * KIB]) dispatcher.dispatch("read", 0, 0, length, 0);
  assertEquals(dispatcher.dispatch("write", 0, 4096, 4096, 0), ERRNO.ENOSPC);
  assertEquals(dispatcher.dispatch("write", 0, 8192, 4096, 0), 0);
  assertEquals(dispatcher.dispatch("read", 0, 0, 100, 0), ERRNO.EINVAL);
  const report = meter.report();
  assertEquals(rowsOf(report), [
    `read 0 3 ${512 + 4096} 2`,
    `read 1 2 ${72 * KIB} 2`,
    `read 2 1 ${128 * KIB} 1`,
    "write 0 2 4096 1",
  ]);
  assertEquals(report.errors, [
    { operation: "write", errno: "ENOSPC", count: 1 },
    { operation: "read", errno: "EINVAL", count: 1 },
  ]);
  assertEquals([sum(report.batches), report.batched], [8, 8]);
});

Deno.test("requests of a batch took as long as the batch; those that are answered later have their own time", async () => {
  const later = Promise.withResolvers<void>();
  const { clock, meter, answers, dispatcher } = metered({ read: () => {}, write: () => later.promise });
  meter.isOn = true;
  dispatcher.batchBegins();
  for (let slot = 0; slot < 3; slot++) dispatcher.dispatch("read", 0, slot * 4096, 4096, slot);
  assertEquals(dispatcher.dispatch("write", 0, 0, 4096, 3), LATER);
  clock.ms += 2;
  dispatcher.batchEnds();
  assertEquals(meter.report().inFlight, 1);
  clock.ms += 8;
  later.resolve();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const report = meter.report();
  assertEquals(answers, [3]);
  assertEquals(report.inFlight, 0);
  assertEquals(rowsOf(report), ["read 0 3 12288 3", "write 0 1 4096 1"]);
  const [read, write] = report.rows;
  assertEquals([read!.seconds, write!.seconds], [0.006, 0.01]);
  assertEquals(read!.times.map(([, count]) => count), [3]);
  const [cell] = write!.times[0]!;
  assert(endOfTimeCell(cell) > 0.01 && endOfTimeCell(cell - 1) <= 0.01);
  assertEquals([report.batches.slice(0, 4), report.batched], [[0, 0, 1, 0], 4]);
});

Deno.test("a batch of several operations and sizes counts each of them, and the next batch none of them again", () => {
  const { clock, meter, dispatcher } = metered({ discard: () => {}, writeZeroes: () => {} });
  meter.isOn = true;
  for (let batch = 1; batch <= 2; batch++) {
    dispatcher.batchBegins();
    for (let slot = 0; slot < 2; slot++) dispatcher.dispatch("read", 0, 0, 4096, slot);
    dispatcher.dispatch("write", 0, 0, 64 * KIB, 2);
    dispatcher.dispatch("writeZeroes", 0, 0, 1024 * KIB, 3);
    clock.ms += batch;
    dispatcher.batchEnds();
  }
  const report = meter.report();
  assertEquals(rowsOf(report), ["read 0 4 16384 4", "write 1 2 131072 2", "writeZeroes 2 2 2097152 2"]);
  assertEquals(report.rows.map(({ seconds }) => seconds), [0.006, 0.003, 0.003]);
});

Deno.test("a write with FUA is one write, and a writeZeroes that is written is no write", async () => {
  const { meter, dispatcher } = metered({ write: () => Promise.resolve(), flush: () => Promise.resolve() });
  meter.isOn = true;
  dispatcher.dispatch("write", REQUEST_FUA, 0, 4096, 0);
  dispatcher.dispatch("writeZeroes", 0, 0, 4096, 1);
  dispatcher.dispatch("flush", 0, 0, 0, 2);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(rowsOf(meter.report()), ["write 0 1 4096 1", "flush 0 1 0 1", "writeZeroes 0 1 4096 1"]);
});

Deno.test("the map has each byte where it was read or written, also of requests longer than a piece", () => {
  const { meter, dispatcher } = metered({ discard: () => {} });
  meter.isOn = true;
  const piece = geometry.sizeBytes / MAP_CELLS;
  dispatcher.dispatch("read", 0, 0, 512, 0);
  dispatcher.dispatch("read", 0, geometry.sizeBytes - 4096, 4096, 0);
  dispatcher.dispatch("write", 0, 2 * piece, 3 * piece, 0);
  dispatcher.dispatch("discard", 0, 0, geometry.sizeBytes, 0);
  const { readMap, writeMap } = meter.report();
  assertEquals(readMap.flatMap((bytes, i) => bytes > 0 ? [[i, bytes]] : []), [[0, 512], [MAP_CELLS - 1, 4096]]);
  assertEquals(writeMap.slice(0, 6), [piece, piece, 2 * piece, 2 * piece, 2 * piece, piece]);
});

Deno.test("cells of time are in order, without gaps, and none is wider than a quarter of its time", () => {
  const ends = Array.from({ length: TIME_CELLS }, (_, cell) => endOfTimeCell(cell));
  for (let cell = 1; cell < TIME_CELLS; cell++) assert(ends[cell]! > ends[cell - 1]!, `cell ${cell}`);
  const meter = new Meter();
  const times = [0, 1e-5, 1.25e-4, 0.001, 0.0137, 1, 999, 1e5, 4e5].map((ms) => {
    const before = new Set(meter.report().rows.flatMap(({ times }) => times.map(([cell]) => cell)));
    meter.addTime(0, ms, 1);
    const cells = meter.report().rows[0]!.times.map(([cell]) => cell).filter((cell) => !before.has(cell));
    return [ms / 1000, cells[0]] as const;
  });
  for (const [seconds, cell] of times) {
    if (cell === undefined) continue; // one before has it as well
    assert(seconds < ends[cell]! && (cell === 0 || seconds >= ends[cell - 1]!), `${seconds} s in cell ${cell}`);
    if (seconds > 1e-5) assert(ends[cell]! - ends[cell - 1]! <= seconds / 4, `cell ${cell} is wide`);
  }
  meter.addTime(0, 1e9, 1); // longer than what cells reach
  assertEquals(meter.report().rows[0]!.times.at(-1), [TIME_CELLS - 1, 1]);
});

Deno.test("countFor() counts for so long, the longest that was asked for; after Infinity it goes on", async () => {
  const meter = new Meter();
  meter.countFor(30);
  meter.countFor(150);
  meter.countFor(5);
  assert(meter.isOn);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert(meter.isOn, "the longest counts");
  while (meter.isOn) await new Promise((resolve) => setTimeout(resolve, 10));
  meter.countFor(10);
  meter.countFor(Infinity);
  meter.countFor(10);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert(meter.isOn, "somebody wants it for good");
});
