// SPDX-License-Identifier: MIT
/** One backend for several who each close theirs: the backend is closed with the last of them. */
import type { Backend, CloseReason } from "../disk/backend.ts";
import { isMapped, type MappedBackend } from "../disk/servable.ts";
import { Filter } from "../filters/filter.ts";

/**
 * As many backends as asked for, all of them the same disk. One is the backend itself.
 *
 * @param count at least 1
 */
export function shareBackend(backend: Backend, count: number): Backend[] {
  if (count === 1) return [backend];
  let open = count;
  const close = async (reason: CloseReason) => {
    if (--open === 0) await backend.close?.(reason);
  };
  return Array.from({ length: count }, () => {
    const part = new Share(backend, close);
    if (!isMapped(backend)) return part;
    const mapped: MappedBackend = Object.assign(part, { mapping: backend.mapping });
    return mapped;
  });
}

class Share extends Filter {
  readonly #close: (reason: CloseReason) => Promise<void>;

  constructor(backend: Backend, close: (reason: CloseReason) => Promise<void>) {
    super(backend);
    this.#close = close;
  }

  protected override onClose(reason: CloseReason): Promise<void> {
    return this.#close(reason);
  }
}
