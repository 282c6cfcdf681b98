// SPDX-License-Identifier: MIT
/** The contract's tests, tested: a right backend passes, and each wrong one is caught by the test that is about its mistake. */
import { assert, assertEquals } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { type BackendTest, backendTests, filterTests, type TestBackendOptions } from "../../../src/disk/testing.ts";
import type { CloseReason } from "../../../src/disk/backend.ts";
import { Filter } from "../../../src/filters/filter.ts";
import { seeds } from "../../sim/random.ts";
import { checkBackend } from "../conformance.ts";
import { Right, WRONG, type Wrong } from "./wrong_backends.ts";

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

Deno.test("the kit says which seed repeats a failure", async () => {
  const file = await Deno.makeTempFile({ suffix: "_test.ts" });
  const testing = new URL("../../../src/disk/testing.ts", import.meta.url).href;
  try {
    await Deno.writeTextFile(
      file,
      `import { testBackend } from "${testing}";
       testBackend("it's wrong", () => ({ sizeBytes: 2 ** 20, read: (b) => void b.fill(0), write: () => {} }));`,
    );
    const deno = new URL("../../../src/build/deno.sh", import.meta.url).pathname;
    const run = async (args: readonly string[], env: Record<string, string>) => {
      const { stdout, stderr } = await new Deno.Command(deno, { args: ["test", "-A", "--no-check", ...args], env })
        .output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    };
    const said = await run([file], { NO_COLOR: "1" });
    const name = "it's wrong: reads what was written, zeroed and discarded by chance";
    assert(said.includes(`${name} ... FAILED`), said);
    const quoted = name.replaceAll("'", `'\\''`);
    const line = said.split("\n").find((line) => line.includes(quoted) && line.startsWith("seed "));
    const seed = /^seed (\d+); again with: DBLOCK_SEED=\1 deno test -A --filter '/.exec(line ?? "")?.[1];
    assert(seed !== undefined && line?.endsWith(` '${file}'`), said);
    const again = await run(["--filter", name, file], { NO_COLOR: "1", DBLOCK_SEED: seed });
    assert(again.includes(`seed ${seed};`) && again.includes("0 passed | 1 failed"), again);
  } finally {
    await Deno.remove(file);
  }
});
