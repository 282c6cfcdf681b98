// SPDX-License-Identifier: MIT
/** What `retry()` tries again, what not, and when it stops. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Backend, CallOptions } from "../../../src/disk/backend.ts";
import { DblockError, type ErrnoName } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { retry, type RetryOptions } from "../../../src/filters/retry.ts";

const plain = requestOptions();

/** A disk whose first requests of each operation fail. */
class Failing implements Backend {
  readonly sizeBytes = 65536;
  readonly store = new Uint8Array(65536);
  tries = 0;
  readonly #failures: number;
  readonly #errno: ErrnoName | "short";

  constructor(failures: number, errno: ErrnoName | "short" = "EIO") {
    this.#failures = failures;
    this.#errno = errno;
  }

  read(buffer: Uint8Array<ArrayBuffer>): number {
    return this.#try(buffer.length);
  }

  write(buffer: Uint8Array<ArrayBuffer>, offset: number): number {
    const data = buffer.slice();
    buffer.fill(0xdd); // its own until it has answered
    const done = this.#try(data.length);
    this.store.set(data, offset);
    return done;
  }

  flush(_: CallOptions): void {
    this.#try(0);
  }

  #try(lengthBytes: number): number {
    if (++this.tries > this.#failures) return lengthBytes;
    if (this.#errno === "short") return lengthBytes / 2;
    throw new DblockError(this.#errno);
  }
}

const quick: RetryOptions = { delayMs: 0 };

Deno.test("retry() asks again with the data of a write, although the backend scribbled on it", async () => {
  const disk = new Failing(2);
  await retry(disk, quick).write(new Uint8Array(512).fill(7), 1024, plain);
  assertEquals([disk.tries, disk.store[1024], disk.store[1535]], [3, 7, 7]);
});

Deno.test("retry(): a short count is tried again", async () => {
  const disk = new Failing(1, "short");
  assertEquals(await retry(disk, quick).read(new Uint8Array(512), 0, plain), 512);
  assertEquals(disk.tries, 2);
});

Deno.test("retry() gives up after its times, with the last error", async () => {
  const disk = new Failing(99, "ETIMEDOUT");
  const told: string[] = [];
  const filter = retry(disk, {
    ...quick,
    times: 3,
    onRetry: ({ operation }, errno) => told.push(`${operation} ${errno}`),
  });
  const error = await assertRejects(async () => await filter.read(new Uint8Array(512), 0, plain), DblockError);
  assertEquals([error.code, disk.tries, told], ["ETIMEDOUT", 4, Array(3).fill("read ETIMEDOUT")]);
});

Deno.test("retry() tries again although onRetry throws", async () => {
  const disk = new Failing(2);
  const onRetry = () => {
    throw new Error("nobody to tell");
  };
  assertEquals(await retry(disk, { ...quick, onRetry }).read(new Uint8Array(512), 0, plain), 512);
  assertEquals(disk.tries, 3);
});

Deno.test("retry(): an errno that does not pass by itself is not tried again", async () => {
  const disk = new Failing(1, "ENOSPC");
  await assertRejects(async () => await retry(disk, quick).read(new Uint8Array(512), 0, plain), DblockError);
  assertEquals(disk.tries, 1);
  await retry(new Failing(1, "ENOSPC"), { ...quick, errnos: ["ENOSPC"] }).read(new Uint8Array(512), 0, plain);
});

Deno.test("retry(): a flush that failed is not tried again, unless it is asked for", async () => {
  const disk = new Failing(1);
  await assertRejects(async () => await retry(disk, quick).flush!(plain), DblockError);
  assertEquals(disk.tries, 1);
  await retry(new Failing(1), { ...quick, operations: ["flush"] }).flush!(plain);
});

Deno.test("retry() waits longer each time, and stops when nobody wants the answer any more", async () => {
  const disk = new Failing(99);
  const nobody = new AbortController();
  const reading = Promise.resolve(
    retry(disk, { delayMs: 1, factor: 1000, maxDelayMs: 2 ** 30 }).read(new Uint8Array(512), 0, {
      ...plain,
      signal: nobody.signal,
    }),
  );
  const started = performance.now();
  while (disk.tries < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  assert(performance.now() - started < 60_000);
  nobody.abort(); // the next pause is a second, the one after it a quarter of an hour
  await assertRejects(() => reading, DblockError);
  assert(disk.tries <= 3, `${disk.tries}`);
});
