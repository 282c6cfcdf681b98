/**
 * How a program's source is gathered: which modules it refers to by URL, and what is refused.
 * Not covered: what an executable does with it (build_executable_test.ts).
 */
import { assertEquals, assertRejects } from "@std/assert";
import { basename, join } from "node:path";
import { findReferences, readProgram, replaceReferences } from "../../../src/build/program.ts";

async function withFiles(files: Readonly<Record<string, string>>, run: (dir: string) => Promise<void>): Promise<void> {
  const dir = Deno.makeTempDirSync({ prefix: "dblock-program-" });
  try {
    for (const [name, text] of Object.entries(files)) {
      Deno.mkdirSync(join(dir, name, ".."), { recursive: true });
      Deno.writeTextFileSync(join(dir, name), text);
    }
    await run(dir);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

Deno.test("findReferences() finds modules by URL, each once, and nothing else", () => {
  const code = `
    new Worker(new URL("./a.ts", import.meta.url));
    const b = new URL('../b.js', import.meta.url);
    new URL("./a.ts", import.meta.url); new URL("./data.json", import.meta.url);
    new URL("https://example.org/c.ts"); new URL("./d.ts", base);`;
  assertEquals(findReferences(code), ["./a.ts", "../b.js"]);
});

Deno.test("replaceReferences() replaces the whole expression and leaves the rest", () => {
  const code = `f(new URL("./a.ts",import.meta.url),import.meta.url)`;
  assertEquals(replaceReferences(code, (specifier) => `part(${specifier})`), "f(part(./a.ts),import.meta.url)");
});

Deno.test("readProgram() follows references from the file they stand in, and theirs in turn", async () => {
  const files = {
    "main.ts": `import { start } from "./lib/start.ts"; start(new URL("./backend.ts", import.meta.url));`,
    "lib/start.ts":
      `export function start(url: URL) { new Worker(new URL("./worker.ts", import.meta.url)); return url; }`,
    "lib/worker.ts": `import "./deep.ts"; postMessage(new URL("../helper.ts", import.meta.url).href);`,
    "lib/deep.ts": `console.log("deep");`,
    "backend.ts": `export const name = "backend";`,
    "helper.ts": `export const name = "helper";`,
  };
  await withFiles(files, async (dir) => {
    const { parts, inputs } = await readProgram(join(dir, "main.ts"));
    assertEquals(parts[0]?.path, join(dir, "main.ts"));
    assertEquals(parts.map((part) => basename(part.path)).sort(), ["backend.ts", "helper.ts", "main.ts", "worker.ts"]);
    assertEquals(inputs, Object.keys(files).map((name) => join(dir, name)).sort());
  });
});

Deno.test("readProgram() does not take an example in a comment for a reference", async () => {
  const text = `/** Say \`new URL("./yours.ts", import.meta.url)\`. */ export const one = 1; console.log(one);`;
  await withFiles({ "main.ts": text }, async (dir) => {
    assertEquals((await readProgram(join(dir, "main.ts"))).parts.length, 1);
  });
});

Deno.test("readProgram() refuses a reference to a file that is not there", async () => {
  await withFiles({ "main.ts": `new Worker(new URL("./gone.ts", import.meta.url));` }, async (dir) => {
    await assertRejects(
      () => readProgram(join(dir, "main.ts")),
      Error,
      `new URL("./gone.ts", import.meta.url): there is`,
    );
  });
});

Deno.test("readProgram() refuses one name for two files", async () => {
  const files = {
    "main.ts": `import "./a/x.ts"; import "./b/x.ts";`,
    "a/x.ts": `new Worker(new URL("./w.ts", import.meta.url));`,
    "b/x.ts": `new Worker(new URL("./w.ts", import.meta.url));`,
    "a/w.ts": "",
    "b/w.ts": "",
  };
  await withFiles(files, async (dir) => {
    await assertRejects(() => readProgram(join(dir, "main.ts")), Error, "rename one of them");
  });
});

Deno.test("readProgram() says what Deno says about a program that does not parse", async () => {
  await withFiles({ "main.ts": "const = 1;" }, async (dir) => {
    await assertRejects(() => readProgram(join(dir, "main.ts")), Error, "main.ts");
  });
});
