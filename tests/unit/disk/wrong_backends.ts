// SPDX-License-Identifier: MIT
/**
 * Backends with one mistake each, and the test of the kit that has to find it. Each is a mistake that somebody could make,
 * or that this project has made.
 */
import type { Backend, CallOptions, CloseReason, Extent, Limits, RequestOptions } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import type { TestBackendOptions } from "../../../src/disk/testing.ts";

export const SIZE_BYTES = 2 ** 20 + 3 * 512;
type Bytes = Uint8Array<ArrayBuffer>;

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

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

export const WRONG: readonly Wrong[] = [
  {
    mistake: "its last block cannot be written",
    caughtBy: "reads what was written at its edges",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer.subarray(0, SIZE_BYTES - 512 - offset), offset, options);
        }
      }(durable),
  },
  {
    mistake: "offsets wrap at 1 MiB",
    caughtBy: "reads what was written at its edges",
    make: (durable) =>
      new class extends Right {
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          super.read(buffer, offset & 0xfffff, options);
        }
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer, offset & 0xfffff, options);
        }
      }(durable),
  },
  {
    mistake: "the end of its largest request is cut off",
    caughtBy: "reads what was written at its edges",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer.subarray(0, 2 ** 19 - 512), offset, options);
        }
      }(durable),
  },
  {
    mistake: "it says that it takes requests of 1 MiB, and fails above 512 KiB",
    caughtBy: "reads what was written at its edges",
    make: (durable) =>
      new class extends Right {
        override limits = { maxIoBytes: 2 ** 20 };
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          if (buffer.length > 2 ** 19) throw new DblockError("EINVAL", "Cannot read", "it is too long");
          super.read(buffer, offset, options);
        }
      }(durable),
  },
  {
    mistake: "it keeps the buffer of a write instead of its data",
    caughtBy: "leaves memory alone",
    make: (durable) =>
      new class extends Right {
        readonly #kept = new Map<number, Bytes>();
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer, offset, options);
          this.#kept.set(offset, buffer);
        }
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          super.read(buffer, offset, options);
          const kept = this.#kept.get(offset);
          if (kept?.length === buffer.length) buffer.set(kept);
        }
      }(durable),
  },
  {
    mistake: "it fills the buffer of a read after it has answered",
    caughtBy: "leaves memory alone",
    make: (durable) =>
      new class extends Right {
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          super.read(buffer, offset, options);
          setTimeout(() => super.read(buffer, offset, options), 1);
        }
      }(durable),
  },
  {
    mistake: "it takes the whole memory behind a buffer for the buffer",
    caughtBy: "leaves memory alone",
    make: (durable) =>
      new class extends Right {
        override read(buffer: Bytes, offset: number) {
          new Uint8Array(buffer.buffer).set(this.store.subarray(offset, offset + buffer.length));
        }
      }(durable),
  },
  {
    mistake: "every tenth write has a wrong bit",
    caughtBy: "reads what was written, zeroed",
    make: (durable) =>
      new class extends Right {
        #count = 0;
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          if (++this.#count % 10 === 0) buffer[buffer.length >> 1]! ^= 4;
          super.write(buffer, offset, options);
        }
      }(durable),
  },
  {
    mistake: "a cache of reads that writes do not make void",
    caughtBy: "keeps the order",
    make: (durable) =>
      new class extends Right {
        readonly #cache = new Map<string, Bytes>();
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          const key = `${offset}+${buffer.length}`;
          const cached = this.#cache.get(key);
          if (cached !== undefined) return buffer.set(cached);
          super.read(buffer, offset, options);
          this.#cache.set(key, buffer.slice());
        }
      }(durable),
  },
  {
    mistake: "a write that was answered lands later, behind a newer one",
    caughtBy: "keeps the order",
    make: (durable) =>
      new class extends Right {
        #writes = 0;
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          const data = buffer.slice();
          super.write(data, offset, options);
          if (++this.#writes % 2 === 1) setTimeout(() => super.write(data, offset, options), 1);
        }
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          return new Promise<void>((resolve) => setTimeout(resolve, 3)).then(() => super.read(buffer, offset, options));
        }
      }(durable),
    options: { rounds: 20 },
  },
  {
    mistake: "two halves of which overlapping writes leave different ones",
    caughtBy: "keeps the order",
    make: (durable) =>
      new class extends Right {
        readonly #other = new Uint8Array(SIZE_BYTES + 8192);
        #reads = 0;
        #writes = 0;
        override async write(buffer: Bytes, offset: number, options: RequestOptions) {
          const data = buffer.slice();
          const turns = this.#writes++ % 3;
          super.write(buffer, offset, options);
          for (let i = turns; i < 3; i++) await Promise.resolve();
          this.#other.set(data, offset);
        }
        override writeZeroes(offset: number, length: number, options: RequestOptions) {
          super.writeZeroes(offset, length, options);
          this.#other.fill(0, offset, offset + length);
        }
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          if (this.#reads++ % 2 === 0) return super.read(buffer, offset, options);
          buffer.set(this.#other.subarray(offset, offset + buffer.length));
        }
      }(durable),
  },
  {
    mistake: "one scratch buffer for all requests that are in flight",
    caughtBy: "does many requests at the same time",
    make: (durable) =>
      new class extends Right {
        readonly #scratch = new Uint8Array(2 ** 19);
        override async write(buffer: Bytes, offset: number, options: RequestOptions) {
          this.#scratch.set(buffer);
          await Promise.resolve();
          super.write(this.#scratch.subarray(0, buffer.length), offset, options);
        }
      }(durable),
  },
  {
    mistake: "the second of two requests at the same time is never answered",
    caughtBy: "does many requests at the same time",
    make: (durable) =>
      new class extends Right {
        #isBusy = false;
        override async read(buffer: Bytes, offset: number, options: RequestOptions) {
          if (this.#isBusy) await new Promise<never>(() => {});
          this.#isBusy = true;
          await turn();
          await super.read(buffer, offset, options);
          this.#isBusy = false;
        }
      }(durable),
    options: { answerWithinMs: 300 },
  },
  {
    mistake: "it says that it did less than it did",
    caughtBy: "reads what was written at its edges",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer, offset, options);
          return buffer.length / 512;
        }
      }(durable),
  },
  {
    mistake: "zeroes end a block too early",
    caughtBy: "reads as zeroes",
    make: (durable) =>
      new class extends Right {
        override writeZeroes(offset: number, length: number, options: RequestOptions) {
          super.writeZeroes(offset, Math.max(512, length - 512), options);
        }
      }(durable),
  },
  {
    mistake: "zeroes that should keep the space are refused",
    caughtBy: "reads as zeroes",
    make: (durable) =>
      new class extends Right {
        override writeZeroes(offset: number, length: number, options: RequestOptions) {
          if (options.keepAllocated) throw new DblockError("EOPNOTSUPP", "Cannot zero", "only holes can be made");
          super.writeZeroes(offset, length, options);
        }
      }(durable),
  },
  {
    mistake: "a discard takes the whole page",
    caughtBy: "discards nothing but",
    make: (durable) =>
      new class extends Right {
        override discard(offset: number, length: number) {
          this.store.fill(0, offset & ~4095, offset + length + 4095 & ~4095);
        }
      }(durable),
  },
  {
    mistake: "what was done already is refused",
    caughtBy: "bears that a request is done again",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          if (options.replayed) throw new DblockError("EEXIST", "Cannot write", "it is there already");
          super.write(buffer, offset, options);
        }
      }(durable),
  },
  {
    mistake: "it forgets its content when it grows",
    caughtBy: "takes another size",
    make: (durable) =>
      new class extends Right {
        override resize(sizeBytes: number) {
          this.store = new Uint8Array(sizeBytes);
        }
      }(durable),
  },
  {
    mistake: "it says that it has grown and has not",
    caughtBy: "takes another size",
    make: (durable) =>
      new class extends Right {
        override resize() {}
      }(durable),
  },
  {
    mistake: "extents that leave a gap",
    caughtBy: "tells its extents",
    make: (durable) =>
      new class extends Right {
        override extents() {
          return [];
        }
      }(durable),
  },
  {
    mistake: "extents of half a block",
    caughtBy: "tells its extents",
    make: (durable) =>
      new class extends Right {
        override extents() {
          return [{ lengthBytes: 256, kind: "data" } as const];
        }
      }(durable),
  },
  {
    mistake: "a hole where there is data",
    caughtBy: "tells its extents",
    make: (durable) =>
      new class extends Right {
        override extents(_: number, length: number) {
          return [{ lengthBytes: length, kind: "hole" } as const];
        }
      }(durable),
  },
  {
    mistake: "a block size that is none",
    caughtBy: "says what it is",
    make: (durable) =>
      new class extends Right {
        override limits = { blockBytes: 1536 };
      }(durable),
  },
  {
    mistake: "half a block at its end",
    caughtBy: "says what it is",
    make: () => new Right(new Uint8Array(2 ** 20 + 256)),
  },
  {
    mistake: "limits that change while it is used",
    caughtBy: "says what it is",
    make: (durable) =>
      new class extends Right {
        override limits: Limits = { maxIoBytes: 65536 };
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          this.limits = { maxIoBytes: 131072 };
          super.read(buffer, offset, options);
        }
      }(durable),
  },
  {
    mistake: "it is read only, and its content changes",
    caughtBy: "changes nothing",
    make: (durable) =>
      new class extends Right {
        override readOnly = true;
        override read(buffer: Bytes) {
          buffer.fill(this.store[0]!++);
        }
      }(durable),
  },
  {
    mistake: "it loses the errno of what it caught",
    caughtBy: "keeps the errno",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          try {
            if (offset === 0) throw new DblockError("ENOSPC", "Cannot write", "it is full");
            super.write(buffer, offset, options);
          } catch (error) {
            throw new Error(`it could not be written: ${error}`);
          }
        }
      }(durable),
    options: { errors: [{ operation: "write", errno: "ENOSPC" }] },
  },
  {
    mistake: "a flush that flushes nothing",
    caughtBy: "keeps what was flushed",
    make: (durable) =>
      new class extends Right {
        override flush() {}
      }(durable),
  },
  {
    mistake: "a flush that flushes the last write only",
    caughtBy: "keeps what was flushed",
    make: (durable) =>
      new class extends Right {
        #last: readonly [number, number] = [0, 0];
        override write(buffer: Bytes, offset: number, options: RequestOptions) {
          super.write(buffer, offset, options);
          this.#last = [offset, offset + buffer.length];
        }
        override flush() {
          this.durable.set(this.store.subarray(...this.#last), this.#last[0]);
        }
      }(durable),
  },
  {
    mistake: "a flush that is answered before it is done",
    caughtBy: "keeps what was flushed",
    make: (durable) =>
      new class extends Right {
        override flush() {
          const store = this.store.slice();
          setTimeout(() => this.durable.set(store), 20);
        }
      }(durable),
  },
  {
    mistake: "it says that it heeds FUA and does not",
    caughtBy: "keeps what was written with FUA",
    make: (durable) =>
      new class extends Right {
        override write(buffer: Bytes, offset: number) {
          this.store.set(buffer, offset);
        }
      }(durable),
  },
  {
    mistake: "it says that its cache outlives its program and it does not",
    caughtBy: "keeps what was flushed",
    make: (durable) =>
      new class extends Right {
        override cacheSurvives = true;
      }(durable),
  },
  {
    mistake: "it takes its content away although the disk goes on",
    caughtBy: "leaves everything",
    make: (durable) =>
      new class extends Right {
        override close() {}
      }(durable),
  },
  {
    mistake: "it cannot be closed unless it was used",
    caughtBy: "can be closed",
    make: (durable) =>
      new class extends Right {
        #file: { close(): void } | undefined;
        override read(buffer: Bytes, offset: number, options: RequestOptions) {
          this.#file ??= { close: () => {} };
          super.read(buffer, offset, options);
        }
        override close() {
          if (this.#file === undefined) throw new TypeError("there is no file");
          this.#file.close();
        }
      }(durable),
  },
];
