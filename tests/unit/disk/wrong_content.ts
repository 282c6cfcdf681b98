// SPDX-License-Identifier: MIT
/** Backends that do not keep what is written, with one mistake each, and the test of the kit that has to find it. */
import type { RequestOptions } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { type Bytes, Right, SIZE_BYTES, type Wrong } from "./right_backend.ts";

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

export const WRONG_CONTENT: readonly Wrong[] = [
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
];
