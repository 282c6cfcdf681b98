// SPDX-License-Identifier: MIT
/**
 * The same content on several disks. One that fails is left and named; when it is back, what it has missed is copied to it,
 * and nothing else. A file of marks says after a crash which parts may differ.
 */
import type { Backend, CallOptions, CloseReason, Extent, Figure, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError, describe, quietly } from "../disk/errors.ts";
import { FewLines } from "../disk/limiter.ts";
import { isPromise } from "../disk/later.ts";
import { RangeLock } from "../disk/range_lock.ts";
import { requestOptions } from "../disk/request.ts";
import { limitsOfSet, type Member, traitsOfSet } from "./member.ts";
import { closeHalves, inTime, readFirst, settle } from "./mirror_ask.ts";
import type { Half, MirrorDisk, Range } from "./mirror_half.ts";
import { assembleMirror, MAY_DIFFER, type MirrorBackendOptions, whyUnfit } from "./mirror_assembly.ts";
import { Halves } from "./mirror_halves.ts";
import type { MirrorRecord } from "./mirror_record.ts";
import { Retries } from "./mirror_retries.ts";
import { figuresOf, type MirrorStatus, statusOf } from "./mirror_status.ts";

const DEFAULT_RETRY_MS = 5_000;

/**
 * A mirror of two to eight disks. Reads come from the first disk that has everything; a read that fails is answered by the
 * next one, and what could not be read is written again. Writes go to all. A write is answered when every disk that is left
 * has it; it fails only if all of them fail. A disk is never left if it is the last one that has everything.
 *
 * A disk that was replaced by another one under the same name has to be copied as a whole: `rejoin(name, { whole: true })`.
 *
 * ```ts
 * import { requestOptions } from "../disk/request.ts";
 * import { MemoryBackend } from "./memory.ts";
 * import { MirrorBackend } from "./mirror.ts";
 *
 * const disk = await MirrorBackend.open([
 *   { name: "a", open: () => new MemoryBackend({ sizeBytes: 2 ** 20 }) },
 *   { name: "b", open: () => new MemoryBackend({ sizeBytes: 2 ** 20 }) },
 * ], { assumeSame: true });
 * await disk.write(new Uint8Array(4096).fill(1), 0, requestOptions());
 * console.assert(disk.status.state === "in sync" && disk.status.writtenBytes === 4096);
 * await disk.close("destroyed");
 * ```
 */
export class MirrorBackend implements Backend {
  readonly sizeBytes: number;
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly cacheSurvives: boolean;
  /** Absent if a disk has none. */
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly #halves: Halves;
  readonly #record: MirrorRecord;
  readonly #lateMs: number;
  readonly #log: (message: string) => void;
  /** A disk that cannot be repaired may fail at each read. */
  readonly #failedRepairs: FewLines;
  readonly #lock = new RangeLock();
  /** Repairs and copies that are under way. */
  readonly #work = new Set<Promise<unknown>>();
  /** Disks that have left, and are to be opened again. */
  readonly #retries: Retries;
  readonly #repairing = new Set<string>();
  /** Disks that are being opened or copied to. */
  readonly #returning = new Map<Half, Promise<void>>();
  #isClosed = false;
  readonly #counts = { writtenBytes: 0, resyncedBytes: 0, repairedBytes: 0 };

  private constructor(
    halves: readonly Half[],
    record: MirrorRecord,
    options: MirrorBackendOptions & { readonly sizeBytes: number; readonly readOnly: boolean },
  ) {
    const members = halves.flatMap(({ member }) => member ?? []);
    const limits = limitsOfSet(members);
    this.sizeBytes = options.sizeBytes;
    this.limits = limits;
    this.readOnly = options.readOnly;
    this.cacheSurvives = traitsOfSet(members).cacheSurvives;
    this.#record = record;
    this.#retries = new Retries(options.retryMs ?? DEFAULT_RETRY_MS, (half) => void this.#return(half));
    this.#lateMs = options.lateMs ?? 0;
    this.#log = quietly(options.log ?? console.error);
    this.#failedRepairs = new FewLines(this.#log);
    this.#halves = new Halves(halves, record, this.#lateMs, (half, error) => {
      this.#log(`${half.name} has left the mirror: ${describe(error)}`);
      this.#retryLater(half);
    });
    if (limits.maxDiscardBytes !== 0 && members.every(({ backend }) => backend.discard !== undefined)) {
      this.discard = (...range) => this.#discard(...range);
    }
    for (const half of halves) {
      if (half.state === "syncing") this.#inBackground(this.#sync(half));
      if (half.state !== "left") continue;
      this.#log(`${half.name} is not in the mirror: ${half.error}`);
      this.#retryLater(half);
    }
  }

  /**
   * Opens the disks, and begins to copy what differs. Without a file of marks from before, all disks have to be there, and
   * all of the first one is copied to the others (unless `assumeSame` says that it is there already).
   *
   * @param disks 2 to 8, with different names; the order counts: the first one is read, and is right after a crash
   * @throws {DblockError} EINVAL (the file of marks is another mirror's; a size), EBUSY, EIO (no disk that is up to date can
   * be opened).
   * @throws {RangeError} if there are too few disks or too many, two have one name, or an option is out of its range.
   */
  static async open(disks: readonly MirrorDisk[], options: MirrorBackendOptions = {}): Promise<MirrorBackend> {
    const { halves, record, sizeBytes, readOnly } = await assembleMirror(disks, options);
    return new MirrorBackend(halves, record, { ...options, sizeBytes, readOnly });
  }

  /** The mirror as it is now. */
  get status(): MirrorStatus {
    return statusOf(this.#halves.all, { markedBytes: this.#record.bitmap.markedBytes, ...this.#counts });
  }

  /** Its status in figures. */
  figures(): readonly Figure[] {
    return figuresOf(this.status);
  }

  /** Fills `buffer` from the first disk that can. */
  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): void | Promise<void> {
    return this.#lock.run(offsetBytes, buffer.length, "shared", () => {
      const failed: Half[] = [];
      const done = readFirst(this.#halves.in("working"), buffer, offsetBytes, options, this.#lateMs, (half) => {
        half.readErrorCount++;
        failed.push(half);
      });
      const repair = () => {
        for (const half of failed) this.#inBackground(this.#repair(half, offsetBytes, buffer.length));
      };
      return isPromise(done) ? done.then(repair) : repair();
    });
  }

  /** Puts `buffer` on every disk. */
  async write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: RequestOptions): Promise<void> {
    await this.#lock.run(offsetBytes, buffer.length, "exclusive", async () => {
      const halves = this.#halves.in("working", "syncing");
      // A disk may scribble on its buffer, and one that is too late has it still when this is answered.
      const buffers = halves.map((_, i) => i === 0 && this.#lateMs === 0 ? buffer : buffer.slice());
      const write = (member: Member, half: Half) => member.write(buffers[halves.indexOf(half)]!, offsetBytes, options);
      await this.#store(offsetBytes, buffer.length, write, halves);
      this.#counts.writtenBytes += buffer.length;
    });
  }

  /** Makes a range of every disk read as zeroes. */
  async writeZeroes(offsetBytes: number, lengthBytes: number, options: RequestOptions): Promise<void> {
    await this.#lock.run(offsetBytes, lengthBytes, "exclusive", async () => {
      await this.#store(offsetBytes, lengthBytes, (member) => member.writeZeroes(offsetBytes, lengthBytes, options));
      this.#counts.writtenBytes += lengthBytes;
    });
  }

  /** What is discarded may be anything: no mark is needed, and who cannot do it has lost nothing; who is late is left. */
  async #discard(offsetBytes: number, lengthBytes: number, options: RequestOptions): Promise<void> {
    await this.#lock.run(offsetBytes, lengthBytes, "exclusive", async () => {
      const discard = (member: Member) => member.discard(offsetBytes, lengthBytes, options);
      const results = await this.#halves.ask(this.#halves.in("working", "syncing"), discard);
      if (results.every(({ error }) => error !== undefined)) throw results[0]?.error;
    });
  }

  /** Makes every disk durable. What all of them have then is not marked any more. */
  async flush(options: CallOptions = requestOptions()): Promise<void> {
    await this.#flush(options, undefined);
  }

  /** @param keepMs marks of regions that were written so recently stay; undefined: as long as the bitmap likes to */
  async #flush(options: CallOptions, keepMs: number | undefined): Promise<void> {
    const { bitmap } = this.#record;
    const settled = this.#halves.areAllWorking ? bitmap.settled(keepMs) : undefined;
    const results = await this.#halves.ask(this.#halves.in("working", "syncing"), (member) => member.flush(options));
    await this.#halves.judge(results);
    if (settled !== undefined && results.every(({ error }) => error === undefined)) bitmap.clear(settled);
  }

  /** What the first disk that has everything says. */
  extents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): readonly Extent[] | Promise<readonly Extent[]> {
    const [half] = this.#halves.in("working");
    const { blockBytes = 512 } = this.limits;
    if (half === undefined) return [{ lengthBytes, kind: "data" }];
    return half.ask((member) => member.extents(offsetBytes, lengthBytes, blockBytes, options));
  }

  /**
   * Opens a disk that has left, and ends when everything that it has missed is copied.
   *
   * @param name of the disk
   * @param options.whole copy everything: it is another disk
   * @throws {DblockError} EIO: it cannot be opened, does not fit, or has failed again.
   * @throws {RangeError} if there is no disk of that name, or it has not left.
   */
  async rejoin(name: string, options: { readonly whole?: boolean } = {}): Promise<void> {
    const half = this.#halves.all.find((one) => one.name === name);
    if (half?.state !== "left") throw new RangeError(`there is no disk ${name} that has left the mirror`);
    if (options.whole) await this.#record.bitmap.markOld(0, this.sizeBytes);
    this.#retries.stop(half);
    await this.#return(half);
    if (!this.#halves.in("working").includes(half)) {
      throw new DblockError("EIO", `Cannot use ${name} in the mirror again`, half.error ?? "the mirror is closed");
    }
  }

  /** Ends what is under way, makes everything durable, and closes every disk. */
  async close(reason: CloseReason): Promise<void> {
    this.#isClosed = true;
    for (const half of this.#halves.all) this.#retries.stop(half);
    await Promise.allSettled(this.#work);
    this.#failedRepairs.end();
    const flushed = await settle(() => this.#flush(requestOptions(), 0));
    const closed = await closeHalves(this.#halves.all, reason, this.#lateMs);
    const ended = await settle(() => this.#record.bitmap.close({ isUnused: reason === "unused" }));
    for (const result of [flushed, ...closed, ended]) if (result.status === "rejected") throw result.reason;
  }

  /** Changes a range of all disks that are used, and whose lock is held: it is marked before, and what fails is left. */
  async #store(
    offsetBytes: number,
    lengthBytes: number,
    work: (member: Member, half: Half) => void | Promise<void>,
    halves: readonly Half[] = this.#halves.in("working", "syncing"),
  ): Promise<void> {
    const { bitmap } = this.#record;
    try {
      await bitmap.begin(offsetBytes, lengthBytes);
      // One that has left while the mark was made has missed this; the mark says so.
      const results = await this.#halves.ask(halves.filter(({ state }) => state !== "left"), work);
      await this.#halves.judge(results, { offsetBytes, lengthBytes });
    } finally {
      bitmap.end(offsetBytes, lengthBytes);
    }
  }

  #retryLater(half: Half): void {
    if (!this.#isClosed && this.#whyNotCopied(half) === undefined) this.#retries.later(half);
  }

  /** Opens a disk that has left, and copies to it what it has missed: once at a time. */
  #return(half: Half): Promise<void> {
    const before = this.#returning.get(half);
    if (before !== undefined) return before;
    const returned = this.#inBackground(
      this.#comeBack(half).finally(() => {
        this.#returning.delete(half);
        // It may have left again while it was copied to, and its time to be opened have come and gone before this.
        if (half.state === "left" && !this.#retries.isWaiting(half)) this.#retryLater(half);
      }),
    );
    this.#returning.set(half, returned);
    return returned;
  }

  /** The same. Never rejects. */
  async #comeBack(half: Half): Promise<void> {
    try {
      const member = await half.open();
      const wrong = this.#isClosed ? "the mirror is closed" : whyUnfit(member, this) ?? this.#whyNotCopied(half);
      if (wrong !== undefined) {
        await member.backend.close?.("unused");
        throw new DblockError("EINVAL", `Cannot use ${half.name}`, wrong);
      }
      half.join(member, this.readOnly ? "working" : "syncing");
      this.#log(`${half.name} is back`);
    } catch (error) {
      half.error = describe(error);
      return this.#retryLater(half);
    }
    if (half.state === "syncing") await this.#sync(half);
  }

  /** Why a disk cannot be used that has missed something, or may have; or undefined. */
  #whyNotCopied(half: Half): string | undefined {
    const hasMissed = this.#record.isOutOfDate(half) || this.#record.bitmap.markedBytes > 0;
    return this.readOnly && hasMissed ? MAY_DIFFER : undefined;
  }

  /** Copies everything that is marked to a disk, which gets new writes already. Never rejects. */
  async #sync(half: Half): Promise<void> {
    const ranges = half.beginSync(this.#record.bitmap.marked());
    // It may leave while this waits, and come back: then another call of this copies to it, and more.
    const isMine = () => half.isSyncing(ranges);
    try {
      let next = 0;
      // There may be more of them at any time.
      do {
        for (; next < ranges.length; next++) {
          for (const { offsetBytes, lengthBytes } of this.#pieces(ranges[next]!)) {
            if (this.#isClosed || !isMine()) return;
            await this.#lock.run(offsetBytes, lengthBytes, "exclusive", async () => {
              if (isMine()) await this.#copy(half, offsetBytes, lengthBytes);
            });
            if (isMine()) half.syncLeftBytes -= lengthBytes;
          }
        }
        if (!isMine()) return;
        await inTime(half.ask((member) => member.flush(requestOptions())), half, this.#lateMs);
        if (isMine()) await this.#record.setOutOfDate(half, false);
        if (!isMine()) return;
      } while (next < ranges.length);
      half.becomeWorking();
      this.#log(`${half.name} has everything`);
      await this.#flush(requestOptions(), 0);
      // What was marked since before this program is the same everywhere now, durably.
      if (this.#halves.areAllWorking) this.#record.bitmap.clearOld();
    } catch (error) {
      this.#log(`Cannot copy to ${half.name}: ${describe(error)}`);
      if (!isMine()) return;
      await this.#halves.leave(half, error).catch((error) =>
        this.#log(`Cannot write the mirror's bitmap: ${describe(error)}`)
      );
    }
  }

  /** A range in parts that can be read, written and zeroed at once. */
  *#pieces({ offsetBytes, lengthBytes }: Range): Generator<Range> {
    const { maxIoBytes = 4096, maxWriteZeroesBytes = maxIoBytes } = this.limits;
    const most = Math.min(maxIoBytes, maxWriteZeroesBytes);
    for (let done = 0; done < lengthBytes; done += most) {
      yield { offsetBytes: offsetBytes + done, lengthBytes: Math.min(most, lengthBytes - done) };
    }
  }

  async #copy(half: Half, offsetBytes: number, lengthBytes: number): Promise<void> {
    const buffer = new Uint8Array(lengthBytes);
    await readFirst(this.#halves.in("working"), buffer, offsetBytes, requestOptions(), this.#lateMs);
    const isZero = buffer.every((byte) => byte === 0);
    const copied = half.ask((member) =>
      isZero
        ? member.writeZeroes(offsetBytes, lengthBytes, requestOptions())
        : member.write(buffer, offsetBytes, requestOptions())
    );
    await inTime(copied, half, this.#lateMs);
    this.#counts.resyncedBytes += lengthBytes;
  }

  /** Writes what a disk could not read to it again, and reads that. If it cannot, the disk is left. Never rejects. */
  async #repair(half: Half, offsetBytes: number, lengthBytes: number): Promise<void> {
    const what = `${half.index}: ${offsetBytes} ${lengthBytes}`;
    if (this.#isClosed || this.readOnly || this.#repairing.has(what)) return;
    this.#repairing.add(what);
    try {
      await this.#lock.run(offsetBytes, lengthBytes, "exclusive", async () => {
        const others = this.#halves.in("working").filter((other) => other !== half);
        if (half.state !== "working" || others.length === 0) return;
        const buffer = new Uint8Array(lengthBytes);
        await readFirst(others, buffer, offsetBytes, requestOptions(), this.#lateMs);
        await this.#rewrite(half, buffer, offsetBytes);
      });
    } catch (error) {
      this.#failedRepairs.add(
        `Cannot repair ${lengthBytes} bytes at ${offsetBytes} of ${half.name}: ${describe(error)}`,
      );
    } finally {
      this.#repairing.delete(what);
    }
  }

  async #rewrite(half: Half, buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<void> {
    const { bitmap } = this.#record;
    const lengthBytes = buffer.length;
    try {
      await bitmap.begin(offsetBytes, lengthBytes);
      let rewritten: void | Promise<void>;
      try {
        rewritten = half.ask(async (member) => {
          await member.write(buffer, offsetBytes, requestOptions());
          await member.read(new Uint8Array(lengthBytes), offsetBytes, requestOptions());
        });
        await inTime(rewritten, half, this.#lateMs);
        this.#counts.repairedBytes += lengthBytes;
      } catch (error) {
        await this.#halves.leave(half, error);
        // The last one stays, even if it is late. What is written next must not be overwritten by this.
        if (half.state !== "left") await settle(() => rewritten);
      }
    } finally {
      bitmap.end(offsetBytes, lengthBytes);
    }
  }

  #inBackground(work: Promise<void>): Promise<void> {
    this.#work.add(work);
    const forget = () => void this.#work.delete(work);
    work.then(forget, forget);
    return work;
  }
}
