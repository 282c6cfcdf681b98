// SPDX-License-Identifier: MIT
/** Tests of what a backend contains: that what was written is read, whatever the order and however many at once. */
import type { Operation } from "../operation.ts";
import { readsTheSame, require, type TrialTest } from "./shape_tests.ts";
import type { Range, Trial } from "./trial.ts";

const DEFAULT_ROUNDS = 200;
/** Requests at the same time. */
const BATCH = 16;

/** How many requests by chance there are between two looks at everything. */
const CHECK_EACH = 8;

/** The smallest and the largest request at both ends, and one that lies across everything that is a power of two. */
function edges(trial: Trial, mostBytes: number): Range[] {
  const { blockBytes, sizeBytes } = trial;
  const most = Math.floor(Math.min(mostBytes, sizeBytes) / blockBytes) * blockBytes;
  const middle = Math.floor(sizeBytes / 2 / blockBytes) * blockBytes;
  const ranges = [
    { offsetBytes: 0, lengthBytes: blockBytes },
    { offsetBytes: sizeBytes - blockBytes, lengthBytes: blockBytes },
    { offsetBytes: 0, lengthBytes: most },
    { offsetBytes: sizeBytes - most, lengthBytes: most },
    { offsetBytes: blockBytes, lengthBytes: most },
    { offsetBytes: middle - blockBytes, lengthBytes: 3 * blockBytes },
  ];
  return ranges.filter(({ offsetBytes, lengthBytes }) =>
    offsetBytes >= 0 && lengthBytes <= most && offsetBytes + lengthBytes <= sizeBytes
  );
}

async function readsAtTheEdges(trial: Trial): Promise<void> {
  await trial.checkAll("at first");
  for (const range of edges(trial, trial.mostOf("write"))) {
    const when = `after a write of ${range.lengthBytes} bytes at ${range.offsetBytes}`;
    if (trial.isWritable) await trial.write(range);
    await trial.check(range, when);
    await trial.checkAll(when);
  }
}

async function leavesMemoryAlone(trial: Trial): Promise<void> {
  const range = { offsetBytes: trial.blockBytes, lengthBytes: Math.min(trial.mostOf("write"), trial.sizeBytes / 2) };
  range.lengthBytes -= range.lengthBytes % trial.blockBytes;
  if (trial.isWritable) await trial.write(range);
  const reads = [1, 2, 3].map(() => trial.check(range, "after a write"));
  await Promise.all(reads);
  if (trial.isWritable && trial.backend.flush !== undefined) await trial.host.do("flush", 0, 0);
  await new Promise((resolve) => setTimeout(resolve, 5));
  trial.host.checkMemory();
  await trial.check(range, "after the buffer of the write was used for something else");
}

/** One request by chance, and what the model knows of it. */
async function step(trial: Trial, operation: Operation, range: Range): Promise<void> {
  const { host, model, random } = trial;
  const { offsetBytes, lengthBytes } = range;
  switch (operation) {
    case "read":
      return await trial.check(range, `read of ${lengthBytes} bytes at ${offsetBytes}`);
    case "write":
      return void await trial.write(range, { fua: random.chance(0.1) });
    case "flush":
      return void await host.do("flush", 0, 0);
    case "discard":
      await host.do("discard", offsetBytes, lengthBytes);
      return model.undefine(offsetBytes, lengthBytes);
    case "writeZeroes":
      await host.do("writeZeroes", offsetBytes, lengthBytes, { keepAllocated: random.chance(0.3) });
      return model.setZero(offsetBytes, lengthBytes);
  }
}

async function readsWhatWasWritten(trial: Trial): Promise<void> {
  await trial.checkAll("at first");
  const operations = trial.operations();
  for (let round = 0; round < (trial.options.rounds ?? DEFAULT_ROUNDS); round++) {
    const operation = trial.random.pick(operations);
    await step(trial, operation, trial.range(trial.mostOf(operation)));
    // Often: what is written over before it is read hides a mistake.
    if (round % CHECK_EACH === CHECK_EACH - 1) await trial.checkAll(`after ${round + 1} requests`);
  }
  await trial.checkAll("at the end");
}

/** Batches of requests that do not overlap: chosen before they begin, so that a seed repeats them. */
async function doesManyAtOnce(trial: Trial): Promise<void> {
  await trial.checkAll("at first");
  const operations = trial.operations();
  const batches = Math.ceil((trial.options.rounds ?? DEFAULT_ROUNDS) / BATCH) + 4;
  for (let batch = 0; batch < batches; batch++) {
    const begun: Promise<void>[] = [];
    const taken: Range[] = [];
    for (let i = 0; i < BATCH; i++) {
      const operation = trial.random.pick(operations);
      const range = trial.range(Math.min(2 ** 16, trial.mostOf(operation)));
      const isFree = taken.every((other) =>
        range.offsetBytes >= other.offsetBytes + other.lengthBytes ||
        other.offsetBytes >= range.offsetBytes + range.lengthBytes
      );
      if (!isFree && operation !== "flush") continue;
      taken.push(range);
      begun.push(step(trial, operation, range));
    }
    const failed = (await Promise.allSettled(begun)).find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    if (batch % 4 === 3) await trial.checkAll("after requests at the same time");
  }
}

/** What is begun after an answer comes after it; what is in flight together may come in any order, block by block. */
async function keepsTheOrder(trial: Trial): Promise<void> {
  if (!trial.isWritable) return;
  const { host, model, blockBytes } = trial;
  await trial.checkAll("at first");
  for (let round = 0; round < 12; round++) {
    const range = trial.range(Math.min(2 ** 15, trial.mostOf("write")));
    const { offsetBytes, lengthBytes } = range;
    await trial.write(range);
    await trial.write(range);
    await trial.check(range, "after two writes, one after the other");
    const datas = [1, 2, 3].map(() => trial.dataFor(range));
    await Promise.all(datas.map((data) => host.do("write", offsetBytes, data)));
    for (const [i, data] of datas.entries()) i === 0 ? model.set(offsetBytes, data) : model.add(offsetBytes, data);
    await readsTheSame(trial, offsetBytes, lengthBytes, "after three writes of the same range at the same time");
    await trial.check(range, "after three writes of the same range at the same time");
    // A part of it again: what was newer must not come back.
    const part = { offsetBytes, lengthBytes: blockBytes };
    await trial.write(part);
    await trial.check(range, "after a write of a part of it");
    if (trial.backend.flush !== undefined) await host.do("flush", 0, 0);
    await trial.check(range, "after a write and a flush");
  }
}

async function zeroes(trial: Trial): Promise<void> {
  if (!trial.isWritable || !trial.isKept) return;
  await trial.checkAll("at first");
  for (const area of trial.areas()) await fill(trial, area);
  const most = trial.mostOf("writeZeroes");
  for (const range of [...edges(trial, most), ...[1, 2, 3, 4].map(() => trial.range(most))]) {
    const { offsetBytes, lengthBytes } = range;
    const keepAllocated = trial.random.chance(0.5);
    await fill(trial, range); // what is zero already would hide a mistake
    await trial.host.do("writeZeroes", offsetBytes, lengthBytes, { keepAllocated });
    trial.model.setZero(offsetBytes, lengthBytes);
    await trial.checkAll(`after writeZeroes of ${lengthBytes} bytes at ${offsetBytes}`);
  }
}

async function fill(trial: Trial, area: Range): Promise<void> {
  const most = trial.mostOf("write");
  for (let done = 0; done < area.lengthBytes; done += most) {
    const lengthBytes = Math.min(most, area.lengthBytes - done);
    await trial.write({ offsetBytes: area.offsetBytes + done, lengthBytes });
  }
}

async function discards(trial: Trial): Promise<void> {
  const { discard } = trial.backend;
  if (!trial.isWritable || !trial.isKept || discard === undefined) return;
  for (const area of trial.areas()) await fill(trial, area);
  const most = trial.mostOf("discard");
  for (const range of [...edges(trial, most), ...[1, 2, 3, 4].map(() => trial.range(most))]) {
    const { offsetBytes, lengthBytes } = range;
    await trial.host.do("discard", offsetBytes, lengthBytes);
    trial.model.undefine(offsetBytes, lengthBytes);
    await trial.checkAll(`after a discard of ${lengthBytes} bytes at ${offsetBytes}`);
    await trial.write({ offsetBytes, lengthBytes: Math.min(lengthBytes, trial.mostOf("write")) });
    await trial.check(range, "after a write of what was discarded");
  }
}

/** A server that died may have done a request already: the next one does it again. */
async function doesItAgain(trial: Trial): Promise<void> {
  if (!trial.isWritable) return;
  const { host } = trial;
  await trial.checkAll("at first");
  const replayed = { replayed: true };
  const range = trial.range(trial.mostOf("write"));
  const data = await trial.write(range);
  await host.do("write", range.offsetBytes, data, replayed);
  await trial.check(range, "after a write was done again");
  if (trial.isKept) {
    await host.do("writeZeroes", range.offsetBytes, trial.blockBytes);
    await host.do("writeZeroes", range.offsetBytes, trial.blockBytes, replayed);
    trial.model.setZero(range.offsetBytes, trial.blockBytes);
    await trial.check(range, "after zeroes were written again");
  }
  if (trial.isKept && trial.backend.discard !== undefined) {
    await host.do("discard", range.offsetBytes, trial.blockBytes);
    await host.do("discard", range.offsetBytes, trial.blockBytes, replayed);
    trial.model.undefine(range.offsetBytes, trial.blockBytes);
    await trial.check(range, "after a discard was done again");
  }
  if (trial.backend.flush !== undefined) await host.do("flush", 0, 0, replayed);
  const { data: read } = await host.ask("read", range.offsetBytes, trial.blockBytes, replayed);
  require(read.length === trial.blockBytes, "a read that is done again failed");
}

/** Tests of what a backend contains. */
export const CONTENT_TESTS: readonly TrialTest[] = [
  { name: "reads what was written at its edges, in the smallest and the largest requests", run: readsAtTheEdges },
  { name: "leaves memory alone that is not, or not any more, its own", run: leavesMemoryAlone },
  { name: "reads what was written, zeroed and discarded by chance", run: readsWhatWasWritten },
  { name: "does many requests at the same time", run: doesManyAtOnce },
  { name: "keeps the order of writes, and one of them where they overlap", run: keepsTheOrder },
  { name: "reads as zeroes where zeroes were written, and nowhere else", run: zeroes },
  { name: "discards nothing but what it is told", run: discards },
  { name: "bears that a request is done again", run: doesItAgain },
];
