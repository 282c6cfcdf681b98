// SPDX-License-Identifier: MIT
// Source maps are followed to the place that was written. With modules that throw, module_disk_test.ts does it.
import { assertEquals } from "@std/assert";
import { placeInSource } from "../../../src/command/module_place.ts";

Deno.test("placeInSource() follows differences across lines, also back, and numbers of more than one digit", () => {
  // Line 1: 0 -> 1:1, 4 -> 1:5. Line 2 has none. Line 3: 2 -> 41:1, 3 has no source, 10 -> 40:17.
  const mappings = "AAAA,IAAI;;EAwCJ,C,OADgB";
  const at = (line: number, column: number) => {
    const place = placeInSource(mappings, { line, column });
    return place === undefined ? undefined : [place.line, place.column];
  };
  assertEquals([at(1, 1), at(1, 4), at(1, 5), at(1, 99)], [[1, 1], [1, 1], [1, 5], [1, 5]]);
  assertEquals([at(2, 1), at(3, 2), at(3, 3), at(3, 4)], [undefined, undefined, [41, 1], [41, 1]]);
  assertEquals([at(3, 11), at(4, 1), placeInSource("", { line: 1, column: 1 })], [[40, 17], undefined, undefined]);
});
