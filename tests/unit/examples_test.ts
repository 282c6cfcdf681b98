// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import { allExamples, examplesRun, LEFT_OUT } from "../device/examples.ts";

Deno.test("every example of the READMEs and of --help is run by device/examples, or left out there for a reason", () => {
  const run = new Set(examplesRun());
  assertEquals(allExamples().filter((example) => !run.has(example) && !(example in LEFT_OUT)), []);
  assertEquals(allExamples().filter((example) => run.has(example) && example in LEFT_OUT), []);
});

Deno.test("nothing is left out that is no example any more", () => {
  const all = new Set(allExamples());
  assertEquals(Object.keys(LEFT_OUT).filter((example) => !all.has(example)), []);
});

Deno.test("the search for examples finds programs, lines of a console, indented and inline ones, and those of --help", () => {
  const all = allExamples();
  assert(all.length > 50, `${all.length} examples`);
  for (
    const example of [
      "src/README.md program 1",
      "mkfs.ext4 /dev/dblockramdisk",
      "dblock serve ./disk.img --nbd unix:/tmp/disk.sock",
      "make soak MINUTES=60",
      "dblock top --json --count 10",
      "dblock-ramdisk --store /dev/shm/a --on-death hold",
      "--with stats",
    ]
  ) assert(all.includes(example), example);
});
