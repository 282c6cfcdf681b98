// SPDX-License-Identifier: MIT
// What a server of the initial ramdisk does by itself: links in its emptied root, and the link that keeps a unit from starting another.
import { assert, assertEquals } from "@std/assert";
import { followRoot, keepUnitsAway } from "../../../src/command/initrd.ts";
import { until } from "../until.ts";

const links = (root: string) =>
  [...Deno.readDirSync(root)].filter((entry) => entry.isSymlink).map(({ name }) => [
    name,
    Deno.readLinkSync(`${root}${name}`),
  ]).sort();

Deno.test("followRoot() makes links to what the kernel shows when the root is emptied, and to nothing else", async () => {
  const root = `${await Deno.makeTempDir()}/`;
  const all = ["dev", "etc", "proc", "run", "sys", "usr"];
  for (const name of all) Deno.mkdirSync(`${root}${name}`);
  using _follows = followRoot(root);
  await new Promise((resolve) => setTimeout(resolve, 250));
  assertEquals(links(root), []);
  // Half of it, and then the rest, as it takes its time; a link that is emptied away as well comes back.
  for (const name of all.slice(0, 3)) Deno.removeSync(`${root}${name}`);
  await until(() => links(root).length === 2);
  assertEquals(links(root), [["dev", "/../dev"], ["proc", "/../proc"]]);
  Deno.removeSync(`${root}dev`);
  for (const name of all.slice(3)) Deno.removeSync(`${root}${name}`);
  await until(() => links(root).length === 4);
  assertEquals(links(root), ["dev", "proc", "run", "sys"].map((name) => [name, `/../${name}`]));
  assertEquals(Deno.statSync(`${root}proc/${Deno.pid}`).isDirectory, true);
  await Deno.remove(root, { recursive: true });
});

Deno.test("keepUnitsAway() has a link for each file, to this process, which replaces a dead server's and goes at the end", async () => {
  const folder = `${await Deno.makeTempDir()}/initrd`;
  Deno.mkdirSync(folder);
  Deno.symlinkSync("/proc/4194304", `${folder}/usr`);
  {
    using _kept = keepUnitsAway(["/etc/dblock/usr", "/etc/dblock/root"], folder);
    assertEquals(["root", "usr"].map((name) => Deno.readLinkSync(`${folder}/${name}`)), [
      `/proc/${Deno.pid}`,
      `/proc/${Deno.pid}`,
    ]);
    // What ConditionPathExists= asks.
    assert(Deno.statSync(`${folder}/usr`).isDirectory);
    // Another server has put its own there meanwhile.
    Deno.removeSync(`${folder}/root`);
    Deno.symlinkSync("/proc/1", `${folder}/root`);
  }
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["root"]);
  await Deno.remove(folder, { recursive: true });
});
