// SPDX-License-Identifier: MIT
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { openModule } from "../../../src/command/module_disk.ts";
import { loadModule } from "../../../src/command/module_loader.ts";
import { MODULE_EXAMPLE } from "../../../src/command/serve.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";

const DISK = "{ sizeBytes: 4096, read(buffer: Uint8Array) { buffer.fill(7); }, write() {} }";

async function withFiles(files: Readonly<Record<string, string>>, use: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "dblock module " });
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${dir}/${name}`, text);
    await use(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("openModule() gives the parameters to the default export, and a size as a number", async () => {
  const text = `
    import { DblockError, type Backend } from "jsr:@dblock/dblock@^0.1.0";
    import { seven } from "./lib.ts";
    enum Fill { One = 1 }
    interface Given { sizeBytes: number; fill: string }
    export default async ({ sizeBytes, fill }: Given): Promise<Backend> => ({
      sizeBytes,
      read(buffer) { buffer.fill(Number(fill) + seven() + Fill.One); },
      write() { throw new DblockError("ENOSPC", import.meta.filename); },
    });`;
  await withFiles({ "disk.ts": text, "lib.ts": "export const seven = (): number => 7;" }, async (dir) => {
    const disk = await openModule(`${dir}/disk.ts`, new Map([["size", "1MiB"], ["fill", "2"]]));
    const buffer = new Uint8Array(2);
    await disk.read(buffer, 0, requestOptions());
    assertEquals([disk.sizeBytes, ...buffer], [2 ** 20, 10, 10]);
    const write = async () => await disk.write(buffer, 0, requestOptions());
    const error = await assertRejects(write, DblockError); // this program's class, and not another one of that name
    assertEquals([error.code, error.attempted], ["ENOSPC", `${dir}/disk.ts`]);
  });
});

Deno.test("openModule() loads what the files are now, also those that the module imports", async () => {
  const main = `import { fill } from "./lib.js"; export default ${DISK.replace("7", "fill")}`;
  await withFiles({ "disk.ts": main, "lib.js": "export const fill = 1;" }, async (dir) => {
    const read = async () => {
      const buffer = new Uint8Array(1);
      await (await openModule(`${dir}/disk.ts`, new Map())).read(buffer, 0, requestOptions());
      return buffer[0];
    };
    const first = await read();
    await Deno.writeTextFile(`${dir}/lib.js`, "export const fill = 2;");
    assertEquals([first, await read()], [1, 2]);
    await Deno.writeTextFile(`${dir}/lib.js`, "export const fill = 1;");
    assertEquals(await read(), 1);
    const files = new Map();
    await loadModule(`${dir}/disk.ts`, files);
    assertEquals([...files.keys()], [`${dir}/disk.ts`, `${dir}/lib.js`]);
  });
});

Deno.test("loadModule() loads TypeScript, also later, and names the file of a mistake", async () => {
  const text = `
    import { DblockError, type Backend } from "@dblock/dblock";
    import { value } from "./lib.ts";
    import json from "./values.json" with { type: "json" };
    import { sep } from "node:path";
    enum Kind { One = 1 }
    class Box { constructor(readonly content: number) {} }
    export const made: readonly unknown[] = [value as number, json.two, Kind.One, new Box(4).content, DblockError.name, sep];
    export const later = async (): Promise<number> => (await import("./later.ts")).value + json.two;
    export const named = async (name: string): Promise<unknown> => await import(\`./\${name}\`);
    export type Unused = Backend;`;
  const files = {
    "disk.ts": text,
    "lib.ts": "export const value: number = 3;",
    "later.ts": 'import { value as three } from "./lib.ts"; export const value = three + 1;',
    "values.json": '{ "two": 2 }',
  };
  await withFiles(files, async (dir) => {
    const marks = new Map();
    const loaded = await loadModule(`${dir}/disk.ts`, marks);
    assertEquals(loaded.made, [3, 2, 1, 4, "DblockError", "/"]);
    assertEquals([...marks.keys()].sort(), ["disk.ts", "lib.ts", "values.json"].map((name) => `${dir}/${name}`));
    const later = loaded.later as () => Promise<number>;
    assertEquals(await Promise.all([later(), later(), later()]), [6, 6, 6]);
    assertEquals(marks.has(`${dir}/later.ts`), true);
    const named = loaded.named as (name: string) => Promise<Readonly<Record<string, unknown>>>;
    assertEquals((await named("values.json")).default, { two: 2 });
    await assertRejects(() => named("no.ts"), DblockError, "there is no file");
    await Deno.writeTextFile(`${dir}/lib.ts`, "export const other = 3;\n");
    await assertRejects(
      () => loadModule(`${dir}/disk.ts`),
      DblockError,
      "./lib.ts' does not provide an export named 'value'",
    );
    await Deno.writeTextFile(`${dir}/lib.ts`, "export const value = ;\n");
    await assertRejects(() => loadModule(`${dir}/disk.ts`), DblockError, `${dir}/lib.ts:1:22: `);
  });
});

Deno.test("loadModule() loads files that import each other", async () => {
  const files = {
    "disk.ts": `
      import { depth, odd } from "./odd.ts";
      export { depth };
      export function even(n: number): boolean { return n === 0 || odd(n - 1); }
      export let calls = 0;
      export const call = (): void => { calls++; };`,
    "odd.ts": `
      import { call, calls, even } from "./disk.ts";
      import * as self from "./odd.ts";
      export function odd(n: number): boolean { call(); return n !== 0 && even(n - 1); }
      export const depth = (): number[] => [calls, Object.keys(self).length];`,
  };
  await withFiles(files, async (dir) => {
    for (let load = 0; load < 2; load++) { // each with a state of its own
      const { even, depth } = await loadModule(`${dir}/disk.ts`) as { even(n: number): boolean; depth(): number[] };
      assertEquals([even(6), even(5), ...depth()], [true, false, 6, 2]);
    }
  });
});

Deno.test("import.meta says where a file is, also to find others beside it", async () => {
  const text = `
    const beside = new URL("./data file.txt", import.meta.url);
    export default { sizeBytes: 512, read() {}, write() {}, said: [
      import.meta.url, import.meta.filename, import.meta.dirname, import.meta.main, import.meta.resolve("./x.ts"),
      await Deno.readTextFile(beside),
    ] };`;
  await withFiles({ "my disk.ts": text, "data file.txt": "here" }, async (dir) => {
    const { said } = await openModule(`${dir}/my disk.ts`, new Map()) as unknown as { said: unknown[] };
    const url = `file://${encodeURI(dir)}`;
    assertEquals(said, [`${url}/my%20disk.ts`, `${dir}/my disk.ts`, dir, false, `${url}/x.ts`, "here"]);
  });
});

Deno.test("openModule() takes JSON, and knows files by names with blanks", async () => {
  const text = `import sizes from "./my sizes.json" with { type: "json" };
    export { default as again } from "./my sizes.json" with { type: "json" };
    export default () => ({ sizeBytes: sizes.size, read() {}, write() {} });`;
  await withFiles({ "disk.ts": text, "my sizes.json": '{ "size": 1024 }' }, async (dir) => {
    assertEquals((await openModule(`${dir}/disk.ts`, new Map())).sizeBytes, 1024);
    await Deno.writeTextFile(`${dir}/my sizes.json`, '{ "size": }');
    await assertRejects(() => openModule(`${dir}/disk.ts`, new Map()), DblockError, "my sizes.json: Unexpected token");
  });
});

Deno.test("a module that is loaded again has a state of its own", async () => {
  const text = "let count = 0; export default () => ({ sizeBytes: ++count * 512, read() {}, write() {} });";
  await withFiles({ "disk.ts": text }, async (dir) => {
    const sizes = [];
    for (let i = 0; i < 2; i++) sizes.push((await openModule(`${dir}/disk.ts`, new Map())).sizeBytes);
    assertEquals(sizes, [512, 512]);
  });
});

/** What is wrong in a module, and what is said. */
const WRONG: readonly [what: string, text: string, said: string][] = [
  ["no default export", "export const disk = 1;", "it has no default export (type into it: export default"],
  ["a default export that makes nothing", "export default () => 5;", "what it exports makes no disk"],
  ["a disk without read()", "export default { sizeBytes: 512, write() {} };", "its disk has no read()"],
  ["a disk without write()", "export default { sizeBytes: 512, read() {} };", "its disk has no write()"],
  ["a disk without a size", "export default (p: object) => ({ ...p, read() {}, write() {} });", "give it: ?size=1GiB"],
  ["a syntax error", "export default {", "disk.ts:1:"],
  ["a factory that throws", "export default () => { throw new Error('no store'); };", "threw Error: no store"],
  ["an import from npm", 'import "npm:left-pad"; export default 1;', "deno bundle"],
  [
    "an import beside one of this package",
    'import { DblockError } from "jsr:@dblock/dblock@1"; import "npm:left-pad"; export default DblockError;',
    "/disk.ts' -o disk.js --external jsr:@dblock/dblock@1, and serve ./disk.js",
  ],
  ["an import from JSR", 'import * as x from "jsr:@std/fs"; export default x;', "dblock does not download"],
  ["an import of a web page", 'import x from "https://example.org/x.ts"; export default x;', "deno bundle"],
  ["an import by a bare name", 'import x from "left-pad"; export default x;', "only files can be imported"],
  ["an import of a file that is missing", 'import x from "./no.ts"; export default x;', "no.ts"],
  ["an import of what is not exported", 'import { no } from "./ok.ts"; export default no;', "no"],
  [
    "a use of what comes later in a circle",
    'import "./circle.ts"; export const late = 1;',
    "'late' before initialization",
  ],
  [
    "an import from npm that comes first",
    'import "npm:left-pad"; import { DblockError } from "@dblock/dblock"; export default DblockError;',
    "/disk.ts' -o disk.js --external @dblock/dblock, and serve ./disk.js",
  ],
  [
    "an import from npm in another file than that of this package",
    'import { lib } from "./lib.ts"; import { DblockError } from "@dblock/dblock"; export default [lib, DblockError];',
    "/disk.ts' -o disk.js --external @dblock/dblock --external jsr:@dblock/dblock@1, and serve ./disk.js",
  ],
  [
    "an import of the tests of this package",
    'import "jsr:@dblock/dblock@1/testing"; export default 1;',
    "it imports jsr:@dblock/dblock@1/testing, which is for tests (test the disk in a file of its own",
  ],
  [
    "an import of no part of this package",
    'import "@dblock/dblock/more"; export default 1;',
    "it imports @dblock/dblock/more, which is no part of this package (there are: @dblock/dblock and @dblock/dblock/cli)",
  ],
  ["a mistake in JavaScript", 'import "./bad.js"; export default 1;', "/bad.js: "],
  ["code that throws", "throw new TypeError('at once');", "at once"],
];

for (const [what, text, said] of WRONG) {
  Deno.test(`openModule() says in one line what to do about ${what}`, async () => {
    const files = {
      "disk.ts": text,
      "ok.ts": "export const ok = 1;",
      "bad.js": "const = 5;",
      "lib.ts": 'import "npm:left-pad"; import "./more.ts"; export const lib = 1;',
      "more.ts":
        'import { DblockError } from "jsr:@dblock/dblock@1"; import "./lib.ts"; export const more = DblockError;',
      "circle.ts": 'import { late } from "./disk.ts"; late;',
    };
    await withFiles(files, async (dir) => {
      const { message } = await assertRejects(() => openModule(`${dir}/disk.ts`, new Map()), DblockError);
      assertStringIncludes(message, `Cannot load ${dir}/disk.ts: `);
      assertStringIncludes(message, said);
      assertEquals([message.includes("\n"), message.includes("base64")], [false, false]);
    });
  });
}

const THROWS = `// Types and comments are gone in the code that runs.

interface Given { readonly sizeBytes: number }

enum Kind { One = 1 }

export class Store {
  constructor(readonly given: Given) {}

  check(): never { throw new TypeError(\`at \${Kind.One}\`); }
}
`;

Deno.test("code that throws while it is loaded, or while it makes its disk, is named with file, line and column", async () => {
  const saidBy = async (files: Readonly<Record<string, string>>) => {
    let said = "";
    await withFiles(files, async (dir) => {
      const { message } = await assertRejects(() => openModule(`${dir}/disk.ts`, new Map()), DblockError);
      said = message.replaceAll(dir, "DIR");
    });
    return said;
  };
  const use = "new Store({ sizeBytes: 1 }).check();";
  const place = "DIR/disk.ts:10:26";
  assertEquals(await saidBy({ "disk.ts": THROWS + use }), `Cannot load DIR/disk.ts: ${place}: TypeError: at 1`);
  assertEquals(
    await saidBy({ "disk.ts": `${THROWS}export default async (): Promise<unknown> => { await 0; ${use} }` }),
    `Cannot load DIR/disk.ts: ${place}: its default export threw TypeError: at 1`,
  );
  // It is the file in which it was thrown, and a place of JavaScript is the one that runs.
  assertEquals(
    await saidBy({ "disk.ts": 'import "./lib.js"; export default 1;', "lib.js": "\n  null.x;" }),
    "Cannot load DIR/disk.ts: DIR/lib.js:2:8: TypeError: Cannot read properties of null (reading 'x')",
  );
  // Who throws no error says no place.
  assertEquals(await saidBy({ "disk.ts": 'throw "a word";' }), "Cannot load DIR/disk.ts: a word");
});

Deno.test("a module imports @dblock/dblock/cli, and a path with a blank in it is quoted in what is to be typed", async () => {
  const files = {
    "a disk.ts": 'import "npm:left-pad"; export default 1;',
    "disk.ts": 'import { parseSize } from "@dblock/dblock/cli"; export const bytes = parseSize("4KiB");',
  };
  await withFiles(files, async (dir) => {
    assertEquals((await loadModule(`${dir}/disk.ts`)).bytes, 4096);
    const { message } = await assertRejects(() => openModule(`${dir}/a disk.ts`, new Map()), DblockError);
    assertStringIncludes(message, `deno bundle '${dir}/a disk.ts' -o disk.js, and serve ./disk.js`);
  });
});

Deno.test("openModule() says that there is no such file", async () => {
  await assertRejects(
    () => openModule("/nowhere/disk.ts", new Map()),
    DblockError,
    "there is no file /nowhere/disk.ts",
  );
});

Deno.test("the module of serve --help is a disk", async () => {
  await withFiles({ "disk.ts": MODULE_EXAMPLE }, async (dir) => {
    const disk = await openModule(`${dir}/disk.ts`, new Map([["size", "1MiB"]]));
    const [written, read] = [new Uint8Array(4096).fill(7), new Uint8Array(4096)];
    await disk.write(written, 8192, requestOptions());
    await disk.read(read, 8192, requestOptions());
    assertEquals([disk.sizeBytes, read, disk.handOver !== undefined], [2 ** 20, written, true]);
  });
});
