/**
 * Bundles as scripts: what they export, what `import.meta` is in them, and which stay modules. That they run in an
 * executable as modules do is in executable_test.ts.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { readProgram } from "../../../src/build/program.ts";
import { asScript } from "../../../src/build/without_denort/script.ts";

async function run(code: string, isEntry = false): Promise<unknown> {
  const script = asScript(code, "part.ts", isEntry)!;
  // deno-lint-ignore no-eval -- what an executable does with it
  return await (0, eval)(script.source);
}

Deno.test("asScript() gives all exports, also renamed ones and the default", async () => {
  const code = `const a = await Promise.resolve(1);\nfunction b() {}\nexport {\n  a,\n  b as default,\n  a as c\n};\n`;
  assertEquals(asScript(code, "part.ts", false)!.exports, ["a", "default", "c"]);
  const { a, c, default: b } = await run(code) as { a: number; c: number; default: () => void };
  assertEquals([a, c, b.name], [1, 1, "b"]);
  assertEquals(await run("globalThis.undefinedSoFar ??= 1;"), {});
});

Deno.test("asScript() knows the entry, and is strict as a module is", async () => {
  const code = "const meta = import.meta.main;\nconst self = (function () { return this; })();\nexport { meta, self };";
  assertEquals(await run(code, true), { meta: true, self: undefined });
  assertEquals(await run(code), { meta: false, self: undefined });
});

Deno.test("asScript() leaves names to stack traces, and lines as they are", async () => {
  const { f } = await run("const x = 1;\nfunction f() { return new Error().stack; }\nexport { f };") as { f(): string };
  assertMatch(f(), /at f \(part\.ts.*:2:\d+\)/);
});

Deno.test("asScript() leaves a module that imports something a module, and no text that looks like it", () => {
  const modules = [
    `import { x } from "node:util";\nx();`,
    `const a = 1;\nimport b from 'npm:b';`,
    `import * as c from "node:fs";`,
    `import "node:fs";`,
    `export const d = 1;`,
    `export * from "node:fs";`,
  ];
  for (const code of modules) assertEquals(asScript(code, "part.ts", false), undefined, code);
  for (
    const code of [
      "const importer = 1;",
      `const a = await import("node:fs");`,
      "const b = `\nimport it`;",
      "const t = `\nexport const a = 1;\n`;",
    ]
  ) {
    assertEquals(asScript(code, "part.ts", false)?.exports, [], code);
  }
});

Deno.test("all parts of the program are scripts: as modules they took most of its start", async () => {
  const { parts } = await readProgram(new URL("../../../src/command/program.ts", import.meta.url).pathname);
  const modules = parts.filter(({ code, path }) => asScript(code, path, false) === undefined);
  assertEquals(modules.map(({ path }) => path), []);
});
