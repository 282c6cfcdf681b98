/**
 * Runs the tests of one file with as little memory as it takes: `deno test` needs 80 MB beside the tests themselves, which
 * is much where a machine has 256. Stands in for it where a file says `// runner: small`: the same names, words and summary,
 * and only what such files use of it: no steps, no sanitizers, no coverage.
 */
interface Test {
  readonly name: string;
  readonly ignore: boolean;
  readonly run: () => void | Promise<void>;
}

type Options = { readonly ignore?: boolean };

const tests: Test[] = [];

/** `Deno.test(name, run)` and `Deno.test(name, options, run)`. */
function test(name: string, second: Options | Test["run"], third?: Test["run"]): void {
  const run = typeof second === "function" ? second : third!;
  const ignore = typeof second === "function" ? false : second.ignore ?? false;
  tests.push({ name, ignore, run });
}

async function main(file: string, filter: string): Promise<number> {
  Object.defineProperty(Deno, "test", { value: test });
  await import(new URL(file, `file://${Deno.cwd()}/`).href);
  const counts = { passed: 0, failed: 0, ignored: 0 };
  for (const { name, ignore, run } of tests.filter((candidate) => candidate.name.includes(filter))) {
    console.log(`${name} ...`);
    const outcome = ignore ? "ignored" : await attempt(run);
    counts[outcome]++;
    console.log(`${name} ... ${outcome}`);
  }
  const { passed, failed, ignored } = counts;
  console.log(`\n${failed > 0 ? "FAILED" : "ok"} | ${passed} passed | ${failed} failed | ${ignored} ignored`);
  return failed > 0 ? 1 : 0;
}

async function attempt(run: Test["run"]): Promise<"passed" | "failed"> {
  try {
    await run();
    return "passed";
  } catch (error) {
    console.log(error instanceof Error ? error.stack ?? error.message : `${error}`);
    return "failed";
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args[0]!, Deno.args[1] ?? ""));
