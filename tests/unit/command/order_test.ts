// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { byName } from "../../../src/command/page/order.ts";

Deno.test("byName() counts, and tells apart what differs only in how it is written", () => {
  const names = ["disk10", "disk2", "a.b", "disk1", "Disk1", "disk01", "data"];
  assertEquals(names.toSorted(byName), names.toReversed().toSorted(byName));
  assertEquals(names.toSorted(byName).filter((name) => /^disk[1-9]/.test(name)), ["disk1", "disk2", "disk10"]);
});
