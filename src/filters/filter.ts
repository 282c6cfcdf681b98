// SPDX-License-Identifier: MIT
/** A backend in front of a backend that passes everything on: what every filter is made of. */
import type {
  Backend,
  CallOptions,
  CloseReason,
  Completed,
  Extent,
  Figure,
  Limits,
  RequestOptions,
} from "../disk/backend.ts";
import { ERRNO, errnoName, errnoOf } from "../disk/errors.ts";
import type { Operation } from "../disk/operation.ts";

/** A request on its way through a filter. */
export interface FilteredRequest {
  /** What is asked. */
  readonly operation: Operation;
  /** 0 for a flush. */
  readonly offsetBytes: number;
  /** 0 for a flush. */
  readonly lengthBytes: number;
  /** A flush has a signal and `replayed` only. */
  readonly options: CallOptions & Partial<RequestOptions>;
  /** The data of a read or a write. */
  readonly buffer?: Uint8Array<ArrayBuffer>;
}

/** What a filter offers otherwise than its backend does. */
export interface Offers {
  /** It has something to flush, whatever its backend has. @default what the backend has */
  readonly flush?: true;
  /** It cannot follow when the size changes. @default what the backend has */
  readonly resize?: false;
}

/**
 * Passes everything on to its backend: what it is (size, limits, `readOnly`, `fua`, `cacheSurvives`) and what it is asked.
 * It has the callbacks that its backend has, and no others. A filter extends it and overrides what it does differently:
 * `ask` for every request, or one of the `on…` callbacks.
 *
 * ```ts
 * import type { Backend, Completed } from "../disk/backend.ts";
 * import { Filter, type FilteredRequest } from "./filter.ts";
 *
 * class Count extends Filter {
 *   requests = 0;
 *   protected override ask(_: FilteredRequest, next: () => Completed | Promise<Completed>): Completed | Promise<Completed> {
 *     this.requests++;
 *     return next();
 *   }
 * }
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * console.assert(new Count(disk).flush === undefined);
 * ```
 */
export class Filter implements Backend {
  declare readonly flush?: NonNullable<Backend["flush"]>;
  declare readonly discard?: NonNullable<Backend["discard"]>;
  declare readonly writeZeroes?: NonNullable<Backend["writeZeroes"]>;
  declare readonly resize?: NonNullable<Backend["resize"]>;
  declare readonly extents?: NonNullable<Backend["extents"]>;
  declare readonly handOver?: NonNullable<Backend["handOver"]>;
  /** What the filter is in front of. */
  protected readonly backend: Backend;

  /** Passes everything on to `backend`, but for what `offers` says. */
  constructor(backend: Backend, offers: Offers = {}) {
    this.backend = backend;
    if (backend.flush !== undefined || offers.flush) this.flush = (options) => this.onFlush(options);
    if (backend.discard !== undefined) this.discard = (...range) => this.onDiscard(...range);
    if (backend.writeZeroes !== undefined) this.writeZeroes = (...range) => this.onWriteZeroes(...range);
    if (backend.resize !== undefined && offers.resize !== false) this.resize = (sizeBytes) => this.onResize(sizeBytes);
    if (backend.extents !== undefined) this.extents = (...range) => this.onExtents(...range);
    if (backend.handOver !== undefined) this.handOver = () => this.backend.handOver?.();
  }

  get sizeBytes(): number {
    return this.backend.sizeBytes;
  }

  get limits(): Limits {
    return this.backend.limits ?? {};
  }

  get readOnly(): boolean {
    return this.backend.readOnly ?? false;
  }

  get fua(): boolean {
    return this.backend.fua ?? false;
  }

  get cacheSurvives(): boolean {
    return this.backend.cacheSurvives ?? false;
  }

  read(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const request = { operation: "read", offsetBytes, lengthBytes: buffer.length, options, buffer } as const;
    return this.ask(request, () => this.backend.read(buffer, offsetBytes, options));
  }

  write(
    buffer: Uint8Array<ArrayBuffer>,
    offsetBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const request = { operation: "write", offsetBytes, lengthBytes: buffer.length, options, buffer } as const;
    return this.ask(request, () => this.backend.write(buffer, offsetBytes, options));
  }

  /** Its own figures (none), and its backend's. */
  figures(): readonly Figure[] {
    return this.backend.figures?.() ?? [];
  }

  close(reason: CloseReason): void | Promise<void> {
    return this.onClose(reason);
  }

  /** Every request comes through here. `next` asks the backend; it may be called later, more than once, or not at all. */
  protected ask(_: FilteredRequest, next: () => Completed | Promise<Completed>): Completed | Promise<Completed> {
    return next();
  }

  /** A flush. */
  protected onFlush(options: CallOptions): Completed | Promise<Completed> {
    const request = { operation: "flush", offsetBytes: 0, lengthBytes: 0, options } as const;
    return this.ask(request, () => this.backend.flush?.(options));
  }

  /** A discard. */
  protected onDiscard(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const request = { operation: "discard", offsetBytes, lengthBytes, options } as const;
    return this.ask(request, () => this.backend.discard?.(offsetBytes, lengthBytes, options));
  }

  /** A writeZeroes. */
  protected onWriteZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: RequestOptions,
  ): Completed | Promise<Completed> {
    const request = { operation: "writeZeroes", offsetBytes, lengthBytes, options } as const;
    return this.ask(request, () => this.backend.writeZeroes?.(offsetBytes, lengthBytes, options));
  }

  /** A change of size. */
  protected onResize(sizeBytes: number): void | Promise<void> {
    return this.backend.resize?.(sizeBytes);
  }

  /** A question for extents. */
  protected onExtents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): readonly Extent[] | Promise<readonly Extent[]> {
    return this.backend.extents?.(offsetBytes, lengthBytes, options) ?? [{ lengthBytes, kind: "data" }];
  }

  /** The end. */
  protected onClose(reason: CloseReason): void | Promise<void> {
    return this.backend.close?.(reason);
  }
}

/**
 * Calls somebody who is only told about a request. What `call` throws is ignored: the request has its own answer, and must
 * not get another one because nobody could be told.
 */
export function tell(call: () => void): void {
  try {
    call();
  } catch {
    // There is nobody else to tell.
  }
}

/** How a request ended. */
export type Outcome = { readonly value: Completed } | { readonly error: unknown };

/**
 * The errno that whoever uses the disk gets, by its name; "0" for success. An error without a code is EIO, and so is a
 * count that is not the request's length.
 */
export function outcomeName(request: FilteredRequest, outcome: Outcome): string {
  if ("error" in outcome) return errnoName(errnoOf(outcome.error) ?? ERRNO.EIO);
  const isWhole = outcome.value === undefined || request.operation === "flush" || outcome.value === request.lengthBytes;
  return isWhole ? "0" : "EIO";
}
