// SPDX-License-Identifier: MIT
// Few lines about many events of a kind.
import { assertEquals } from "@std/assert";
import { FewLines } from "../../../src/disk/limiter.ts";

Deno.test("FewLines: the first line of a kind at once, the next one after ten seconds with the count, the rest at the end", () => {
  const said: string[] = [];
  let nowMs = 0;
  const lines = new FewLines((line) => said.push(line), () => nowMs);
  for (; nowMs < 9_999; nowMs += 100) lines.add(`bad block ${nowMs}`);
  lines.add("something else");
  nowMs = 10_000;
  lines.add("bad block 10000");
  assertEquals(said.splice(0), ["bad block 0", "something else", "bad block 10000; 99 more in the 10 s before"]);
  nowMs = 12_000;
  for (let i = 1; i <= 3; i++) lines.add(`bad block ${i}`);
  lines.end();
  lines.end();
  assertEquals(said, ["bad block 3; 3 more in the last 2 s"]);
});

Deno.test("FewLines: lines that differ each time are few, and a log that throws ends nothing", () => {
  let count = 0;
  const lines = new FewLines(() => {
    count++;
    throw new Error("no room");
  }, () => 0);
  for (let i = 0; i < 10_000; i++) lines.add(`${i}`.replaceAll(/\d/g, (digit) => "abcdefghij"[Number(digit)]!));
  assertEquals(count, 65);
  lines.end();
  assertEquals(count, 66);
});
