// SPDX-License-Identifier: MIT
/** A disk of any size that keeps only what was written, and says exactly what that is: what the tests compare clients with. */
import type { Backend, Extent, RequestOptions } from "../../src/mod.ts";

const CHUNK_BYTES = 65_536;

/** Chunks that were written are data, all others are holes. */
export class SparseDisk implements Backend {
  readonly sizeBytes: number;
  readonly #chunks = new Map<number, Uint8Array<ArrayBuffer>>();
  flushes = 0;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  get dataBytes(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    this.#pieces(offsetBytes, buffer.length, (index, at, length, done) => {
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) buffer.fill(0, done, done + length);
      else buffer.set(chunk.subarray(at, at + length), done);
    });
  }

  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): void {
    this.#pieces(offsetBytes, buffer.length, (index, at, length, done) => {
      this.#chunk(index).set(buffer.subarray(done, done + length), at);
    });
  }

  flush(): void {
    this.flushes++;
  }

  discard(offsetBytes: number, lengthBytes: number): void {
    this.#clear(offsetBytes, lengthBytes, false);
  }

  writeZeroes(offsetBytes: number, lengthBytes: number, { keepAllocated }: RequestOptions): void {
    this.#clear(offsetBytes, lengthBytes, keepAllocated);
  }

  extents(offsetBytes: number, lengthBytes: number): Extent[] {
    const found: Extent[] = [];
    const end = Math.min(this.sizeBytes, offsetBytes + lengthBytes);
    const starts = [...this.#chunks.keys()].map((index) => index * CHUNK_BYTES).filter((at) => at < end).sort((a, b) =>
      a - b
    );
    let at = offsetBytes;
    for (const start of starts) {
      if (start + CHUNK_BYTES <= at) continue;
      if (start > at) found.push({ lengthBytes: start - at, kind: "hole" });
      const from = Math.max(at, start);
      at = Math.min(end, start + CHUNK_BYTES);
      const last = found.at(-1);
      if (last?.kind === "data") found[found.length - 1] = { lengthBytes: last.lengthBytes + at - from, kind: "data" };
      else found.push({ lengthBytes: at - from, kind: "data" });
    }
    if (at < end) found.push({ lengthBytes: end - at, kind: "hole" });
    return found;
  }

  /** The same content as `other`, or where it differs. */
  difference(other: SparseDisk): string | undefined {
    const zero = new Uint8Array(CHUNK_BYTES);
    for (const index of new Set([...this.#chunks.keys(), ...other.#chunks.keys()])) {
      const [mine, its] = [this.#chunks.get(index) ?? zero, other.#chunks.get(index) ?? zero];
      const at = mine.findIndex((byte, i) => byte !== its[i]);
      if (at >= 0) return `at ${index * CHUNK_BYTES + at}: ${mine[at]} and ${its[at]}`;
    }
    return undefined;
  }

  /** Reads or writes a file of the same size; holes stay holes. */
  async toFile(path: string): Promise<void> {
    using file = await Deno.open(path, { write: true, create: true, truncate: true });
    await file.truncate(this.sizeBytes);
    for (const [index, chunk] of this.#chunks) {
      await file.seek(index * CHUNK_BYTES, Deno.SeekMode.Start);
      const bytes = chunk.subarray(0, Math.min(CHUNK_BYTES, this.sizeBytes - index * CHUNK_BYTES));
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    }
  }

  /** True if a file has this content. Where both have holes, nothing is read. */
  async equalsFile(path: string): Promise<boolean> {
    const mine = `${path}.expected`;
    await this.toFile(mine);
    const { success } = await new Deno.Command("qemu-img", {
      args: ["compare", "-q", "-f", "raw", "-F", "raw", mine, path],
    }).output();
    await Deno.remove(mine);
    return success;
  }

  #chunk(index: number): Uint8Array<ArrayBuffer> {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) this.#chunks.set(index, chunk = new Uint8Array(CHUNK_BYTES));
    return chunk;
  }

  #clear(offsetBytes: number, lengthBytes: number, keep: boolean): void {
    this.#pieces(offsetBytes, lengthBytes, (index, at, length) => {
      if (keep) this.#chunk(index).fill(0, at, at + length);
      else if (length === CHUNK_BYTES) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, at, at + length);
    });
  }

  #pieces(
    offsetBytes: number,
    lengthBytes: number,
    each: (index: number, at: number, length: number, done: number) => void,
  ): void {
    for (let done = 0; done < lengthBytes;) {
      const at = (offsetBytes + done) % CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - at, lengthBytes - done);
      each(Math.floor((offsetBytes + done) / CHUNK_BYTES), at, length, done);
      done += length;
    }
  }
}

/** Data at the beginning, in the middle and at the very end; the rest are holes. */
export function filledDisk(sizeBytes: number): SparseDisk {
  const disk = new SparseDisk(sizeBytes);
  const piece = Math.min(200_192, sizeBytes);
  for (const at of [0, Math.floor(sizeBytes / 1024) * 512, sizeBytes - piece]) {
    const bytes = new Uint8Array(Math.min(piece, sizeBytes - at));
    for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 31 + (i >> 9) * 7 + at / 512) % 255 + 1;
    disk.write(bytes, at);
  }
  return disk;
}
