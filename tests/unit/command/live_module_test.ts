// SPDX-License-Identifier: MIT
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { LiveModule } from "../../../src/command/live_module.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { testBackend } from "../../../src/disk/testing.ts";
import { readmeExampleOf } from "../readme_example.ts";

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const SIZE = 1 << 20;

/** What the modules of these tests and the tests have in common. */
interface Shared {
  /** Said by modules. */
  readonly said: string[];
  /** Requests to offset 512 are answered when this is. */
  held: Promise<void>;
}
const shared: Shared = (globalThis as unknown as { liveTest: Shared }).liveTest = { said: [], held: Promise.resolve() };

/**
 * A version of a disk that keeps its content in a variable: block 0 reads as its name.
 *
 * @param more of its disk, after what all have
 */
function version(name: number, more = ""): string {
  return `
    import type { Backend } from "@dblock/dblock";
    const { said } = globalThis.liveTest;
    export default function ({ sizeBytes }: { sizeBytes: number }, store: Uint8Array = new Uint8Array(sizeBytes)): Backend {
      return {
        sizeBytes,
        async read(buffer, offset): Promise<void> {
          if (offset === 512) await globalThis.liveTest.held;
          buffer.set(store.subarray(offset, offset + buffer.length));
          if (offset === 0) buffer[0] = ${name};
        },
        async write(buffer, offset): Promise<void> {
          await new Promise((resolve) => setTimeout(resolve, 1));
          store.set(buffer, offset);
        },
        flush(): void {},
        handOver: () => store,
        close: (reason) => void said.push("${name} " + reason),
        ${more}
      };
    }`;
}

/** A live module in a folder of its own. */
class Trial implements AsyncDisposable {
  readonly disk: LiveModule;
  readonly lines: string[];
  readonly #dir: string;

  private constructor(dir: string, disk: LiveModule, lines: string[]) {
    this.#dir = dir;
    this.disk = disk;
    this.lines = lines;
  }

  static async open(
    text: string,
    options: { pauseMaxMs?: number; files?: Record<string, string> } = {},
  ): Promise<Trial> {
    const dir = await Deno.makeTempDir({ prefix: "dblock live " });
    const lines: string[] = [];
    try {
      shared.said.length = 0;
      shared.held = Promise.resolve();
      for (const [name, file] of Object.entries(options.files ?? {})) await Deno.writeTextFile(`${dir}/${name}`, file);
      await Deno.writeTextFile(`${dir}/disk.ts`, text);
      const { pauseMaxMs = 60_000 } = options;
      const add = (line: string) => void lines.push(line.replaceAll(dir, "."));
      const given = { sizeBytes: SIZE };
      const disk = await LiveModule.open(`${dir}/disk.ts`, given, { pauseMaxMs, say: add, complain: add });
      return new Trial(dir, disk, lines);
    } catch (error) {
      await Deno.remove(dir, { recursive: true });
      throw error;
    }
  }

  /** Writes a file, and waits for what is said about it. */
  async change(text: string, name = "disk.ts"): Promise<string> {
    const before = this.lines.length;
    await Deno.writeTextFile(`${this.#dir}/${name}`, text);
    while (this.lines.length === before) await sleep(5);
    return this.lines.at(-1)!;
  }

  async read(offsetBytes: number): Promise<number> {
    const buffer = new Uint8Array(512);
    await this.disk.read(buffer, offsetBytes, requestOptions());
    return buffer[0]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disk.close("destroyed");
    await Deno.remove(this.#dir, { recursive: true });
  }
}

Deno.test("new code goes on with what the old code hands over, and requests meanwhile see no error", async () => {
  await using trial = await Trial.open(version(1));
  let isOver = false;
  let count = 0;
  const work = Promise.all(Array.from({ length: 8 }, async (_, worker) => {
    for (let round = 1; !isOver; round++, count++) {
      const [at, value] = [4096 * (1 + worker), round % 256];
      await trial.disk.write(new Uint8Array(512).fill(value), at, requestOptions());
      assertEquals(await trial.read(at), value);
    }
  }));
  for (let next = 2; next <= 6; next++) {
    assertStringIncludes(
      await trial.change(version(next)),
      `/disk.ts: version ${next} serves now; requests waited for `,
    );
    assertEquals(await trial.read(0), next);
  }
  isOver = true;
  await work;
  assert(count > 8);
  assertEquals(trial.disk.version, 6);
  assertEquals(shared.said, [1, 2, 3, 4, 5].map((number) => `${number} replaced`));
});

Deno.test("the example of src/README.md keeps its content and its count from one version to the next", async () => {
  const text = (await readmeExampleOf("Code that reloads")).replace(
    "return {",
    "globalThis.liveTest.state = state; return {",
  );
  const written = () => (shared as Shared & { state: { writes: number } }).state.writes;
  await using trial = await Trial.open(text);
  for (const count of [1, 2]) {
    await trial.disk.write(new Uint8Array(512).fill(7), 4096 * count, requestOptions());
    assertEquals([written(), await trial.read(4096), trial.disk.version], [count, 7, count]);
    if (count === 1) await trial.change(`${text}// another version`);
  }
});

Deno.test("what the old code has is answered by it, and what comes meanwhile by the new code", async () => {
  await using trial = await Trial.open(version(1));
  const held = Promise.withResolvers<void>();
  shared.held = held.promise;
  const first = trial.read(512);
  const changed = trial.change(version(2));
  // Asked all the time; from the pause on, unanswered.
  const answers: number[] = [];
  let open = 0;
  for (let i = 0; i < 100 && open < 5; i++) {
    open++;
    void trial.read(0).then((answer) => {
      open--;
      answers.push(answer);
    });
    await sleep(10);
  }
  assertEquals([open >= 5, trial.disk.version, answers.includes(2)], [true, 1, false]);
  held.resolve();
  await first;
  await changed;
  while (open > 0) await sleep(1);
  assertEquals(answers.slice(-5), [2, 2, 2, 2, 2]);
});

Deno.test("a file that the module imports is watched, also one that was missing", async () => {
  const text = version(1).replace("const { said }", 'import { name } from "./name.ts"; const { said }')
    .replace("buffer[0] = 1", "buffer[0] = name");
  await using trial = await Trial.open(text, { files: { "name.ts": "export const name: number = 7;" } });
  assertEquals(await trial.read(0), 7);
  await trial.change("export const name: number = 8;", "name.ts");
  assertEquals(await trial.read(0), 8);
  assertStringIncludes(await trial.change(text.replace("./name.ts", "./other.ts")), "/other.ts; version 2 goes on");
  await sleep(400);
  assertEquals(trial.lines.length, 2); // it is said once
  await trial.change("export const name: number = 9;", "other.ts");
  assertEquals(await trial.read(0), 9);
});

/** Code that cannot take over, and what is said. */
const WRONG: readonly [what: string, text: string, said: string][] = [
  ["does not parse", "export default {", "Cannot load ./disk.ts: ./disk.ts:1:"],
  ["has no default export", "export const disk = 1;", "it has no default export"],
  ["fails while it is loaded", "throw new TypeError('at once');", "at once"],
  ["imports a package", 'import "npm:left-pad";', "which dblock does not download (make one file of it: deno bundle "],
  [
    "throws when it is to make the disk",
    "export default () => { throw new Error('no store'); };",
    "threw Error: no store",
  ],
  ["makes no disk", "export default () => 5;", "what it exports makes no disk"],
  ["cannot hand over", version(2).replace("handOver:", "handover:"), "its disk has no handOver(), so what it keeps"],
  [
    "takes nothing over",
    "export default { sizeBytes: 1048576, read() {}, write() {}, handOver() {} }",
    "is no function",
  ],
  [
    "has another size",
    version(2, "sizeBytes: 4096,"),
    "its disk's sizeBytes is 4096, and was 1048576 (a disk that is used",
  ],
  ["has other blocks", version(2, "limits: { blockBytes: 4096 },"), "its disk's blockBytes is 4096, and was 512"],
  ["has impossible blocks", version(2, "limits: { blockBytes: 5 },"), "blockBytes is a power of two"],
  ["has a callback more", version(2, "discard() {},"), "its disk has discard(), and had not"],
  ["has a callback less", version(2, "flush: undefined,"), "its disk has no flush(), and had"],
  ["may only be read", version(2, "readOnly: true,"), "its disk's readOnly is true, and was false"],
];

for (const [what, text, said] of WRONG) {
  Deno.test(`code that ${what} changes nothing, and one line says why`, async () => {
    await using trial = await Trial.open(version(1));
    const line = await trial.change(text);
    assertStringIncludes(line, said);
    assertStringIncludes(line, "; version 1 goes on");
    assertEquals([await trial.read(0), line.includes("\n"), trial.lines.length], [1, false, 1]);
    assertEquals(shared.said.filter((closed) => closed !== "2 replaced"), []);
    assertStringIncludes(await trial.change(version(3)), "version 2 serves now");
    assertEquals(await trial.read(0), 3);
  });
}

Deno.test("a disk that cannot hand over is not watched, unless it is read only", async () => {
  const without = version(1).replace("handOver:", "handover:");
  const error = await assertRejects(() => Trial.open(without), DblockError);
  assertStringIncludes(error.message, "its disk has no handOver(), so what it keeps in variables would be lost");
  assertStringIncludes(error.message, "type into its disk: handOver: () => store");
  assertEquals(shared.said, ["1 unused"]);
  await using trial = await Trial.open(without.replace("sizeBytes,", "sizeBytes, readOnly: true,"));
  assertEquals(await trial.read(0), 1);
});

Deno.test("the old code goes on if it does not answer in time, or cannot hand over", async () => {
  await using trial = await Trial.open(version(1, "handOver() { throw new Error('not now'); },"), { pauseMaxMs: 200 });
  assertStringIncludes(await trial.change(version(2)), "handOver() threw Error: not now; version 1 goes on");
  const held = Promise.withResolvers<void>();
  shared.held = held.promise;
  const first = trial.read(512);
  const line = await trial.change(version(3));
  assertStringIncludes(
    line,
    "what was asked is not answered after 0.2 s (save the file again to try again); version 1 ",
  );
  assertEquals(await trial.read(0), 1);
  held.resolve();
  await first;
});

Deno.test("a new version that comes too late is closed, and what it was handed stays with the old one", async () => {
  await using trial = await Trial.open(version(1), { pauseMaxMs: 200 });
  const held = Promise.withResolvers<void>();
  shared.held = held.promise;
  await trial.disk.write(new Uint8Array(512).fill(5), 4096, requestOptions());
  const late = version(2).replace("export default function", "export default async function")
    .replace("return {", "await globalThis.liveTest.held; return {").replace("): Backend", "): Promise<Backend>");
  assertStringIncludes(await trial.change(late), "the default export has not returned after 0.2 s");
  held.resolve();
  while (shared.said.length === 0) await sleep(5);
  assertEquals([shared.said, await trial.read(0), await trial.read(4096)], [["2 replaced"], 1, 5]);
});

Deno.test("a flush that fails between two versions is told to whoever flushes next, once", async () => {
  await using trial = await Trial.open(
    version(1, "flush() { if (said.length++ === 0) throw Object.assign(new Error('full'), { code: 'ENOSPC' }); },"),
  );
  assertStringIncludes(await trial.change(version(2)), "flush() threw Error: full; version 1 goes on");
  const error = await assertRejects(async () => await trial.disk.flush?.(requestOptions()), Error, "full");
  assertEquals((error as Error & { code: string }).code, "ENOSPC");
  await trial.disk.flush?.(requestOptions());
  await trial.change(version(3));
  assertEquals(await trial.read(0), 3);
});

Deno.test("a version that throws in close() is replaced all the same, and a line says it", async () => {
  await using trial = await Trial.open(version(1, "close() { throw new Error('stays'); },"));
  await trial.change(version(2));
  while (trial.lines.length < 2) await sleep(5);
  assertStringIncludes(trial.lines[0]!, "close() threw Error: stays");
  assertEquals([trial.lines.length, await trial.read(0)], [2, 2]);
});

Deno.test("the next version is told the size that the disk has by now", async () => {
  const resizable = (name: number) =>
    version(name).replace("sizeBytes,", "get sizeBytes() { return store.length; },")
      .replace("return {", "said.push('given ' + sizeBytes); return {")
      .replace(
        "handOver:",
        "resize(bytes: number) { const old = store; store = new Uint8Array(bytes); store.set(old); }, handOver:",
      );
  await using trial = await Trial.open(resizable(1));
  await trial.disk.resize?.(2 * SIZE);
  await trial.change(resizable(2));
  assertEquals([shared.said, trial.disk.sizeBytes], [[`given ${SIZE}`, `given ${2 * SIZE}`, "1 replaced"], 2 * SIZE]);
});

Deno.test("close() ends a pause, and no version but the last is asked", async () => {
  const trial = await Trial.open(version(1));
  const held = Promise.withResolvers<void>();
  shared.held = held.promise;
  const first = trial.read(512);
  const changed = trial.change(version(2));
  let waiting: Promise<number>;
  for (;;) {
    waiting = trial.read(0);
    if (await Promise.race([waiting, sleep(50)]) === undefined) break;
    await sleep(10);
  }
  await trial[Symbol.asyncDispose]();
  assertEquals(shared.said, ["1 destroyed"]);
  await assertRejects(() => waiting, DblockError, "the disk is closed");
  held.resolve();
  await first;
  trial.lines.push("ended");
  await changed;
});

testBackend("a module that is watched", async () => {
  const dir = await Deno.makeTempDir({ prefix: "dblock live " });
  await Deno.writeTextFile(`${dir}/disk.ts`, version(0).replace("if (offset === 0) buffer[0] = 0;", ""));
  const disk = await LiveModule.open(`${dir}/disk.ts`, { sizeBytes: SIZE }, {
    pauseMaxMs: 10_000,
    say: () => {},
    complain: () => {},
  });
  await Deno.remove(dir, { recursive: true });
  return disk;
});
