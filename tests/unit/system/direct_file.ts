// SPDX-License-Identifier: MIT
/** What tests of the kernel's asynchronous I/O need. */
import { assert } from "@std/assert";
import { writeAt } from "../../../src/system/file.ts";
import { linux, O_DIRECT, O_RDWR } from "../../../src/system/libc.ts";

export const BLOCK = 4096;

/** A file on this folder's file system, which has O_DIRECT where that of /tmp may not. */
export class DirectFile implements Disposable {
  readonly path = Deno.makeTempFileSync({ dir: ".", prefix: ".dblock-unit-" });
  readonly fd: number;

  /** Its blocks are written, unless it is to be one hole. */
  constructor(blocks: number, access = O_RDWR, isHole = false) {
    Deno.truncateSync(this.path, blocks * BLOCK);
    if (!isHole) writeAll(this.path, blocks);
    this.fd = linux.open(this.path, access | O_DIRECT);
    assert(this.fd >= 0);
  }

  [Symbol.dispose](): void {
    linux.close(this.fd);
    Deno.removeSync(this.path);
  }
}

/** Writes a file's blocks past the page cache: what is there would have to be waited for. */
function writeAll(path: string, blocks: number): void {
  const fd = linux.open(path, O_RDWR | O_DIRECT);
  const [page] = pages(1);
  for (let i = 0; i < blocks; i++) writeAt(fd, page!.fill(255), i * BLOCK);
  linux.close(fd);
}

/** Memory that starts on a page. */
export function pages(count: number): Uint8Array<ArrayBuffer>[] {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(count * BLOCK / 65536) });
  return Array.from({ length: count }, (_, i) => new Uint8Array(buffer as ArrayBuffer, i * BLOCK, BLOCK));
}
