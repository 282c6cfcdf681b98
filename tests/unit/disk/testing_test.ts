// SPDX-License-Identifier: MIT
/** The contract's tests, tested: a right backend passes, and each wrong one is caught by the test that is about its mistake. */
import { assert, assertEquals } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { type BackendTest, backendTests, filterTests, type TestBackendOptions } from "../../../src/disk/testing.ts";
import type { CloseReason } from "../../../src/disk/backend.ts";
import { Filter } from "../../../src/filters/filter.ts";
import { seeds } from "../../sim/random.ts";
import { checkBackend } from "../conformance.ts";
import { Right, type Wrong } from "./right_backend.ts";
import { WRONG } from "./wrong_backends.ts";

const durables = new WeakMap<Backend, () => Backend>();

/** Options with a `reopen()` for backends that hand what is durable to the next one. */
function reopening(wrong: Pick<Wrong, "make" | "options">): { make: () => Backend; options: TestBackendOptions } {
  const open = (durable?: Uint8Array<ArrayBuffer>): Backend => {
    const backend = wrong.make(durable);
    durables.set(backend, () => open(backend.durable.slice()));
    return backend;
  };
  return { make: () => open(), options: { ...wrong.options, reopen: (backend) => durables.get(backend)!() } };
}

/** The names of the tests that fail. */
async function failing(tests: readonly BackendTest[]): Promise<string[]> {
  const [seed = 1] = seeds(1);
  const failed: string[] = [];
  for (const { name, run } of tests) await run(seed).catch(() => failed.push(name));
  return failed;
}

checkBackend("a right backend", () => new Right());

{
  const { make, options } = reopening({ make: (durable) => new Right(durable) });
  checkBackend("a right backend that can be opened again", make, options);
}

Deno.test("there are more than 20 wrong backends, each with another mistake", () => {
  assert(WRONG.length > 20, `${WRONG.length}`);
  assertEquals(new Set(WRONG.map(({ mistake }) => mistake)).size, WRONG.length);
});

for (const wrong of WRONG) {
  Deno.test(`the kit catches it: ${wrong.mistake}`, async () => {
    const { make, options } = reopening(wrong);
    const tests = backendTests(make, options);
    const [expected] = tests.filter(({ name }) => name.startsWith(wrong.caughtBy));
    assert(expected !== undefined, `there is no test "${wrong.caughtBy}"`);
    assertEquals(await failing([expected]), [expected.name]);
  });
}

/** Filters with one mistake each. */
const WRONG_FILTERS: readonly { mistake: string; caughtBy: string; wrap: (backend: Backend) => Backend }[] = [
  {
    mistake: "it forgets what its backend is",
    caughtBy: "passes on what its backend is",
    wrap: (backend) => ({
      sizeBytes: backend.sizeBytes,
      read: (...range) => backend.read(...range),
      write: (...range) => backend.write(...range),
      close: (reason) => backend.close?.(reason),
    }),
  },
  {
    mistake: "it has a discard although its backend has none",
    caughtBy: "has the callbacks",
    wrap: (backend) =>
      new class extends Filter {
        override readonly discard = () => {};
      }(backend),
  },
  {
    mistake: "it hides its backend's figures",
    caughtBy: "passes on its backend's figures() and handOver()",
    wrap: (backend) =>
      new class extends Filter {
        override figures() {
          return [];
        }
      }(backend),
  },
  {
    mistake: "it has a handOver() although its backend has none",
    caughtBy: "passes on its backend's figures() and handOver()",
    wrap: (backend) =>
      new class extends Filter {
        override readonly handOver = () => undefined;
      }(backend),
  },
  {
    mistake: "it swallows errors",
    caughtBy: "passes on how its backend fails",
    wrap: (backend) =>
      new class extends Filter {
        protected override async ask(_: unknown, next: () => void | number | Promise<void | number>) {
          return await Promise.resolve().then(next).catch(() => {});
        }
      }(backend),
  },
  {
    mistake: "it takes a short count for a whole one",
    caughtBy: "passes on how its backend fails",
    wrap: (backend) =>
      new class extends Filter {
        protected override async ask(_: unknown, next: () => void | number | Promise<void | number>) {
          await next();
        }
      }(backend),
  },
  {
    mistake: "it does not close its backend",
    caughtBy: "closes its backend once",
    wrap: (backend) =>
      new class extends Filter {
        override close() {}
      }(backend),
  },
  {
    mistake: "it closes its backend with another reason",
    caughtBy: "closes its backend once",
    wrap: (backend) =>
      new class extends Filter {
        override close(_: CloseReason) {
          return super.close("destroyed");
        }
      }(backend),
  },
  {
    mistake: "it asks for more at once than its backend takes",
    caughtBy: "4096-byte blocks, small requests: reads what was written at its edges",
    wrap: (backend) =>
      new class extends Filter {
        override get limits() {
          return { blockBytes: 4096 };
        }
      }(backend),
  },
  {
    mistake: "it answers a flush without asking its backend",
    caughtBy: "keeps what was flushed",
    wrap: (backend) =>
      new class extends Filter {
        protected override onFlush() {}
      }(backend),
  },
];

for (const { mistake, caughtBy, wrap } of WRONG_FILTERS) {
  Deno.test(`the kit catches a filter: ${mistake}`, async () => {
    const [expected] = filterTests(wrap).filter(({ name }) => name.startsWith(caughtBy));
    assert(expected !== undefined, `there is no test "${caughtBy}"`);
    assertEquals(await failing([expected]), [expected.name]);
  });
}

/** Runs a test file with this text, `./testing.ts` in it being the kit. Returns what it said. */
async function runTests(
  code: string,
  run: (
    test: (args?: readonly string[], env?: Record<string, string>) => Promise<string>,
    file: string,
  ) => Promise<void>,
): Promise<void> {
  const file = await Deno.makeTempFile({ suffix: "_test.ts" });
  const deno = new URL("../../../src/build/deno.sh", import.meta.url).pathname;
  const testing = new URL("../../../src/disk/testing.ts", import.meta.url).href;
  try {
    await Deno.writeTextFile(file, code.replace('"./testing.ts"', JSON.stringify(testing)));
    await run(async (args = [], env = {}) => {
      const command = new Deno.Command(deno, {
        args: ["test", "-A", "--no-check", ...args, file],
        env: { NO_COLOR: "1", ...env },
      });
      const { stdout, stderr } = await command.output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    }, file);
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("the kit says which seed repeats a failure", async () => {
  const code = `import { testBackend } from "./testing.ts";
    testBackend("it's wrong", () => ({ sizeBytes: 2 ** 20, read: (b) => void b.fill(0), write: () => {} }));`;
  await runTests(code, async (test, file) => {
    const said = await test();
    const name = "it's wrong: reads what was written, zeroed and discarded by chance";
    assert(said.includes(`${name} ... FAILED`), said);
    const quoted = name.replaceAll("'", `'\\''`);
    const line = said.split("\n").find((line) => line.includes(quoted) && line.startsWith("seed "));
    const seed = /^seed (\d+); again with: DBLOCK_SEED=\1 deno test -A --filter '/.exec(line ?? "")?.[1];
    assert(seed !== undefined && line?.endsWith(` '${file}'`), said);
    const again = await test(["--filter", name], { DBLOCK_SEED: seed });
    assert(again.includes(`seed ${seed};`) && again.includes("0 passed | 1 failed"), again);
  });
});

Deno.test("the kit catches it: it leaves a file open, and a timer that is far away", async () => {
  const disk = (open: string, write: string) =>
    `{ ${open}; return { sizeBytes: 8192, read: (b) => void b.fill(0), write: () => { ${write} } }; }`;
  const code = `import { testBackend } from "./testing.ts";
    const zeroes = { content: (buffer) => void buffer.fill(0), rounds: 1 };
    testBackend("file", () => ${disk("Deno.openSync('/dev/null')", "")}, zeroes);
    testBackend("timer", () => ${disk("", "setTimeout(() => {}, 99999)")}, zeroes);
    testBackend("neither", () => ${disk("", "")}, zeroes);`;
  await runTests(code, async (test) => {
    const said = await test();
    assert(said.includes("file: can be closed for each reason, used or not ... FAILED"), said);
    assert(
      said.includes("timer: reads what was written at its edges, in the smallest and the largest requests ... FAILED"),
      said,
    );
    assert(!/^neither: .* FAILED/m.test(said), said);
  });
});

Deno.test("the example of src/disk/README.md passes, with as many tests as it says", async () => {
  const text = await Deno.readTextFile(new URL("../../../src/disk/README.md", import.meta.url));
  const code = /^```ts\n([^]*?)^```$/m.exec(text)?.[1];
  const passed = /^ok \| (\d+) passed \| 0 failed/m.exec(text)?.[1];
  assert(code !== undefined && passed !== undefined);
  await runTests(code, async (test) => {
    const said = await test();
    assert(said.includes(`ok | ${passed} passed | 0 failed`), said);
  });
});
