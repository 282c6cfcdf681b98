// SPDX-License-Identifier: MIT
/** A mirror of disks that a test can break, and what the tests of a mirror share. */
import { MirrorBackend } from "../../../src/backends/mirror.ts";
import type { MirrorBackendOptions } from "../../../src/backends/mirror_assembly.ts";
import type { HalfState } from "../../../src/backends/mirror_half.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { type Asked, BreakableDisk } from "./mirror_disk.ts";
import { folder } from "./stores.ts";
import { until } from "../until.ts";

export const KIB = 2 ** 10;
export const MIB = 2 ** 20;
/** Of each disk, unless the test makes disks of its own. */
export const sizeBytes = MIB;
export const regionBytes = 64 * KIB;
export const plain = requestOptions();

type Options = MirrorBackendOptions & { readonly disks?: BreakableDisk[] };

/** A mirror of two disks, in sync, with a file of marks; closed at the end of the test. */
export async function mirrored(options: Options = {}): Promise<MirrorUnderTest> {
  const test = new MirrorUnderTest(options);
  await test.open();
  return test;
}

/** What `mirrored()` makes. */
export class MirrorUnderTest implements AsyncDisposable {
  readonly disks: readonly BreakableDisk[];
  /** What the mirror has said. */
  readonly log: string[] = [];
  readonly bitmapPath: string;
  readonly #dir = folder();
  readonly #options: MirrorBackendOptions;
  #path: string;
  #mirror: MirrorBackend | undefined;

  constructor({ disks = [new BreakableDisk("a", sizeBytes), new BreakableDisk("b", sizeBytes)], ...options }: Options) {
    this.disks = disks;
    this.bitmapPath = this.#path = `${this.#dir.path}/bitmap`;
    const log = (line: string) => void this.log.push(line);
    this.#options = { regionBytes, assumeSame: true, retryMs: 0, log, ...options };
  }

  get a(): BreakableDisk {
    return this.disks[0]!;
  }

  get b(): BreakableDisk {
    return this.disks[1]!;
  }

  get mirror(): MirrorBackend {
    if (this.#mirror === undefined) throw new Error("nobody serves the mirror");
    return this.#mirror;
  }

  /** Opens the mirror, with the file that it had last. */
  async open(changes: MirrorBackendOptions = {}): Promise<void> {
    this.#mirror = await MirrorBackend.open(this.disks, { ...this.#options, bitmapPath: this.#path, ...changes });
  }

  /** Closes the mirror, and opens it again. */
  async reopen(changes: MirrorBackendOptions = {}): Promise<void> {
    await this.#mirror?.close("left");
    for (const disk of this.disks) disk.asked = [];
    await this.open(changes);
  }

  /** As if the program had been killed: the next one has the disks and the file as they are now. */
  async afterDeath(): Promise<void> {
    const copy = `${this.bitmapPath}-${crypto.randomUUID()}`;
    // The program that is dead in this play still has the file itself, and its lock.
    Deno.copyFileSync(this.#path, copy);
    this.#path = copy;
    this.#mirror = undefined;
    for (const disk of this.disks) disk.die();
    await this.open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mirror?.close("destroyed").catch(() => {});
    this.#dir[Symbol.dispose]();
  }
}

/** A block, or more, of one value. */
export function filled(value: number, length = 4096): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

export async function read(disk: MirrorBackend, at: number, length = 4096): Promise<Uint8Array> {
  const buffer = filled(0xee, length);
  await disk.read(buffer, at, plain);
  return buffer;
}

/** Lets everything go on that waits for nothing but its turn. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

export const states = (mirror: MirrorBackend): HalfState[] => mirror.status.halves.map(({ state }) => state);

export const writesOf = (disk: BreakableDisk): Asked[] =>
  disk.asked.filter(({ operation }) => operation === "write" || operation === "writeZeroes");

export const untilInSync = (mirror: MirrorBackend): Promise<void> =>
  until(() => mirror.status.state === "in sync", "the mirror is in sync");
