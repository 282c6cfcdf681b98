/**
 * The stand-in for `@std/fs` and, where JSR answers, the package itself, on a real directory.
 * Not covered: owners and rights other than "is it readable".
 */
import { assert, assertEquals, assertFalse, assertRejects, assertThrows } from "@std/assert";
import * as std from "@std/fs";
import { join, relative } from "node:path";
import * as standIn from "../../../src/build/standins/fs.ts";

type Library = typeof standIn;

/** A tree with files, a directory, a link to a file and a link to the directory. */
function makeTree(): string {
  const root = Deno.makeTempDirSync({ prefix: "dblock-fs-" });
  Deno.mkdirSync(join(root, "dir/deep"), { recursive: true });
  Deno.writeTextFileSync(join(root, "a.ts"), "a");
  Deno.writeTextFileSync(join(root, "dir/b.txt"), "bb");
  Deno.writeTextFileSync(join(root, "dir/deep/c.ts"), "ccc");
  Deno.symlinkSync("a.ts", join(root, "link"));
  Deno.symlinkSync("dir", join(root, "dirlink"));
  return root;
}

const CASES: Readonly<Record<string, (library: Library, root: string) => unknown>> = {
  "existsSync() tells files, directories and nothing": ({ existsSync }, root) => {
    assert(existsSync(root));
    assert(existsSync(join(root, "a.ts"), { isFile: true }));
    assertFalse(existsSync(join(root, "a.ts"), { isDirectory: true }));
    assertFalse(existsSync(root, { isFile: true }));
    assert(existsSync(root, { isDirectory: true, isReadable: true }));
    assertFalse(existsSync(join(root, "nothing")));
    assertThrows(() => existsSync(root, { isFile: true, isDirectory: true }), TypeError);
  },
  "exists() says the same": async ({ exists }, root) => {
    assert(await exists(join(root, "link"), { isFile: true }));
    assertFalse(await exists(join(root, "nothing")));
  },
  "ensureDir() makes all levels and is content with what is there": async ({ ensureDir, ensureDirSync }, root) => {
    await ensureDir(join(root, "x/y/z"));
    await ensureDir(join(root, "x/y/z"));
    ensureDirSync(join(root, "x/w"));
    assert(Deno.statSync(join(root, "x/y/z")).isDirectory && Deno.statSync(join(root, "x/w")).isDirectory);
  },
  "ensureDir() refuses a name that a file has": async ({ ensureDir }, root) => {
    await assertRejects(() => ensureDir(join(root, "a.ts")), Error);
  },
  "emptyDir() keeps the directory only": async ({ emptyDir, emptyDirSync }, root) => {
    await emptyDir(join(root, "dir"));
    assertEquals([...Deno.readDirSync(join(root, "dir"))], []);
    emptyDirSync(join(root, "new"));
    assert(Deno.statSync(join(root, "new")).isDirectory);
  },
  "walk() visits everything, links as links": async ({ walk, walkSync }, root) => {
    const all = ["", "a.ts", "dir", "dir/b.txt", "dir/deep", "dir/deep/c.ts", "dirlink", "link"];
    assertEquals([...walkSync(root)].map((entry) => relative(root, entry.path)).sort(), all);
    const entries = await Array.fromAsync(walk(root));
    assertEquals(entries.map((entry) => relative(root, entry.path)).sort(), all);
    assertEquals(entries.filter((entry) => entry.isSymlink).map((entry) => entry.name).sort(), ["dirlink", "link"]);
  },
  "walk() keeps to its options": ({ walkSync }, root) => {
    const names = (options: standIn.WalkOptions) => [...walkSync(root, options)].map((entry) => entry.name).sort();
    assertEquals(names({ includeDirs: false, includeSymlinks: false }), ["a.ts", "b.txt", "c.ts"]);
    assertEquals(names({ exts: [".ts"] }), ["a.ts", "c.ts"]);
    assertEquals(names({ maxDepth: 1, includeDirs: false, includeSymlinks: false }), ["a.ts"]);
    assertEquals(names({ skip: [/dir/], includeDirs: false, includeSymlinks: false }), ["a.ts"]);
    assertEquals(names({ match: [/b\.txt$/] }), ["b.txt"]);
  },
  "copy() copies a tree": async ({ copy }, root) => {
    await copy(join(root, "dir"), join(root, "copy"));
    assertEquals(Deno.readTextFileSync(join(root, "copy/deep/c.ts")), "ccc");
  },
  "copy() overwrites only when asked": async ({ copy }, root) => {
    const [a, b] = [join(root, "a.ts"), join(root, "dir/b.txt")];
    await assertRejects(() => copy(a, b), Deno.errors.AlreadyExists);
    await copy(a, b, { overwrite: true });
    assertEquals(Deno.readTextFileSync(b), "a");
  },
  "copy() keeps times when asked": async ({ copy }, root) => {
    Deno.utimeSync(join(root, "a.ts"), 1_000, 2_000);
    await copy(join(root, "a.ts"), join(root, "kept.ts"), { preserveTimestamps: true });
    assertEquals(Deno.statSync(join(root, "kept.ts")).mtime?.getTime(), 2_000_000);
  },
  "copy() does not copy a directory into itself": async ({ copy }, root) => {
    await assertRejects(() => copy(join(root, "dir"), join(root, "dir/deep/dir")), Error);
  },
};

const isReal = std.existsSync !== standIn.existsSync;

async function withTree(run: (root: string) => unknown): Promise<void> {
  const root = makeTree();
  try {
    await run(root);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

for (const [name, run] of Object.entries(CASES)) {
  Deno.test(`the stand-in's ${name}`, () => withTree((root) => run(standIn, root)));
  Deno.test({
    name: `@std/fs's ${name}${isReal ? "" : " (skipped: JSR does not answer here)"}`,
    ignore: !isReal,
    fn: () => withTree((root) => run(std as unknown as Library, root)),
  });
}
