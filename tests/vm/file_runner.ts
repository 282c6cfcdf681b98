/**
 * Runs the tests of one file, as `deno test` does and at a sixth of its cost: `deno test` starts a second isolate with
 * code that is in no snapshot (10 s of CPU in a VM for a file without tests, and 80 MB). It has the same words and the same
 * summary, and what device tests use: `Deno.test()` in its three forms, `ignore`, steps, a filter. There are no sanitizers;
 * `deno test` has none either unless it is told to.
 */
type Run = (context: Context) => unknown;

interface Options {
  readonly ignore?: boolean;
}

interface Definition extends Options {
  readonly name: string;
  readonly fn: Run;
}

/** What a test is given. */
interface Context {
  /** Runs a part of the test; false if it failed, which fails the test in the end. */
  step(first: string | Definition, run?: Run): Promise<boolean>;
}

const tests: Definition[] = [];

/** `Deno.test(name, run)`, `Deno.test(name, options, run)` and `Deno.test({ name, fn })`. */
function test(first: string | Definition, second?: Options | Run, third?: Run): void {
  if (typeof first !== "string") tests.push(first);
  else if (typeof second === "function") tests.push({ name: first, fn: second });
  else tests.push({ ...second, name: first, fn: third! });
}

async function main(file: string, filter: string): Promise<number> {
  Object.defineProperty(Deno, "test", { value: test });
  await import(new URL(file, `file://${Deno.cwd()}/`).href);
  const counts = { ok: 0, FAILED: 0, ignored: 0 };
  for (const one of tests.filter(({ name }) => matches(name, filter))) counts[await attempt(one, "")]++;
  const { ok, FAILED, ignored } = counts;
  console.log(`\n${FAILED > 0 ? "FAILED" : "ok"} | ${ok} passed | ${FAILED} failed | ${ignored} ignored`);
  return FAILED > 0 ? 1 : 0;
}

function matches(name: string, filter: string): boolean {
  const [, pattern] = /^\/(.+)\/$/.exec(filter) ?? [];
  return pattern === undefined ? name.includes(filter) : new RegExp(pattern).test(name);
}

/** Runs a test or a step, and says how it went. */
async function attempt({ name, ignore, fn }: Definition, indent: string): Promise<"ok" | "FAILED" | "ignored"> {
  const say = (outcome: string) => console.log(`${indent}${name} ... ${outcome}`);
  if (ignore) {
    say("ignored");
    return "ignored";
  }
  say("");
  const started = performance.now();
  const seconds = () => `(${((performance.now() - started) / 1000).toFixed(1)}s)`;
  let failedSteps = 0;
  const context: Context = {
    async step(first, run) {
      const definition = typeof first === "string" ? { name: first, fn: run! } : first;
      const isWell = await attempt(definition, `${indent}  `) !== "FAILED";
      if (!isWell) failedSteps++;
      return isWell;
    },
  };
  try {
    await fn(context);
    if (failedSteps > 0) throw new Error(`${failedSteps} steps failed`);
  } catch (error) {
    console.log(error instanceof Error ? error.stack ?? error.message : Deno.inspect(error));
    say(`FAILED ${seconds()}`);
    return "FAILED";
  }
  say(`ok ${seconds()}`);
  return "ok";
}

if (import.meta.main) Deno.exit(await main(Deno.args[0]!, Deno.args[1] ?? ""));
