// SPDX-License-Identifier: MIT
/** What `dblock top --web` makes of two looks at disks: rates, percentiles, maps, and what happened in words. */
import { assert, assertEquals } from "@std/assert";
import type { DiskFigures } from "../../../src/command/figures.ts";
import { Happenings, type Servers } from "../../../src/command/happenings.ts";
import { activityBetween, describeDisk, keyOf, levelsOf, type Look, type Seen } from "../../../src/command/moment.ts";
import { bytesOfLevel, FIELDS, levelOf, PIECES } from "../../../src/command/page/terms.ts";
import { MAP_CELLS, Meter } from "../../../src/disk/meter.ts";
import { CELLS } from "../../../src/filters/histogram.ts";
import { DBLOCK_DEVICE_DIRECT } from "../../../src/module/abi.ts";
import { type InfoFields, madeUpDisk } from "./made_up_disk.ts";

const SIZE = 2 ** 20;

/** An export, as its meter has it now. */
function exported(meter: Meter, more: Partial<DiskFigures> = {}): Seen {
  return {
    atMs: 0,
    disk: "d",
    transport: "nbd",
    sizeBytes: SIZE,
    pid: 7,
    spec: "x.img",
    meter: meter.report(),
    own: [],
    ...more,
  };
}

/** A disk in /dev. */
function device(fields: InfoFields = {}, more: Partial<Seen> = {}): Seen {
  return { atMs: 0, ...madeUpDisk(fields, more) };
}

const look = (timeMs: number, ...disks: Seen[]): Look => ({
  timeMs,
  disks: new Map(disks.map((disk) => [keyOf(disk), disk])),
});

const named = ({ numbers }: { readonly numbers: readonly (number | null)[] }) =>
  Object.fromEntries(FIELDS.map((field, i) => [field, numbers[i]]));

Deno.test("the page's maps have as many pieces as a server counts", () => {
  assertEquals(PIECES, MAP_CELLS);
});

Deno.test("activityBetween() of an export: each second's requests and bytes, percentiles without flushes, and where", () => {
  const meter = new Meter();
  const before = exported(meter);
  for (let i = 0; i < 98; i++) meter.addTime(meter.count("read", 0, 4096, 0, SIZE), 1, 1);
  for (let i = 0; i < 2; i++) meter.addTime(meter.count("write", SIZE - 8192, 8192, 0, SIZE), 100, 1);
  meter.addTime(meter.count("flush", 0, 0, 0, SIZE), 10_000, 1);
  meter.addTime(meter.count("read", 0, 512, 5, SIZE), 1, 1);
  const activity = activityBetween(before, exported(meter), 2);
  const { reads, writes, others, readBytes, writeBytes, p50Ms, p90Ms, p99Ms, maxMs, inFlight, errors } = named(
    activity,
  );
  assertEquals({ reads, writes, others, readBytes, writeBytes, inFlight, errors }, {
    reads: 49,
    writes: 1,
    others: 0.5,
    readBytes: 98 * 2048,
    writeBytes: 8192,
    inFlight: 0,
    errors: 0.5,
  });
  // A cell is a quarter of its time wide.
  assert(p50Ms! >= 1 && p50Ms! <= 1.25 && p90Ms === p50Ms, `${p50Ms} ${p90Ms}`);
  assert(p99Ms! >= 100 && p99Ms! <= 125 && maxMs === p99Ms, `${p99Ms} ${maxMs}`);
  assertEquals([...activity.reads].flatMap((letter, i) => letter === "0" ? [] : [i]), [0]);
  assertEquals([...activity.writes].flatMap((letter, i) => letter === "0" ? [] : [i]), [254, 255]);
});

Deno.test("activityBetween() of a disk in /dev: the module's counts, and times that the kernel has measured", () => {
  const [old, fresh] = [new Float64Array(CELLS), new Float64Array(CELLS)];
  old[3] = 1000; // before: not counted
  fresh[3] = 1000;
  fresh[200] = 10;
  const before = device({ requests: [10, 5, 0, 0, 0], bytes: [40960, 20480, 0, 0, 0] }, { latencies: old });
  const now = device({
    requests: [30, 5, 1, 2, 3],
    bytes: [122880, 20480, 0, 8192, 0],
    error_count: 4,
    waiting_count: 1,
    handed_count: 2,
  }, { latencies: fresh });
  const activity = named(activityBetween(before, now, 1));
  const { reads, writes, others, readBytes, writeBytes, inFlight, errors, p50Ms, maxMs } = activity;
  assertEquals([reads, writes, others, readBytes, writeBytes, inFlight, errors], [20, 0, 6, 81920, 0, 3, 4]);
  assert(p50Ms! > 0.02 && p50Ms === maxMs, `${p50Ms} ms`);
  assertEquals(activityBetween(before, now, 1).reads, "");
  // What the kernel has counted of places, where no code is asked.
  const places = (bytes: number) => ({ reads: new Array(MAP_CELLS).fill(bytes), writes: new Array(MAP_CELLS).fill(0) });
  const mapped = activityBetween({ ...before, places: places(0) }, { ...now, places: places(512) }, 1);
  assertEquals([mapped.reads, mapped.writes], ["1".repeat(MAP_CELLS), ""]);
});

Deno.test("activityBetween() knows nothing of a disk that was not there, and nothing below 0 of one that counts anew", () => {
  const meter = new Meter();
  meter.addTime(meter.count("read", 0, 4096, 0, SIZE), 1, 1);
  const { numbers, reads } = activityBetween(undefined, exported(meter), 1);
  assertEquals(numbers.filter((number) => number !== null), [0]); // in flight
  assertEquals(reads, "");
  assertEquals(named(activityBetween(exported(meter), exported(new Meter()), 1)).reads, 0);
});

Deno.test("levelsOf(): the page reads of each letter how much it was, to a fifth; nothing is no letter", () => {
  const [before, now] = [new Array(MAP_CELLS).fill(5), new Array(MAP_CELLS).fill(5)];
  assertEquals(levelsOf(before, now, 1), "");
  assertEquals(levelsOf(undefined, now, 1), "");
  const bytes = [1, 512, 4096, 1e6, 1e9, 5e11];
  for (const [i, one] of bytes.entries()) now[i + 1] = 5 + 2 * one;
  const letters = levelsOf(before, now, 2);
  assertEquals(letters.length, MAP_CELLS);
  assertEquals(levelOf(letters, 0), 0);
  assertEquals(bytesOfLevel(0), 0);
  for (const [i, one] of bytes.entries()) {
    const read = bytesOfLevel(levelOf(letters, i + 1));
    assert(one < 512 ? read === 512 : read > one / 1.2 && read < one * 1.2, `${one} became ${read}`);
  }
  assert(/^[\x30-\x6e]*$/.test(letters));
});

Deno.test("describeDisk() says why there is no map: mapped, a server that does not tell, nobody who serves", () => {
  assertEquals(describeDisk(device({ flags: DBLOCK_DEVICE_DIRECT })).mapAbsence, "mapped");
  const places = { reads: [], writes: [] };
  assertEquals(describeDisk(device({ flags: DBLOCK_DEVICE_DIRECT }, { places })).mapAbsence, undefined);
  assertEquals(describeDisk(device()).mapAbsence, "silent");
  assertEquals(describeDisk(device({ server_pid: 0, state: 3 })).mapAbsence, "unserved");
  assertEquals(describeDisk(device({}, { meter: new Meter().report() })).mapAbsence, undefined);
  const { name, transport, path, pid, totals } = describeDisk(device({ error_count: 3, death_count: 1 }));
  assertEquals([name, transport, path, pid, totals], ["a", "dblock.ko", "/dev/a", 42, { errors: 3, deaths: 1 }]);
});

const servers = (dead: number[] = [], alive: number[] = []): Servers => ({
  dead: new Set(dead),
  isAlive: (pid) => alive.includes(pid),
});
const texts = (list: readonly { readonly kind: string; readonly text: string }[]) =>
  list.map(({ kind, text }) => `${kind}: ${text}`);

Deno.test("errors are told by operation and errno, in words for one and for many; what goes on is one happening that grows", () => {
  const meter = new Meter();
  const all = new Happenings();
  let before = look(0, exported(meter));
  const next = (timeMs: number) => {
    const now = look(timeMs, exported(meter));
    const changed = all.add(before, now, servers());
    before = now;
    return changed;
  };
  meter.count("read", 0, 512, 5, SIZE);
  const [first] = next(1000);
  assertEquals(texts([first!]), ["error: 1 read failed: EIO"]);
  meter.count("read", 0, 512, 5, SIZE);
  meter.count("writeZeroes", 0, 512, 28, SIZE);
  const changed = next(2000);
  assertEquals(texts(changed), ["error: 2 reads failed: EIO", "error: 1 write of zeroes failed: ENOSPC"]);
  assertEquals([changed[0]!.number, changed[0]!.timeMs, changed[0]!.lastMs], [first!.number, 1000, 2000]);
  assertEquals(next(3000), []);
  meter.count("read", 0, 512, 5, SIZE);
  assertEquals(texts(next(60_000)), ["error: 1 read failed: EIO"]);
  assertEquals(all.all.length, 3);
});

Deno.test("deaths, replays, timeouts and new servers of a disk in /dev", () => {
  const all = new Happenings();
  const before = look(0, device());
  const dead = look(1000, device({ server_pid: 0, state: 3, death_count: 1, error_count: 2, timeout_count: 1 }));
  assertEquals(texts(all.add(before, dead, servers())), [
    "error: 2 requests failed",
    "death: its server has died: its I/O waits for the next one",
    "error: 1 request timed out",
  ]);
  const back = look(
    2000,
    device({ server_pid: 43, death_count: 1, error_count: 2, timeout_count: 1, replayed_count: 1 }),
  );
  assertEquals(texts(all.add(dead, back, servers())), [
    "change: 1 request was handed out again",
    "change: process 43 serves it now",
  ]);
});

Deno.test("a server that leaves a disk to the next one is a change, and no death", () => {
  const left = look(1000, device({ server_pid: 0, state: 3, leave_count: 1 }));
  assertEquals(texts(new Happenings().add(look(0, device()), left, servers())), [
    "change: its server has left it: its I/O waits for the next one",
  ]);
});

Deno.test("disks that come and go: a process that died, one that ended, one that lives on", () => {
  const gone = (dead: number[], alive: number[], disk = exported(new Meter())) =>
    texts(new Happenings().add(look(0, disk), look(1000), servers(dead, alive)));
  assertEquals(gone([7], []), ["death: is gone: process 7, which served it, has died"]);
  assertEquals(gone([], []), ["change: is gone: process 7, which served it, has ended"]);
  assertEquals(gone([], [7]), ["error: is gone, or process 7 does not answer"]);
  assertEquals(gone([], [42], device()), ["change: is gone: destroyed"]);
  const came = new Happenings().add(look(0), look(1000, exported(new Meter())), servers());
  assertEquals(texts(came), ["change: is there: 1 MiB, x.img"]);
});

Deno.test("at most 200 happenings are kept, the newest", () => {
  const all = new Happenings();
  for (let i = 0; i < 201; i++) {
    const meter = new Meter();
    all.add(look(i), look(i, exported(meter, { disk: `d${i}` })), servers());
  }
  assertEquals([all.all.length, all.all[0]!.disk, all.all.at(-1)!.disk], [200, "d1", "d200"]);
});
