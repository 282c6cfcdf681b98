/** The stand-in for `@std/fs` and, where JSR answers, the package itself, on a real directory. */
import { assert, assertFalse } from "@std/assert";
import * as std from "@std/fs";
import { join } from "node:path";
import * as standIn from "../../../src/build/standins/fs.ts";

type Library = typeof standIn;

const isReal = std.existsSync !== standIn.existsSync;

function check({ existsSync }: Library): void {
  const root = Deno.makeTempDirSync({ prefix: "dblock-fs-" });
  try {
    Deno.writeTextFileSync(join(root, "file"), "a");
    Deno.symlinkSync("file", join(root, "link"));
    Deno.symlinkSync("nothing", join(root, "dangling"));
    assert(existsSync(root));
    assertFalse(existsSync(root, { isFile: true }));
    assert(existsSync(join(root, "file"), { isFile: true }));
    assert(existsSync(join(root, "link"), { isFile: true }));
    assert(existsSync(new URL(`file://${root}/file`)));
    for (const absent of ["nothing", "dangling"]) assertFalse(existsSync(join(root, absent)));
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

Deno.test("the stand-in's existsSync() tells files, directories and nothing", () => check(standIn));
Deno.test({
  name: `@std/fs's existsSync() tells files, directories and nothing${
    isReal ? "" : " (skipped: JSR does not answer here)"
  }`,
  ignore: !isReal,
  fn: () => check(std as unknown as Library),
});
