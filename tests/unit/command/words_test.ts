// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { nearest, quoteWord, splitWords } from "../../../src/command/words.ts";

Deno.test("splitWords() splits as a shell does, and expands nothing", () => {
  const text = `# a disk\n./disk.img?size=1GiB --name 'a b'"c"\\ d \\\n  --x=$HOME "q\\"q" '' # end\nlast#word`;
  assertEquals(splitWords(text), ["./disk.img?size=1GiB", "--name", "a bc d", "--x=$HOME", 'q"q', "", "last#word"]);
  assertEquals(splitWords(" \n# nothing"), []);
  assertThrows(() => splitWords("'open"), UsageError, "without its end");
});

Deno.test("splitWords() reads what quoteWord() writes as one word", () => {
  for (const word of ["plain", "two words", "it's", "", "a?b&c", "#x", "\\", "ü"]) {
    assertEquals(splitWords(`x ${quoteWord(word)} y`), ["x", word, "y"]);
  }
});

Deno.test("nearest() finds what was meant, and nothing where nothing is near", () => {
  const known = ["memory", "file", "serve", "destroy"];
  assertEquals(["memroy", "fiel", "mem", "srve", "zzz"].map((word) => nearest(word, known)), [
    "memory",
    "file",
    "memory",
    "serve",
    undefined,
  ]);
});
