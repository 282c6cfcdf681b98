// SPDX-License-Identifier: MIT
/** The page of `dblock top --web`, as far as it needs no browser: numbers, ticks, the last minutes, the map's pixels. */
import { assert, assertEquals } from "@std/assert";
import { parseSize } from "../../../src/command/cli.ts";
import type { Beginning } from "../../../src/command/lookout.ts";
import type { Description, Moment } from "../../../src/command/moment.ts";
import { paint, spotAt } from "../../../src/command/page/map.ts";
import { type Disk, focusOf, Model } from "../../../src/command/page/model.ts";
import { FIELDS, PIECES } from "../../../src/command/page/terms.ts";
import {
  BYTE_STEPS,
  byteTicks,
  COUNT_STEPS,
  counted,
  countTicks,
  exactBytes,
  formatBytes,
  formatCount,
  formatMs,
} from "../../../src/command/page/units.ts";

Deno.test("numbers for people: three digits, the next unit at 1024 or 1000, one is not many", () => {
  const KIB = 1024;
  assertEquals([0, 1, 512, 1023, 1023.9, KIB, 1536, 10 * KIB, KIB ** 2 - 1, 5 * KIB ** 3].map(formatBytes), [
    ..."0 B,1 B,512 B,1023 B,1 KiB,1 KiB,1.5 KiB,10 KiB,1 MiB,5 GiB".split(","),
  ]);
  assertEquals([0, 0.5, 1, 9.5, 10, 1204, 9999, 10_000, 12_400, 999_950, 1_310_000].map(formatCount), [
    ..."0;0.5;1;9.5;10;1,204;9,999;10 k;12.4 k;1 M;1.31 M".split(";"),
  ]);
  assertEquals([0.0005, 0.001, 0.85, 1, 1.234, 12.34, 999, 3400].map(formatMs), [
    ..."500 ns,1 µs,850 µs,1 ms,1.23 ms,12.3 ms,999 ms,3.4 s".split(","),
  ]);
  // What a dialog begins with must not make a disk smaller.
  assertEquals([512, 1536 * KIB, 1537 * KIB, 64 * KIB ** 2, KIB ** 3].map(exactBytes), [
    ..."512,1536KiB,1537KiB,64MiB,1GiB".split(","),
  ]);
  for (const bytes of [512, 1537 * KIB, 2 ** 40 + 512]) assertEquals(parseSize(exactBytes(bytes)), bytes);
  assertEquals([counted(0, "disk"), counted(1, "disk"), counted(2, "disk")], ["0 disks", "1 disk", "2 disks"]);
});

Deno.test("ticks: steps are 1, 2, 5 of a unit, and all ticks of an axis have the unit of their distance", () => {
  for (const step of BYTE_STEPS) {
    const [, tick = ""] = byteTicks([0, step], step);
    assert(/^[125]0{0,2} ([KMGTPE]iB|B)$/.test(tick), tick);
  }
  for (const step of COUNT_STEPS) assert(/^[125]0{0,2}( [kMG])?$/.test(countTicks([step], step)[0]!), `${step}`);
  const kib = 1024;
  assertEquals(byteTicks([0, 500 * kib, 1000 * kib, 1500 * kib], 500 * kib), ["0", "500 KiB", "1000 KiB", "1500 KiB"]);
  assertEquals(countTicks([0, 5000, 10_000, 15_000], 5000), ["0", "5 k", "10 k", "15 k"]);
  assertEquals(countTicks([0, 500, 1000, 1500], 500), ["0", "500", "1000", "1500"]);
});

const description = (name: string): Description => ({
  key: name,
  name,
  transport: "nbd",
  sizeBytes: PIECES * 4096,
  readOnly: false,
  totals: { errors: 0, deaths: 0 },
});

/** Letters of a map with something at a few pieces. */
const letters = (pieces: Readonly<Record<number, string>>) =>
  Array.from({ length: PIECES }, (_, i) => pieces[i] ?? "0").join("");

const moment = (seconds: number, reads: Readonly<Record<string, number>>): Moment => ({
  timeMs: seconds * 1000,
  disks: Object.keys(reads).map(description),
  activities: Object.fromEntries(
    Object.entries(reads).map(([name, value]) => [name, { numbers: FIELDS.map(() => value), reads: "", writes: "" }]),
  ),
  happenings: [],
  notes: [],
});

const beginning = (past: Moment[]): Beginning => ({
  host: "h",
  version: "0",
  control: false,
  keptMs: 10_000,
  disks: past.at(-1)?.disks ?? [],
  past,
  happenings: [],
  notes: [],
});

Deno.test("Model: columns are as long as times; what is older than the window goes; a gap breaks the lines", () => {
  const model = new Model();
  model.begin(beginning([moment(100, { a: 1 }), moment(101, { a: 2 })]));
  model.add(moment(102, { a: 3, b: 9 }));
  assertEquals(model.times, [100, 101, 102]);
  assertEquals(model.disks.get("a")!.columns.reads, [1, 2, 3]);
  assertEquals(model.disks.get("b")!.columns.reads, [null, null, 9]);
  model.add(moment(108, { a: 4 }));
  assertEquals([...model.disks.keys()], ["a"]); // b has gone
  assertEquals(model.times, [100, 101, 102, 103, 108]);
  assertEquals(model.disks.get("a")!.columns.reads, [1, 2, 3, null, 4]);
  model.add(moment(112.5, { a: 5 }));
  assertEquals(model.times, [103, 108, 109, 112.5]);
  assertEquals(model.disks.get("a")!.columns.maxMs, [null, 4, null, 5]);
  assertEquals(model.disks.get("a")!.writes.length, 4);
  model.add(moment(90, { a: 6 })); // the clock was set back
  assertEquals(model.times.at(-1), 112.5);
});

Deno.test("Model: a page that has seen little shows a minute, later as much as is kept", () => {
  const model = new Model();
  assertEquals(model.shownSeconds, 60);
  model.begin({ ...beginning([moment(100, {})]), keptMs: 300_000 });
  assertEquals(model.shownSeconds, 60);
  model.add(moment(220, {}));
  assertEquals(model.shownSeconds, 120);
  for (let seconds = 221; seconds < 600; seconds++) model.add(moment(seconds, {}));
  assert(model.shownSeconds > 298 && model.shownSeconds <= 300, `${model.shownSeconds}`);
});

Deno.test("Model: a happening that grows is shown once, where it is newest", () => {
  const model = new Model();
  const happening = (number: number, text: string) =>
    ({ number, kind: "error", disk: "a", timeMs: 0, lastMs: 0, count: 1, text }) as const;
  model.begin({ ...beginning([]), happenings: [happening(1, "one"), happening(2, "two")] });
  assertEquals(model.happenings.map(({ text }) => text), ["two", "one"]);
  model.add({ ...moment(1, {}), happenings: [happening(1, "one more"), happening(3, "three")] });
  assertEquals(model.happenings.map(({ text }) => text), ["three", "one more", "two"]);
});

Deno.test("focusOf() finds the smallest run of pieces with half of all bytes", () => {
  const disk = (...reads: string[]) => ({ reads, writes: [""] });
  assertEquals(focusOf(disk("", "")), undefined);
  assertEquals(focusOf(disk(letters({ 7: "5" }))), { firstPiece: 7, lastPiece: 7, share: 1 });
  assertEquals(focusOf(disk(letters({ 0: "5", 100: "5", 101: "5", 102: "5", 255: "5" }))), {
    firstPiece: 100,
    lastPiece: 102,
    share: 0.6,
  });
  const even = focusOf(disk(letters(Object.fromEntries(Array.from({ length: PIECES }, (_, i) => [i, "5"])))));
  assertEquals([even!.firstPiece, even!.lastPiece], [0, PIECES / 2 - 1]);
});

Deno.test("paint(): the newest at the right, the beginning at the bottom, one colour each and one for both", () => {
  const colours = { reads: [1, 0, 0], writes: [0, 2, 0], both: [0, 0, 3] } as const;
  const disk = {
    reads: [letters({ 0: "9" }), "", letters({ 255: "9", 3: "9" })],
    writes: ["", "", letters({ 254: "0", 3: "9", 5: "1" })],
  };
  const seconds = 5;
  const pixels = paint(disk, [10, 11, 12.2], seconds, colours);
  assertEquals(pixels.length, seconds * PIECES * 4);
  const found: string[] = [];
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] === 0) continue;
    const [x, y] = [at / 4 % seconds, Math.floor(at / 4 / seconds)];
    found.push(
      `${x} ${PIECES - 1 - y} ${[...pixels.subarray(at, at + 3)]} ${pixels[at + 3]! > 200 ? "bright" : "faint"}`,
    );
  }
  assertEquals(found.sort(), [
    "2 0 1,0,0 bright",
    "4 255 1,0,0 bright",
    "4 3 0,0,3 bright",
    "4 5 0,2,0 faint",
  ]);
});

Deno.test("spotAt() says what is below the pointer, and nothing outside of the disk", () => {
  const disk: Disk = {
    description: description("a"),
    columns: {} as Disk["columns"],
    reads: [letters({ 2: "1" })],
    writes: [""],
  };
  assertEquals(spotAt(disk, 0, 2 * 4096 + 17), { fromByte: 8192, toByte: 12288, readBytes: 512, writeBytes: 0 });
  assertEquals(spotAt(disk, 0, PIECES * 4096), undefined);
  assertEquals(spotAt(disk, 0, -1), undefined);
  assertEquals(spotAt(disk, 1, 0), undefined);
});
