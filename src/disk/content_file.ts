// SPDX-License-Identifier: MIT
/**
 * A disk whose content is a file that the kernel itself can read and write for it: dblock.ko does so, with a request's own
 * pages, when a server has named the offset. Everything else, and everybody else, asks the backend as ever.
 */
import type { Backend } from "./backend.ts";
import type { BackendModule } from "./servable.ts";

/** The file behind a backend. */
export interface ContentFile {
  /** Open with O_DIRECT, for reading and, unless the disk is read-only, for writing. */
  readonly fd: number;
  /** Of the disk, now. */
  readonly sizeBytes: number;
  /** The same disk, to be served by Workers; undefined in one. */
  readonly module: BackendModule | undefined;
}

/** Known to every copy of this module: a Worker of the executable has its backend in a bundle of its own. */
const FILE = Symbol.for("dblock.contentFile");

/**
 * Says that what a backend reads, writes and flushes is this file, from its beginning, and nothing else. In a Worker it answers
 * everything else at once.
 */
export function putContentFile(backend: Backend, file: ContentFile): void {
  Object.defineProperty(backend, FILE, { value: file });
}

/** The file behind a backend, or undefined. */
export function contentFileOf(backend: Backend): ContentFile | undefined {
  return (backend as { readonly [FILE]?: ContentFile })[FILE];
}
