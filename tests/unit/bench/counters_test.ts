import { assertEquals, assertThrows } from "@std/assert";
import { costsBetween, type Counters, parseProcStat, within } from "../../bench/counters.ts";

const procStat = `cpu  100 1 200 9000 50 3 4 2 0 0
cpu0 50 0 100 4500 25 1 2 1 0 0
cpu1 50 1 100 4500 25 2 2 1 0 0
intr 12345 0 0 7
ctxt 987654
btime 1700000000
`;

Deno.test("parseProcStat() counts what is not idle and not waiting for I/O", () => {
  assertEquals(parseProcStat(procStat), { busyMs: (100 + 1 + 200 + 3 + 4 + 2) * 10, switches: 987654 });
});

Deno.test("parseProcStat() refuses what is not /proc/stat", () => {
  assertThrows(() => parseProcStat("cpu0 1 2 3 4 5 6 7 8\nctxt 5\n"));
  assertThrows(() => parseProcStat(procStat.replace("ctxt", "ctx")));
});

Deno.test("costsBetween() divides by the requests of that time", () => {
  const before: Counters = { timeMs: 1000, busyMs: 500, switches: 100 };
  const after: Counters = { timeMs: 1500, busyMs: 1300, switches: 2100 };
  // Half a second at 2000 per second: 1000 requests.
  assertEquals(costsBetween(before, after, 2000), { cpuUs: 800, switches: 2 });
});

Deno.test("costsBetween() counts calls and batches of a dblock disk from its own counters", () => {
  const before: Counters = { timeMs: 0, busyMs: 0, switches: 0, batches: 10, handed: 100 };
  const after: Counters = { timeMs: 1000, busyMs: 1000, switches: 0, batches: 260, handed: 1100 };
  assertEquals(costsBetween(before, after, 1000), { cpuUs: 1000, switches: 0, calls: 0.25, batch: 4 });
});

Deno.test("within() takes the readings of the run, without its uncertain end", () => {
  const readings = [0, 100, 200, 300, 400, 500].map((timeMs): Counters => ({ timeMs, busyMs: 0, switches: 0 }));
  assertEquals(within(readings, 50, 450), { first: readings[1]!, last: readings[3]! });
  assertEquals(within(readings, 250, 450), undefined);
  assertEquals(within([], 0, 1000), undefined);
});
