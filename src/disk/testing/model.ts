// SPDX-License-Identifier: MIT
/** What a disk must contain: the naive disk that a backend is compared with, block by block. */

/** What one block may contain. */
interface Block {
  /** Undefined: anything, and something else the next time. */
  readonly contents: readonly Uint8Array[] | undefined;
}

/** A disk by its blocks. A block that nothing was said of may be anything, but stays what it is when it is first read. */
export class Model {
  readonly #blockBytes: number;
  readonly #blocks = new Map<number, Block>();

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes;
  }

  /** The same, to be changed by itself. */
  copy(): Model {
    const copy = new Model(this.#blockBytes);
    for (const [number, block] of this.#blocks) copy.#blocks.set(number, block);
    return copy;
  }

  /** The range contains this. */
  set(offsetBytes: number, data: Uint8Array): void {
    this.#each(offsetBytes, data.length, (number, from, to) => {
      this.#blocks.set(number, { contents: [data.slice(from, to)] });
    });
  }

  /** The range contains zeroes. */
  setZero(offsetBytes: number, lengthBytes: number): void {
    this.set(offsetBytes, new Uint8Array(lengthBytes));
  }

  /** Each block of the range contains this, or what it could contain before. */
  add(offsetBytes: number, data: Uint8Array): void {
    this.#each(offsetBytes, data.length, (number, from, to) => {
      const { contents } = this.#blocks.get(number) ?? {};
      if (contents === undefined) return;
      this.#blocks.set(number, { contents: [...contents, data.slice(from, to)] });
    });
  }

  /** The content of the range is undefined, until it is set. */
  undefine(offsetBytes: number, lengthBytes: number): void {
    this.#each(offsetBytes, lengthBytes, (number) => void this.#blocks.set(number, { contents: undefined }));
  }

  /** Throws if a range that was read, `data`, is something that it cannot be. From then on each block is what was read. */
  check(offsetBytes: number, data: Uint8Array, when: string): void {
    this.#each(offsetBytes, data.length, (number, from, to) => {
      const found = data.subarray(from, to);
      const block = this.#blocks.get(number);
      if (block === undefined) return void this.#blocks.set(number, { contents: [found.slice()] });
      const { contents } = block;
      if (contents === undefined) return;
      const is = contents.find((content) => isEqual(content, found));
      if (is === undefined) throw new Error(`${when}: ${difference(number * this.#blockBytes, found, contents)}`);
      if (contents.length > 1) this.#blocks.set(number, { contents: [is] });
    });
  }

  #each(offsetBytes: number, lengthBytes: number, visit: (number: number, from: number, to: number) => void): void {
    const first = offsetBytes / this.#blockBytes;
    for (let i = 0; i < lengthBytes / this.#blockBytes; i++) {
      visit(first + i, i * this.#blockBytes, (i + 1) * this.#blockBytes);
    }
  }
}

/** True if both are the same bytes. */
export function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && indexOfDifference(a, b) === -1;
}

function indexOfDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

function difference(offsetBytes: number, found: Uint8Array, contents: readonly Uint8Array[]): string {
  const [expected = new Uint8Array()] = contents;
  const at = indexOfDifference(expected, found);
  const bytes = found.filter((byte, i) => byte !== expected[i]).length;
  const one =
    `the block at ${offsetBytes} is not what it has to be: ${bytes} of its ${found.length} bytes are wrong, ` +
    `the first at ${offsetBytes + at}: 0x${hex(found[at])} instead of 0x${hex(expected[at])}`;
  return contents.length === 1 ? one : `${one}; nor is it one of the ${contents.length - 1} others that it may be`;
}

function hex(byte: number | undefined): string {
  return (byte ?? 0).toString(16).padStart(2, "0");
}
