// SPDX-License-Identifier: MIT
/**
 * Backends with one mistake each, and the test of the kit that has to find it. Each is a mistake that somebody could make,
 * or that this project has made.
 */
import type { Limits, RequestOptions } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { type Bytes, Right, type Wrong } from "./right_backend.ts";
import { WRONG_CONTENT } from "./wrong_content.ts";

export const WRONG: readonly Wrong[] = [
  ...WRONG_CONTENT,
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
