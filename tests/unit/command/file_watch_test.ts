// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { FileWatch, type Mark, markOf } from "../../../src/command/file_watch.ts";

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Watches two files of a folder, one of which is not there; says what the first one had in it at each change. */
async function watched(
  use: (dir: string, seen: string[], untilSeen: (count: number) => Promise<void>) => Promise<void>,
) {
  const dir = await Deno.makeTempDir({ prefix: "dblock watch " });
  const [file, absent] = [`${dir}/a.ts`, `${dir}/absent.ts`];
  await Deno.writeTextFile(file, "first");
  const seen: string[] = [];
  const look = async () =>
    new Map(await Promise.all([file, absent].map(async (path) => [path, await markOf(path)] as const)));
  let marks: Map<string, Mark> = await look();
  const watch = new FileWatch(() => marks, async () => {
    marks = await look();
    seen.push(await Deno.readTextFile(file).catch(() => "nothing"));
  });
  try {
    await use(dir, seen, async (count) => {
      while (seen.length < count) await sleep(10);
    });
  } finally {
    await watch.close();
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("FileWatch hears of a file that is written, replaced by a rename, or made", () =>
  watched(async (dir, seen, untilSeen) => {
    await Deno.writeTextFile(`${dir}/a.ts`, "again"); // as long as before
    await untilSeen(1);
    await Deno.writeTextFile(`${dir}/a.ts~`, "renamed");
    await Deno.rename(`${dir}/a.ts~`, `${dir}/a.ts`);
    await untilSeen(2);
    await Deno.writeTextFile(`${dir}/absent.ts`, "there");
    await untilSeen(3);
    assertEquals(seen, ["again", "renamed", "renamed"]);
  }));

Deno.test("FileWatch waits for a file that an editor removes or empties before it writes it", () =>
  watched(async (dir, seen, untilSeen) => {
    await Deno.remove(`${dir}/a.ts`);
    await sleep(300);
    await Deno.writeTextFile(`${dir}/a.ts`, "back");
    await untilSeen(1);
    await Deno.writeTextFile(`${dir}/a.ts`, "");
    await sleep(300);
    await Deno.writeTextFile(`${dir}/a.ts`, "full");
    await untilSeen(2);
    await Deno.remove(`${dir}/a.ts`); // for good
    await untilSeen(3);
    assertEquals(seen, ["back", "full", "nothing"]);
  }));

Deno.test("FileWatch hears once of a file that is saved twice, and nothing of others in the folder", () =>
  watched(async (dir, seen, untilSeen) => {
    await Deno.writeTextFile(`${dir}/other`, "1");
    await sleep(400);
    assertEquals(seen, []);
    Deno.writeTextFileSync(`${dir}/a.ts`, "half");
    Deno.writeTextFileSync(`${dir}/a.ts`, "whole");
    await untilSeen(1);
    await sleep(400);
    assertEquals(seen, ["whole"]);
  }));
