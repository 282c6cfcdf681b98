// SPDX-License-Identifier: MIT
/** Tests of what is still there for a disk's next server. */
import type { Model } from "./model.ts";
import type { TrialTest } from "./shape_tests.ts";
import type { Trial } from "./trial.ts";

const REQUESTS = 24;

/** Whether everything that was answered survives the program, flushed or not. */
function keepsAnswered(trial: Trial): boolean {
  return trial.backend.flush === undefined || trial.backend.cacheSurvives === true;
}

async function leavesEverything(trial: Trial): Promise<void> {
  if (!trial.isWritable) return;
  await trial.checkAll("at first");
  for (let i = 0; i < REQUESTS; i++) await trial.write(trial.range(trial.mostOf("write")));
  await trial.checkAll("before it was left");
  await trial.reopen("left");
  await trial.checkAll('after close("left")');
  await trial.write(trial.range(trial.mostOf("write")));
  await trial.checkAll("after its next server has written");
}

async function keepsWhatWasFlushed(trial: Trial): Promise<void> {
  if (!trial.isWritable) return;
  await trial.checkAll("at first");
  for (let life = 0; life < 3; life++) {
    for (let i = 0; i < REQUESTS; i++) await trial.write(trial.range(trial.mostOf("write")));
    if (trial.isKept) {
      const { offsetBytes, lengthBytes } = trial.range(trial.mostOf("writeZeroes"));
      await trial.host.do("writeZeroes", offsetBytes, lengthBytes);
      trial.model.setZero(offsetBytes, lengthBytes);
    }
    const durable = trial.model.copy();
    await flushBesideWrites(trial, durable);
    await trial.checkAll("before its program died");
    for (let i = 0; i < REQUESTS / 2; i++) {
      const range = trial.range(trial.mostOf("write"));
      survive(trial, durable, range.offsetBytes, await trial.write(range));
    }
    await trial.reopen("died");
    trial.model = durable;
    await trial.checkAll("after its program died: what was flushed");
  }
}

/** Some writes are on their way while it flushes: those may or may not be there. */
async function flushBesideWrites(trial: Trial, durable: Model): Promise<void> {
  if (trial.backend.flush === undefined) return;
  const flushed = trial.host.do("flush", 0, 0);
  const [first] = trial.areas();
  if (first === undefined) return await flushed.then(() => {});
  // They do not overlap, so that it is known what they leave.
  const most = Math.min(8 * trial.blockBytes, trial.mostOf("write"), first.lengthBytes / 3);
  const blocks = Math.floor(most / trial.blockBytes);
  const written = (blocks === 0 ? [] : [0, 1, 2]).map(async (i) => {
    const lengthBytes = trial.blockBytes * (1 + trial.random.below(blocks));
    const range = { offsetBytes: first.offsetBytes + i * blocks * trial.blockBytes, lengthBytes };
    survive(trial, durable, range.offsetBytes, await trial.write(range));
  });
  await Promise.all([flushed, ...written]);
}

/** What was answered and not flushed: the model of what survives learns that both the old and the new may be there. */
function survive(trial: Trial, durable: Model, offsetBytes: number, data: Uint8Array): void {
  if (keepsAnswered(trial)) durable.set(offsetBytes, data);
  else durable.add(offsetBytes, data);
}

async function keepsForcedWrites(trial: Trial): Promise<void> {
  if (!trial.isWritable) return;
  await trial.checkAll("at first");
  const durable = trial.model.copy();
  for (let i = 0; i < REQUESTS; i++) {
    const range = trial.range(Math.min(2 ** 16, trial.mostOf("write")));
    const fua = i % 2 === 0;
    const data = await trial.write(range, { fua });
    if (fua) durable.set(range.offsetBytes, data);
    else survive(trial, durable, range.offsetBytes, data);
  }
  const zeroes = trial.range(Math.min(2 ** 16, trial.mostOf("writeZeroes")));
  if (trial.isKept) {
    await trial.host.do("writeZeroes", zeroes.offsetBytes, zeroes.lengthBytes, { fua: true });
    durable.setZero(zeroes.offsetBytes, zeroes.lengthBytes);
  }
  await trial.reopen("died");
  trial.model = durable;
  await trial.checkAll("after its program died: what was written with FUA");
}

/** Tests that open a disk again. */
export const DURABILITY_TESTS: readonly TrialTest[] = [
  { name: 'leaves everything to its next server after close("left")', run: leavesEverything },
  { name: "keeps what was flushed when its program dies", run: keepsWhatWasFlushed },
  { name: "keeps what was written with FUA when its program dies", run: keepsForcedWrites },
];
