import { assertEquals } from "@std/assert";
import { fitting } from "../../soak.ts";

const takes = new Map([["short", 10], ["long", 200], ["middle", 60]]);
const files = [...takes.keys()];

Deno.test("fitting() takes all files when there is time for each, and for its VM", () => {
  assertEquals(fitting(files, takes, 270 + 3 * 15), files);
  assertEquals(fitting(files, takes, 270 + 3 * 15 - 1), ["short", "long"]);
});

Deno.test("fitting() passes over what would not end in time", () => {
  assertEquals(fitting(files, takes, 100), ["short", "middle"]);
  assertEquals(fitting(files, takes, 24), []);
  assertEquals(fitting(files, takes, -1), []);
});
