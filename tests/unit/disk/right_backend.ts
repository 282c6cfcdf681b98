// SPDX-License-Identifier: MIT
/** A backend that keeps the contract, to be made wrong in one place: what `wrong_backends.ts` extends. */
import type { Backend, CallOptions, CloseReason, Extent, Limits, RequestOptions } from "../../../src/disk/backend.ts";
import type { TestBackendOptions } from "../../../src/disk/testing.ts";

export const SIZE_BYTES = 2 ** 20 + 3 * 512;
export type Bytes = Uint8Array<ArrayBuffer>;

/** A right one, with everything: a disk of memory that loses what was not flushed when its program dies. */
export class Right implements Backend {
  limits: Limits = {};
  readOnly = false;
  fua = true;
  cacheSurvives = false;
  store: Bytes;
  durable: Bytes;

  constructor(durable: Bytes = new Uint8Array(SIZE_BYTES)) {
    this.durable = durable;
    this.store = durable.slice();
  }

  get sizeBytes(): number {
    return this.store.length;
  }

  read(buffer: Bytes, offset: number, _: RequestOptions): void | number | Promise<void | number> {
    buffer.set(this.store.subarray(offset, offset + buffer.length));
  }

  write(buffer: Bytes, offset: number, options: RequestOptions): void | number | Promise<void | number> {
    this.store.set(buffer, offset);
    if (options.fua) this.durable.set(this.store.subarray(offset, offset + buffer.length), offset);
  }

  flush(_: CallOptions): void | Promise<void> {
    this.durable.set(this.store);
  }

  discard(offset: number, length: number, _: RequestOptions): void {
    this.store.fill(0, offset, offset + length);
  }

  writeZeroes(offset: number, length: number, options: RequestOptions): void {
    this.store.fill(0, offset, offset + length);
    if (options.fua) this.durable.fill(0, offset, offset + length);
  }

  resize(sizeBytes: number): void | Promise<void> {
    const store = new Uint8Array(sizeBytes);
    store.set(this.store.subarray(0, sizeBytes));
    this.store = store;
    this.durable = store.slice();
  }

  extents(offset: number, length: number): readonly Extent[] {
    const isZero = this.store.subarray(offset, offset + length).every((byte) => byte === 0);
    return [{ lengthBytes: length, kind: isZero ? "hole" : "data" }];
  }

  close(reason: CloseReason): void | Promise<void> {
    if (reason === "left") this.durable.set(this.store);
  }
}

/** A backend with a mistake, and the test that finds it. */
export interface Wrong {
  readonly mistake: string;
  readonly make: (durable?: Bytes) => Backend & { readonly durable: Bytes };
  /** How the name of the test begins. */
  readonly caughtBy: string;
  readonly options?: TestBackendOptions;
}
