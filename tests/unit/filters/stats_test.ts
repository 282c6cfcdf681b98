// SPDX-License-Identifier: MIT
/** Counts, errors and percentiles of `Stats`, and the histogram behind them. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Random } from "../../../src/disk/random.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { Histogram } from "../../../src/filters/histogram.ts";
import { Stats, type StatsReport, statsText } from "../../../src/filters/stats.ts";

const plain = requestOptions();
const bytes = (length = 512) => new Uint8Array(length);

Deno.test("Stats counts requests, bytes of those that did not fail, errors by errno, and how many ran at once", async () => {
  let last: StatsReport | undefined;
  const disk = new PlayedDisk({ laterSeed: 1 });
  const stats = new Stats(disk, { onClose: (report) => last = report });
  const reads = [0, 1, 2].map((i) => stats.read(bytes(), i * 512, plain));
  assertEquals(stats.report().inFlight, 3);
  await Promise.all(reads);
  await stats.write(bytes(4096), 0, plain);
  disk.failure = { operation: "write", errno: "ENOSPC" };
  await assertRejects(async () => await stats.write(bytes(), 0, plain));
  disk.failure = { operation: "write", errno: "short" };
  await stats.write(bytes(1024), 0, plain);
  await stats.close("destroyed");
  assert(last !== undefined);
  const { read, write, flush } = last.operations;
  assertEquals([last.inFlight, last.maxInFlight], [0, 3]);
  assertEquals([read.count, read.bytes, read.errors], [3, 1536, {}]);
  assertEquals([write.count, write.bytes, write.errors], [3, 4096, { ENOSPC: 1, EIO: 1 }]);
  assertEquals(flush.count, 0);
  assertMatch(
    stats.text(),
    /^write: 3 requests, 4096 bytes, 1 ENOSPC, 1 EIO; us: mean \d+, 50% \d+,.*\n {2}us: <\d+: \d/m,
  );
  assertEquals(write.latenciesUs.reduce((sum, { count }) => sum + count, 0), 3);
  assertMatch(statsText(last, "scratch"), /^scratch: \d+\.\d s, at most 3 requests at the same time\nread: 3 /);
  assert(!stats.text().includes("flush"));
  stats.reset();
  assertEquals(stats.report().operations.read.count, 0);
});

Deno.test("Stats measures how long a request takes", async () => {
  const disk = new PlayedDisk();
  const slow = new Stats({
    sizeBytes: disk.sizeBytes,
    read: () => new Promise((resolve) => setTimeout(resolve, 20)),
    write: () => {},
  });
  await slow.read(bytes(), 0, plain);
  const { p50Us, meanUs, maxUs } = slow.report().operations.read;
  assert(p50Us >= 18_000 && maxUs >= 18_000 && meanUs >= 18_000, `${p50Us} ${maxUs} ${meanUs}`);
});

Deno.test("Histogram: percentiles are exact to 1 in 16, from 0 to a year of microseconds", () => {
  const random = new Random(7);
  for (const most of [10, 1000, 1e6, 3.2e13]) {
    const histogram = new Histogram();
    const values = Array.from({ length: 2000 }, () => random.below(most));
    for (const value of values) histogram.add(value);
    values.sort((a, b) => a - b);
    for (const percent of [1, 50, 90, 99, 99.9, 100]) {
      const exact = values[Math.max(0, Math.ceil(values.length * percent / 100) - 1)]!;
      const said = histogram.percentile(percent);
      assert(said >= exact && said <= exact * 17 / 16 + 1, `${percent}% below ${most}: ${said} instead of ${exact}`);
    }
    assertEquals([histogram.count, histogram.max], [2000, values.at(-1)]);
  }
  const empty = new Histogram();
  assertEquals([empty.percentile(50), empty.mean, empty.max, empty.doublings()], [0, 0, 0, []]);
});

Deno.test("Histogram: doublings() has each value below its power of two, at the edges as well", () => {
  const histogram = new Histogram();
  for (const value of [0, 1, 2, 3, 15, 16, 31, 32, 1023, 1024, 1025]) histogram.add(value);
  assertEquals(
    histogram.doublings().map(({ below, count }) => [below, count]),
    [[1, 1], [2, 1], [4, 2], [16, 1], [32, 2], [64, 1], [1024, 1], [2048, 2]],
  );
});
