// SPDX-License-Identifier: MIT
/** The checksums of a disk's blocks, in a file beside it. Knows nothing of how they are made. */
import { DblockError } from "../disk/errors.ts";
import { ofOwnFile, openOwnFile, removeUnused } from "./own_file.ts";

/** Bytes of a checksum: SHA-256. All zeroes mean that none is known. */
export const SUM_BYTES = 32;
/** "dblockCS", and the version of what follows. */
const MAGIC = new TextEncoder().encode("dblockCS");
const VERSION = 1;
const WHAT = "the file of checksums";
const HEAD_BYTES = 4096;
const PAGE_BYTES = 4096;
const SUMS_PER_PAGE = PAGE_BYTES / SUM_BYTES;
/** 16 MiB: sums of 2 GiB in blocks of 4096. */
const PAGES_KEPT = 4096;

interface Page {
  readonly bytes: Uint8Array<ArrayBuffer>;
  isChanged: boolean;
  /** How many work with it now. */
  users: number;
}

/** Options of `SumFile.open()`. */
export interface SumFileOptions {
  readonly path: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
}

/** Checksums by block number. The file is sparse where none is known. */
export class SumFile {
  readonly #file: Deno.FsFile;
  /** Of the file, if it was not there before. */
  readonly #madePath: string | undefined;
  /** The least recently used first. */
  readonly #pages = new Map<number, Page>();
  readonly #loading = new Map<number, Promise<Page>>();
  /** One thing at a time: the file has one position. */
  #idle: Promise<unknown> = Promise.resolve();

  private constructor(file: Deno.FsFile, madePath: string | undefined) {
    this.#file = file;
    this.#madePath = madePath;
  }

  /**
   * Opens the file, or makes it without any sum.
   *
   * @throws {DblockError} EINVAL if it is another kind of file, or that of another disk.
   * @throws {DblockError} what opening, reading or writing the file fails with. A file that was made is removed then.
   */
  static async open({ path, sizeBytes, blockBytes }: SumFileOptions): Promise<SumFile> {
    const access = { read: true, write: true, mode: 0o600 };
    const { file, isMade } = openOwnFile(WHAT, path, access);
    try {
      const head = new Uint8Array(HEAD_BYTES);
      const view = new DataView(head.buffer);
      head.set(MAGIC);
      view.setUint32(8, VERSION, true);
      view.setUint32(12, blockBytes, true);
      view.setBigUint64(16, BigInt(sizeBytes), true);
      const sums = new SumFile(file, isMade ? path : undefined);
      if ((await file.stat()).size === 0) {
        await sums.#write(0, head);
        return sums;
      }
      const found = new Uint8Array(HEAD_BYTES);
      await sums.#read(0, found);
      if (found.every((byte, i) => byte === head[i])) return sums;
      const isSums = MAGIC.every((byte, i) => found[i] === byte);
      const old = new DataView(found.buffer);
      const wrong = isSums
        ? `it belongs to a disk of ${old.getBigUint64(16, true)} bytes in blocks of ${old.getUint32(12, true)}`
        : "it is another kind of file";
      throw new DblockError("EINVAL", `Cannot use ${path} for checksums`, wrong, { hint: "take another file" });
    } catch (error) {
      if (isMade) removeUnused(path, Infinity);
      file.close();
      throw ofOwnFile(WHAT, path, error);
    }
  }

  /** Does `work` with the sums of these blocks at hand: within it, `get` and `set` may be called for them. */
  async use<T>(firstBlock: number, count: number, work: () => Promise<T>): Promise<T> {
    const first = Math.floor(firstBlock / SUMS_PER_PAGE);
    const last = Math.floor((firstBlock + count - 1) / SUMS_PER_PAGE);
    const used: Page[] = [];
    try {
      for (let number = first; number <= last; number++) {
        let page = this.#pages.get(number);
        while (page === undefined) {
          await this.#load(number);
          // It is here, unless it had to make room already.
          page = this.#pages.get(number);
        }
        page.users++;
        used.push(page);
        // Used just now.
        this.#pages.delete(number);
        this.#pages.set(number, page);
      }
      return await work();
    } finally {
      for (const page of used) page.users--;
      if (this.#pages.size > PAGES_KEPT) await this.#makeRoom();
    }
  }

  /** The sum of a block: a window into memory, to be read at once. Undefined if none is known. */
  get(block: number): Uint8Array<ArrayBuffer> | undefined {
    const sum = this.#at(block);
    return sum.every((byte) => byte === 0) ? undefined : sum;
  }

  /** Changes the sum of a block; undefined: none is known. */
  set(block: number, sum: Uint8Array | undefined): void {
    const at = this.#at(block);
    if (sum === undefined) at.fill(0);
    else at.set(sum);
    this.#page(block).isChanged = true;
  }

  /** Ends when all that was set before is in the file, durably. */
  async sync(): Promise<void> {
    await this.#writeChanged([...this.#pages.keys()]);
    await this.#alone(() => this.#file.syncData());
  }

  /**
   * Closes the file. What was not synced may not be in it.
   *
   * @param options.isUnused its disk was never used, and nobody else has it: a file that `open()` has made is removed
   */
  async close({ isUnused = false }: { readonly isUnused?: boolean } = {}): Promise<void> {
    await this.#idle;
    if (isUnused && this.#madePath !== undefined) removeUnused(this.#madePath, Infinity);
    this.#file.close();
  }

  #page(block: number): Page {
    const page = this.#pages.get(Math.floor(block / SUMS_PER_PAGE));
    if (page === undefined) throw new TypeError(`block ${block} is not in use`);
    return page;
  }

  #at(block: number): Uint8Array<ArrayBuffer> {
    const at = block % SUMS_PER_PAGE * SUM_BYTES;
    return this.#page(block).bytes.subarray(at, at + SUM_BYTES);
  }

  #load(number: number): Promise<Page> {
    let loading = this.#loading.get(number);
    if (loading === undefined) {
      loading = this.#read(HEAD_BYTES + number * PAGE_BYTES, new Uint8Array(PAGE_BYTES)).then((bytes) => {
        const page = { bytes, isChanged: false, users: 0 };
        this.#pages.set(number, page);
        return page;
      }).finally(() => void this.#loading.delete(number));
      this.#loading.set(number, loading);
    }
    return loading;
  }

  async #makeRoom(): Promise<void> {
    const unused = [...this.#pages].filter(([, page]) => page.users === 0).map(([number]) => number);
    const oldest = unused.slice(0, this.#pages.size - PAGES_KEPT + PAGES_KEPT / 8);
    await this.#writeChanged(oldest);
    for (const number of oldest) {
      const page = this.#pages.get(number);
      if (page !== undefined && page.users === 0 && !page.isChanged) this.#pages.delete(number);
    }
  }

  async #writeChanged(numbers: readonly number[]): Promise<void> {
    for (const number of numbers) {
      const page = this.#pages.get(number);
      if (page === undefined || !page.isChanged) continue;
      page.isChanged = false;
      try {
        await this.#write(HEAD_BYTES + number * PAGE_BYTES, page.bytes.slice());
      } catch (error) {
        page.isChanged = true;
        throw error;
      }
    }
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#idle.then(work);
    this.#idle = done.catch(() => {});
    return done;
  }

  /** Fills a buffer; with zeroes past the file's end. */
  #read(at: number, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    return this.#alone(async () => {
      await this.#file.seek(at, Deno.SeekMode.Start);
      let done = 0;
      while (done < bytes.length) {
        const count = await this.#file.read(bytes.subarray(done));
        if (count === null) break;
        done += count;
      }
      return bytes;
    });
  }

  #write(at: number, bytes: Uint8Array): Promise<void> {
    return this.#alone(async () => {
      await this.#file.seek(at, Deno.SeekMode.Start);
      let rest = bytes;
      while (rest.length > 0) rest = rest.subarray(await this.#file.write(rest));
    });
  }
}
