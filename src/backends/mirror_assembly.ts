// SPDX-License-Identifier: MIT
/** How a mirror is put together: which disks are there, which of them have everything, and which have to be copied to. */
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe, quietly } from "../disk/errors.ts";
import { BLOCK_BYTES_MIN, whyBadSize } from "../disk/limits.ts";
import { Half, type MirrorDisk } from "./mirror_half.ts";
import { HALVES_MAX, MirrorRecord } from "./mirror_record.ts";
import { limitsOfSet, type Member, traitsOfSet, unusedOf } from "./member.ts";

const HALVES_MIN = 2;
const REGION_BYTES_MIN = 4096;
/** Why a disk of a mirror that is read-only is not used. */
export const MAY_DIFFER = "it may differ from the others, and nothing is copied to it while the mirror is read-only";

/** Options of `MirrorBackend.open()`. */
export interface MirrorBackendOptions {
  /**
   * The file of marks, made if it is not there: not on one of the disks. Without it, all of the first disk is copied to the
   * others at each start. @default no file
   */
  readonly bitmapPath?: string;
  /**
   * What one mark covers: a power of two from 4096 on. A small region is copied sooner, a large one is marked less often,
   * and each new mark costs an fdatasync of the file. @default 1 MiB, or more for disks of more than 1 TiB
   */
  readonly regionBytes?: number;
  /** A multiple of the block size. @default the size of the smallest disk */
  readonly sizeBytes?: number;
  /** There is no file of marks, and the disks are the same nevertheless: nothing is copied. @default false */
  readonly assumeSame?: boolean;
  /** A disk that has left is opened again after so many ms; 0: only by `rejoin()`. @default 5000 */
  readonly retryMs?: number;
  /**
   * A disk that has not answered so many ms after another one has is left; 0: however late, it is waited for. The last disk
   * that has everything is always waited for. @default 0
   */
  readonly lateMs?: number;
  /** Told what happens to disks, a line each. @default console.error */
  readonly log?: (message: string) => void;
}

/** The parts of a mirror. Each half has its state. */
export interface Assembly {
  readonly halves: readonly Half[];
  readonly record: MirrorRecord;
  readonly sizeBytes: number;
  /** One of the disks is, so nothing is written, nor copied. */
  readonly readOnly: boolean;
}

/** Opens the disks and the record: see `MirrorBackend.open()`. What was opened is closed if this fails. */
export async function assembleMirror(
  disks: readonly MirrorDisk[],
  options: MirrorBackendOptions,
): Promise<Assembly> {
  requireOptions(disks, options);
  const halves = disks.map((disk, index) => new Half(disk, index));
  await using undo = new AsyncDisposableStack();
  const members = new Map<Half, Member>();
  for (const half of halves) {
    try {
      const member = await half.open();
      undo.defer(async () => await member.backend.close?.("unused"));
      members.set(half, member);
    } catch (error) {
      half.error = describe(error);
    }
  }
  const attempted = `Cannot mirror ${disks.map(({ name }) => name).join(" and ")}`;
  const sizeBytes = options.sizeBytes ?? sizeOf([...members.values()]);
  for (const [half, { backend }] of members) {
    if (backend.sizeBytes >= sizeBytes) continue;
    half.error = `it has ${backend.sizeBytes} bytes, and the mirror ${sizeBytes}`;
    members.delete(half);
  }
  if (members.size === 0) throw new DblockError("EIO", attempted, reasons(halves));
  const wrong = whyBadSize(sizeBytes, limitsOfSet([...members.values()]).blockBytes);
  if (wrong !== undefined) throw new DblockError("EINVAL", attempted, wrong);
  const { bitmapPath: path, regionBytes, assumeSame = false } = options;
  const areSame = () => {
    if (members.size === halves.length) return assumeSame;
    throw new DblockError("EIO", attempted, reasons(halves), {
      hint: "a new mirror needs all of its disks: which one has the right content is not known",
    });
  };
  const record = await MirrorRecord.open(halves, { path, sizeBytes, regionBytes, areSame });
  undo.defer(() => record.bitmap.close({ isUnused: true }));
  const { readOnly } = traitsOfSet([...members.values()]);
  if (options.sizeBytes === undefined) sayUnused(members, sizeBytes, options.log ?? console.error);
  const unused = await decideStates(record, halves, members, { attempted, readOnly });
  undo.move();
  for (const member of unused) await member.backend.close?.("unused");
  return { halves, record, sizeBytes, readOnly };
}

function requireOptions(disks: readonly MirrorDisk[], { regionBytes }: MirrorBackendOptions): void {
  if (disks.length < HALVES_MIN || disks.length > HALVES_MAX) {
    throw new RangeError(`a mirror is made of ${HALVES_MIN} to ${HALVES_MAX} disks, not of ${disks.length}`);
  }
  const names = disks.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new RangeError(`two disks of the mirror are called ${twice}`);
  if (regionBytes === undefined || regionBytes >= REGION_BYTES_MIN && Number.isInteger(Math.log2(regionBytes))) return;
  throw new RangeError(`regionBytes is a power of two from ${REGION_BYTES_MIN} on, not ${regionBytes}`);
}

/** Nobody has said that a part of a disk is to be left out. */
function sayUnused(members: ReadonlyMap<Half, Member>, sizeBytes: number, log: (line: string) => void): void {
  const disks = [...members].map(([{ name }, { backend }]) => ({ name, sizeBytes: backend.sizeBytes }));
  const line = unusedOf("The mirror", disks, sizeBytes);
  if (line !== undefined) quietly(log)(line);
}

/** Of the smallest, in whole blocks of all. */
function sizeOf(members: readonly Member[]): number {
  if (members.length === 0) return 0;
  const blockBytes = Math.max(BLOCK_BYTES_MIN, ...members.map(({ limits }) => limits.blockBytes));
  const smallest = Math.min(...members.map(({ backend }) => backend.sizeBytes));
  return smallest - smallest % blockBytes;
}

/** @returns the disks that are not used: a mirror that is read-only cannot copy to them what they have missed */
async function decideStates(
  record: MirrorRecord,
  halves: readonly Half[],
  members: ReadonlyMap<Half, Member>,
  { attempted, readOnly }: { readonly attempted: string; readonly readOnly: boolean },
): Promise<readonly Member[]> {
  const isClean = record.bitmap.markedBytes === 0;
  const best = halves.find((half) => members.has(half) && !record.isOutOfDate(half));
  if (best === undefined) {
    const wrong = `no disk that has everything is there: ${reasons(halves, record)}`;
    throw new DblockError("EIO", attempted, wrong);
  }
  const unused: Member[] = [];
  for (const half of halves) {
    const member = members.get(half);
    if (member === undefined) {
      // It misses nothing where nothing is written.
      if (!readOnly) await record.setOutOfDate(half, true);
    } else if (half === best || isClean && !record.isOutOfDate(half)) half.join(member, "working");
    else if (readOnly) {
      half.error = MAY_DIFFER;
      unused.push(member);
    } else {
      // After a crash the disks may differ where marks are, and whichever is taken is right.
      half.join(member, "syncing");
    }
  }
  return unused;
}

function reasons(halves: readonly Half[], record?: MirrorRecord): string {
  return halves.flatMap((half) => {
    const outOfDate = record?.isOutOfDate(half) ? "it is not up to date" : undefined;
    const error = half.error ?? outOfDate;
    return error === undefined ? [] : `${half.name}: ${error}`;
  }).join("; ");
}

/** Why a disk that comes back cannot be used in a mirror that has promised more; or undefined. */
export function whyUnfit(
  { backend, limits }: Member,
  mirror: Pick<Backend, "sizeBytes" | "limits" | "discard" | "readOnly" | "cacheSurvives">,
): string | undefined {
  const { blockBytes = 0, maxIoBytes = 0, maxWriteZeroesBytes = 0, maxDiscardBytes = 0 } = mirror.limits ?? {};
  if (backend.sizeBytes < mirror.sizeBytes) {
    return `it has ${backend.sizeBytes} bytes, and the mirror ${mirror.sizeBytes}`;
  }
  if (limits.blockBytes > blockBytes) {
    return `its blocks are of ${limits.blockBytes} bytes, the mirror's of ${blockBytes}`;
  }
  if (limits.maxIoBytes < maxIoBytes) {
    return `it takes ${limits.maxIoBytes} bytes at once, and the mirror ${maxIoBytes}`;
  }
  if (limits.maxWriteZeroesBytes < maxWriteZeroesBytes) return "it zeroes less at once than the mirror";
  if (mirror.discard !== undefined && limits.maxDiscardBytes < maxDiscardBytes) {
    return "it discards less than the mirror";
  }
  if (backend.readOnly === true && mirror.readOnly !== true) return "it is read-only";
  const survives = backend.cacheSurvives === true || backend.flush === undefined;
  return mirror.cacheSurvives === true && !survives ? "what it has answered does not survive this program" : undefined;
}
