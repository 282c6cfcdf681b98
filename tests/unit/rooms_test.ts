// SPDX-License-Identifier: MIT
/** Who may import whom in src/. The rooms are described in src/README.md; a room that is not listed may not exist. */
import { assertEquals } from "@std/assert";
import { dirname, normalize } from "node:path";

const src = new URL("../../src/", import.meta.url);

/** The rooms that a room may import from, besides itself. Files directly in src/ may import from every room. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  disk: [],
  system: ["disk"],
  filters: ["disk", "system"],
  backends: ["disk", "system", "nbd"],
  module: ["disk", "system"],
  nbd: ["disk", "system"],
  command: ["", "disk", "system", "filters", "backends", "module", "nbd"],
  build: ["command", "filters", "module"],
};

interface Import {
  readonly from: string;
  readonly to: string;
}

/** Every relative import of every file below src/, as paths relative to src/. */
function imports(): Import[] {
  const found: Import[] = [];
  const visit = (dir: string): void => {
    for (const entry of Deno.readDirSync(new URL(dir, src))) {
      const path = `${dir}${entry.name}`;
      if (entry.isDirectory) visit(`${path}/`);
      if (!entry.isFile || !path.endsWith(".ts")) continue;
      // A line of a comment is an example, not an import.
      const text = Deno.readTextFileSync(new URL(path, src)).replaceAll(/^ \*.*$/gm, "");
      for (const [, to] of text.matchAll(/(?:from|import|import\(|new URL\()\s*"(\.{1,2}\/[^"]+)"/g)) {
        found.push({ from: path, to: normalize(`${dirname(path)}/${to}`) });
      }
    }
  };
  visit("");
  return found;
}

const roomOf = (path: string): string => path.includes("/") ? path.split("/")[0]! : "";

Deno.test("a file of src/ imports only from the rooms that its room may know", () => {
  const wrong = imports().filter(({ from, to }) => {
    const [room, imported] = [roomOf(from), roomOf(to)];
    if (room === "build" && to.startsWith("../.build/")) return false; // what it has built before
    return room !== "" && room !== imported && !MAY_IMPORT[room]?.includes(imported);
  });
  assertEquals(wrong, []);
});

Deno.test("the check of the rooms sees imports: there are hundreds, and mod.ts imports from each room it exports", () => {
  const all = imports();
  assertEquals(all.length > 100, true, `${all.length} imports`);
  const exported = new Set(all.filter(({ from }) => from === "mod.ts").map(({ to }) => roomOf(to)));
  assertEquals([...exported].sort(), ["backends", "disk", "filters", "module", "nbd", "system"]);
});

Deno.test("every folder of src/ is a room", () => {
  const rooms = [...Deno.readDirSync(src)].filter((entry) => entry.isDirectory).map(({ name }) => name);
  assertEquals(rooms.filter((room) => !(room in MAY_IMPORT)), []);
});
