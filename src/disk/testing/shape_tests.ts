// SPDX-License-Identifier: MIT
/** Tests of what a backend says it is, and of how it ends. */
import type { Backend, CloseReason } from "../backend.ts";
import { ERRNO, errnoName } from "../errors.ts";
import { whyBadLimits, whyBadSize } from "../limits.ts";
import type { Operation } from "../operation.ts";
import { OPERATIONS } from "../operation.ts";
import { profileOf } from "../profile.ts";
import { isEqual } from "./model.ts";
import type { Trial } from "./trial.ts";

/** A test of an opened backend. */
export interface TrialTest {
  readonly name: string;
  readonly run: (trial: Trial) => Promise<void>;
}

/** Throws with these words unless it is so. */
export function require(isSo: boolean, otherwise: string): void {
  if (!isSo) throw new Error(otherwise);
}

/** All that a backend says it is, as text to compare. */
function says(backend: Backend): string {
  const { sizeBytes, ...profile } = profileOf(backend);
  return JSON.stringify({ sizeBytes, ...profile });
}

async function limitsAreInRange(trial: Trial): Promise<void> {
  const { backend } = trial;
  const bad = whyBadLimits(trial.host.limits) ?? whyBadSize(backend.sizeBytes, trial.blockBytes);
  require(bad === undefined, `limits: ${bad}`);
  for (const name of ["readOnly", "fua", "cacheSurvives"] as const) {
    const value: unknown = backend[name];
    require(value === undefined || typeof value === "boolean", `${name} is true or false, not ${value}`);
  }
  const before = says(backend);
  require(
    says(backend) === before,
    `it says something else when it is asked again: ${says(backend)}, before: ${before}`,
  );
  await trial.checkAll("at first");
  if (trial.isWritable) await trial.write(trial.range(trial.mostOf("write")));
  require(says(backend) === before, `it says something else after some requests: ${says(backend)}, before: ${before}`);
}

async function refusesBeforeTheBackend(trial: Trial): Promise<void> {
  const { host, blockBytes, sizeBytes } = trial;
  const refused: readonly (readonly [Operation, number, number])[] = [
    ["read", sizeBytes, blockBytes],
    ["read", sizeBytes - blockBytes, 2 * blockBytes],
    ["read", blockBytes / 2, blockBytes],
    ["read", 0, blockBytes / 2],
    ["read", 0, 0],
    ["write", sizeBytes, blockBytes],
    ["write", blockBytes / 2, blockBytes],
    ["writeZeroes", sizeBytes, blockBytes],
    ["discard", sizeBytes, blockBytes],
  ];
  for (const [operation, offsetBytes, lengthBytes] of refused) {
    const { errno } = await host.ask(operation, offsetBytes, lengthBytes);
    require(errno !== 0, `${operation} of ${lengthBytes} bytes at ${offsetBytes} was not refused`);
  }
  require(host.calls === 0, `the backend was called ${host.calls} times for requests that dispatch refuses`);
}

async function staysReadOnly(trial: Trial): Promise<void> {
  const { backend, host } = trial;
  await trial.checkAll("at first");
  if (trial.isWritable) {
    require(backend.readOnly !== true, "it is read only and is not");
    return;
  }
  for (const operation of OPERATIONS.filter((operation) => operation !== "read" && operation !== "flush")) {
    const { errno } = await host.ask(operation, 0, trial.blockBytes);
    const isRefused = errno === ERRNO.EROFS || errno === ERRNO.EOPNOTSUPP;
    require(isRefused, `${operation} of a disk that is read only ended with ${errnoName(errno)} instead of EROFS`);
  }
  await trial.checkAll("after writes that were refused");
  require(backend.readOnly === true, "it was read only and is no more");
}

async function keepsErrnos(trial: Trial): Promise<void> {
  const { host, blockBytes, options } = trial;
  const untouched = { offsetBytes: trial.sizeBytes - blockBytes, lengthBytes: blockBytes };
  for (const expected of options.errors ?? []) {
    const { operation, errno, offsetBytes = 0 } = expected;
    const lengthBytes = expected.lengthBytes ?? (operation === "flush" ? 0 : blockBytes);
    const answer = await host.ask(operation, offsetBytes, lengthBytes);
    const what = `${operation} of ${lengthBytes} bytes at ${offsetBytes}`;
    require(
      errnoName(answer.errno) === errno || answer.errno === ERRNO[errno],
      `${what} has to fail with ${errno}: it ended with ${answer.errno === 0 ? "success" : errnoName(answer.errno)}`,
    );
    const isElsewhere = offsetBytes + lengthBytes <= untouched.offsetBytes;
    const reads = !(options.errors ?? []).some((error) => error.operation === "read" && (error.offsetBytes ?? 0) > 0);
    if (operation !== "read" && isElsewhere && reads) await trial.check(untouched, `after ${what} had failed`);
  }
}

/** Extents of a range: without gaps, whole blocks, and true. */
async function extentsAreTrue(trial: Trial): Promise<void> {
  const { backend, blockBytes } = trial;
  if (backend.extents === undefined) return;
  await trial.checkAll("at first");
  for (let round = 0; round < 8; round++) {
    if (trial.isWritable && trial.isKept) {
      const data = trial.range(trial.mostOf("write"));
      await trial.write(data);
      const zeroes = trial.range(trial.mostOf("writeZeroes"));
      await trial.host.do("writeZeroes", zeroes.offsetBytes, zeroes.lengthBytes);
      trial.model.setZero(zeroes.offsetBytes, zeroes.lengthBytes);
    }
    for (const { offsetBytes, lengthBytes } of [trial.range(2 ** 20), ...trial.areas()]) {
      await compareExtents(trial, offsetBytes, offsetBytes + lengthBytes, blockBytes);
    }
  }
}

async function compareExtents(trial: Trial, start: number, end: number, blockBytes: number): Promise<void> {
  let at = start;
  while (at < end) {
    const options = { replayed: false, signal: new AbortController().signal };
    const extents = await trial.backend.extents?.(at, end - at, options) ?? [];
    require(extents.length > 0, `extents() of ${end - at} bytes at ${at} returned none`);
    for (const { lengthBytes, kind } of extents) {
      const what = `the extent at ${at}`;
      require(at < end, `${what} lies behind the end of the range at ${end}`);
      require(lengthBytes > 0 && lengthBytes % blockBytes === 0, `${what} has ${lengthBytes} bytes: not whole blocks`);
      require(["data", "zero", "hole"].includes(kind), `${what} is "${kind}": not data, zero or hole`);
      require(at + lengthBytes <= trial.sizeBytes, `${what} ends at ${at + lengthBytes}, behind the disk's end`);
      if (kind !== "data") await requireZero(trial, at, Math.min(end, at + lengthBytes), `${what} is "${kind}"`);
      at += lengthBytes;
    }
  }
}

async function requireZero(trial: Trial, start: number, end: number, what: string): Promise<void> {
  const most = trial.host.limits.maxIoBytes;
  for (let at = start; at < end; at += most) {
    const data = await trial.host.do("read", at, Math.min(most, end - at));
    require(data.every((byte) => byte === 0), `${what}, but it does not read as zeroes`);
  }
}

/** A disk takes another size, and keeps what is on it. */
async function resizes(trial: Trial): Promise<void> {
  const { backend, blockBytes, host } = trial;
  if (backend.resize === undefined) return;
  const before = trial.sizeBytes;
  const larger = trial.options.resizeToBytes ?? before + 16 * blockBytes;
  await trial.checkAll("at first");
  if (trial.isWritable) await trial.write({ offsetBytes: before - blockBytes, lengthBytes: blockBytes });
  await backend.resize(larger);
  require(backend.sizeBytes === larger, `after resize(${larger}) sizeBytes is ${backend.sizeBytes}`);
  host.sizeBytes = larger;
  const added = { offsetBytes: larger - blockBytes, lengthBytes: blockBytes };
  await trial.check(added, "what was added");
  if (trial.isWritable) {
    await trial.write(added);
    await trial.write({ offsetBytes: before, lengthBytes: blockBytes });
  }
  await trial.check({ offsetBytes: before - blockBytes, lengthBytes: 2 * blockBytes }, "after it has grown");
  await trial.check(added, "after it has grown");
  host.sizeBytes = before;
  await backend.resize(before);
  require(backend.sizeBytes === before, `after resize(${before}) sizeBytes is ${backend.sizeBytes}`);
  await trial.checkAll("after it has grown and shrunk");
}

/** Each reason to close, with a backend that was used and with one that was not. */
export async function closes(
  make: () => Backend | Promise<Backend>,
  use: (backend: Backend) => Promise<void>,
): Promise<void> {
  const reasons: readonly CloseReason[] = ["unused", "left", "replaced", "destroyed"];
  for (const reason of reasons) {
    const backend = await make();
    if (reason !== "unused") await use(backend);
    try {
      await backend.close?.(reason);
    } catch (error) {
      throw new Error(`close("${reason}") failed: ${error}`, { cause: error });
    }
  }
}

/** Whether two reads of the same range are the same. */
export async function readsTheSame(
  trial: Trial,
  offsetBytes: number,
  lengthBytes: number,
  when: string,
): Promise<void> {
  const first = await trial.host.do("read", offsetBytes, lengthBytes);
  for (let again = 0; again < 8; again++) {
    const next = await trial.host.do("read", offsetBytes, lengthBytes);
    require(isEqual(first, next), `${when}: two reads of ${lengthBytes} bytes at ${offsetBytes} differ`);
  }
}

/** Tests of what a backend says it is. */
export const SHAPE_TESTS: readonly TrialTest[] = [
  { name: "says what it is, within the ranges, and says the same again", run: limitsAreInRange },
  { name: "is not asked what dispatch refuses: past its end, or not whole blocks", run: refusesBeforeTheBackend },
  { name: "changes nothing and stays as it is if it is read only", run: staysReadOnly },
  { name: "keeps the errno of what fails, and only that fails", run: keepsErrnos },
  { name: "tells its extents without gaps, in whole blocks, and truly", run: extentsAreTrue },
  { name: "takes another size and keeps its content", run: resizes },
];
