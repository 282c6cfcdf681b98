// SPDX-License-Identifier: MIT
/** A disk that can only be read, whatever is behind it. */
import type { Backend, Figure } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";

/**
 * The same disk, to be read only: for an image that must stay as it is. The backend is never asked to change anything, and
 * it is never flushed.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { readOnly } from "./read_only.ts";
 *
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(7), write: () => {} };
 * console.assert(readOnly(disk).readOnly === true);
 * ```
 */
export function readOnly(backend: Backend): Backend {
  return new ReadOnly(backend);
}

class ReadOnly implements Backend {
  readonly readOnly = true;
  declare readonly extents?: NonNullable<Backend["extents"]>;
  declare readonly handOver?: NonNullable<Backend["handOver"]>;
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
    if (backend.handOver !== undefined) this.handOver = () => backend.handOver?.();
    if (backend.extents !== undefined) {
      const { extents } = backend;
      this.extents = (...range) => extents.apply(backend, range);
    }
  }

  get sizeBytes(): number {
    return this.#backend.sizeBytes;
  }

  get limits(): NonNullable<Backend["limits"]> {
    return this.#backend.limits ?? {};
  }

  read(...range: Parameters<Backend["read"]>): ReturnType<Backend["read"]> {
    return this.#backend.read(...range);
  }

  /** Dispatch does not ask a disk that is read only to write; somebody else might. */
  write(): never {
    throw new DblockError("EROFS", "Cannot write", "the disk is read only");
  }

  figures(): readonly Figure[] {
    return this.#backend.figures?.() ?? [];
  }

  close(...reason: Parameters<NonNullable<Backend["close"]>>): void | Promise<void> {
    return this.#backend.close?.(...reason);
  }
}
