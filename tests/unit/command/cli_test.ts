// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { formatSize, parseCount, parseSize, parseTimeout, UsageError } from "../../../src/command/cli.ts";

const sizes: [text: string, bytes: number][] = [
  ["4096", 4096],
  ["4096b", 4096],
  ["4K", 4096],
  ["4k", 4096],
  ["512M", 512 * 2 ** 20],
  ["4G", 4 * 2 ** 30],
  ["4GiB", 4 * 2 ** 30],
  ["4gib", 4 * 2 ** 30],
  ["4 GiB", 4 * 2 ** 30],
  ["1.5GiB", 1.5 * 2 ** 30],
  ["0.5K", 512],
  ["4GB", 4e9],
  ["4kB", 4000],
  ["4.1MB", 4_100_000],
  ["1.001GB", 1_001_000_000],
  ["0.0000000010TB", 1000],
  ["2T", 2 * 2 ** 40],
  ["1P", 2 ** 50],
  [" 8M ", 8 * 2 ** 20],
  ["0", 0],
  ["9007199254740991", 2 ** 53 - 1],
  ["9007199254740991.0", 2 ** 53 - 1],
];
for (const [text, bytes] of sizes) {
  Deno.test(`parseSize() reads "${text}"`, () => assertEquals(parseSize(text), bytes));
}

for (
  const text of ["", "x", "-1", "+1", "4X", "4iB", "1e9", "1,5G", "1.G", ".5G", "4GiBs", "4 G B", "0x10", "Infinity"]
) {
  Deno.test(`parseSize() refuses "${text}"`, () => {
    assertThrows(() => parseSize(text), UsageError, `"${text}" is not a size`);
  });
}

Deno.test("parseSize() refuses what is beyond 2^53 - 1 bytes, and parts of a byte", () => {
  assertThrows(() => parseSize("9007199254740992"), UsageError, "is too big");
  assertThrows(() => parseSize("9P"), UsageError, "is too big");
  assertThrows(() => parseSize("1.0001K"), UsageError, "is not a whole number of bytes");
  assertThrows(() => parseSize("4.1M"), UsageError, "is not a whole number of bytes");
  assertThrows(() => parseSize("4.00000000000000000001"), UsageError, "is not a whole number of bytes");
});

Deno.test("formatSize() writes sizes as parseSize() reads them", () => {
  const texts = ["512 bytes", "4 KiB", "512 MiB", "1.5 GiB", "4 GiB", "1000 MiB", "8 TiB"];
  assertEquals(texts.map((text) => formatSize(parseSize(text.replace(" bytes", "")))), texts);
});

Deno.test("parseCount() takes the ends of its range, and nothing past them", () => {
  assertEquals([parseCount("1", "queues", 1, 64), parseCount("64", "queues", 1, 64)], [1, 64]);
  for (const text of ["0", "65", "", "1.5", "-1", "1e1", "two"]) {
    assertThrows(() => parseCount(text, "queues", 1, 64), UsageError, `"${text}" is not a number of queues (1 to 64)`);
  }
});

Deno.test("parseTimeout() takes 0 and 1 to 1,200 s, and nothing past them", () => {
  assertEquals(["0", "1", "30", "1200"].map(parseTimeout), [0, 1000, 30_000, 1_200_000]);
  for (const text of ["1201", "-1", "0.5", "", "never"]) {
    assertThrows(() => parseTimeout(text), UsageError, `"${text}" is not a timeout`);
  }
});

Deno.test("the package's ./cli has all that a command of one's own needs, as its disk's signals", async () => {
  const root = new URL("../../../", import.meta.url);
  const { exports } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", root)));
  const names = Object.keys(await import(new URL(exports["./cli"], root).href));
  const needed = ["abortOnSignals", "becomeIoFlusher", "outliveTerminal", "runCommand", "SIGNALS_HELP", "untilEnded"];
  assertEquals(needed.filter((name) => !names.includes(name)), []);
});
