// SPDX-License-Identifier: MIT
/** The arithmetic of `rate()` without a clock, and what `delay()` delays. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { delay, type DelayOptions } from "../../../src/filters/delay.ts";
import { rate } from "../../../src/filters/rate.ts";
import { TokenBucket } from "../../../src/filters/token_bucket.ts";

const plain = requestOptions();

Deno.test("TokenBucket: a burst goes at once, what comes after it waits its turn, a pause fills the burst and no more", () => {
  const bucket = new TokenBucket(1000, 100);
  assertEquals([bucket.take(60, 0), bucket.take(40, 0)], [0, 0]);
  assertEquals([bucket.take(50, 0), bucket.take(50, 0)], [50, 100]);
  assertEquals(bucket.take(0, 100), 0); // the debt is paid
  assertEquals([bucket.take(100, 1e9), bucket.take(1, 1e9)], [0, 1]);
  // A request that is larger than the burst goes, in its time.
  assertEquals(new TokenBucket(1000, 0).take(5000, 0), 5000);
  for (const [perSecond, burst] of [[0, 1], [-1, 1], [NaN, 1], [1, -1]] as const) {
    assertThrows(() => new TokenBucket(perSecond, burst), RangeError);
  }
});

Deno.test("TokenBucket: over any time, no more than the rate and one burst", () => {
  const bucket = new TokenBucket(1_000_000, 50_000);
  let atMs = 0;
  let taken = 0;
  for (let i = 0; i < 10_000; i++) {
    const waitMs = bucket.take(4096, atMs);
    atMs += waitMs;
    taken += 4096;
    assert(taken <= atMs * 1000 + 50_000 + 4096, `${taken} tokens in ${atMs} ms`);
  }
  assert(taken >= atMs * 1000, "it is not slower than the rate either");
});

Deno.test("rate(): discards count as one request, and flushes do not wait", async () => {
  const disk = new PlayedDisk();
  const filter = rate(disk, { bytesPerSecond: 1, burstBytes: 0, operationsPerSecond: 1000 });
  await filter.discard!(0, 65536, plain);
  await filter.flush!(plain);
  assertEquals(disk.asked.map(({ operation }) => operation), ["discard", "flush"]);
  assertThrows(() => rate(disk, { bytesPerSecond: 0 }), RangeError);
});

/** Which of some requests wait. */
function delayed(options: DelayOptions): string[] {
  const disk = new PlayedDisk();
  const filter = delay(disk, options);
  const waiting: Promise<unknown>[] = [];
  const names: string[] = [];
  const note = (name: string, answer: unknown) => {
    if (answer instanceof Promise) {
      names.push(name);
      waiting.push(answer);
    }
  };
  note("read", filter.read(new Uint8Array(512), 0, plain));
  note("write", filter.write(new Uint8Array(512), 0, plain));
  note("flush", filter.flush!(plain));
  pending.push(...waiting);
  return names;
}

const pending: Promise<unknown>[] = [];

Deno.test("delay(): what is named waits, what is not waits as `other`, and jitter alone is for everything", async () => {
  assertEquals(delayed({ operations: { read: 1 } }), ["read"]);
  assertEquals(delayed({ operations: { read: 0 }, otherMs: 1 }), ["write", "flush"]);
  assertEquals(delayed({ operations: { flush: 1 }, jitterMs: 1 }), ["flush"]);
  assertEquals(delayed({ jitterMs: 1 }), ["read", "write", "flush"]);
  assertEquals(delayed({}), []);
  await Promise.all(pending.splice(0));
  for (const options of [{ otherMs: -1 }, { jitterMs: Infinity }, { operations: { read: NaN } }]) {
    assertThrows(() => delay(new PlayedDisk(), options), RangeError);
  }
});

/** How long a timer is set for each of some reads. */
async function waits(options: DelayOptions): Promise<number[]> {
  const filter = delay(new PlayedDisk(), options);
  const real = globalThis.setTimeout;
  const milliseconds: number[] = [];
  const noted = (callback: () => void, ms = 0) => {
    milliseconds.push(ms);
    return real(callback, 0);
  };
  globalThis.setTimeout = Object.assign(noted, real) as typeof setTimeout;
  try {
    for (let i = 0; i < 50; i++) await filter.read(new Uint8Array(512), 0, plain);
  } finally {
    globalThis.setTimeout = real;
  }
  return milliseconds;
}

Deno.test("delay(): the same seed repeats the jitter, another one does not, and all of it is within its bounds", async () => {
  const options: DelayOptions = { operations: { read: 5 }, jitterMs: 10 };
  const first = await waits({ ...options, seed: 7 });
  assertEquals(await waits({ ...options, seed: 7 }), first);
  assert(first.some((ms, i) => ms !== first[(i + 1) % first.length]));
  assert((await waits({ ...options, seed: 8 })).some((ms, i) => ms !== first[i]));
  assertEquals([first.length, first.filter((ms) => ms < 5 || ms >= 15)], [50, []]);
});
