/**
 * `make soak MINUTES=60`: the tests that report figures, again and again with fresh seeds, each round in a new VM, until
 * the time is over. Ends with the figures added up; the exit status is 1 if anything failed in any round.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type FileResult, runDeviceTests } from "./vm/device.ts";
import { exists, projectDir, runMain, UserError } from "./vm/host.ts";
import { defaultKernel, fetchKernel } from "./vm/kernels.ts";
import { buildModule } from "./vm/module.ts";
import { addCounts } from "./vm/report.ts";
import { suiteFiles } from "./vm/suites.ts";
import { figureTable } from "./vm/summary.ts";

const help = `Usage: make soak [MINUTES=60] [KERNEL=6.12] [ARGS="WORD..."]

  --minutes N   how long; a file is not begun when it would not end in time, but each runs once in any case (60)
  --kernel V    one kernel (${defaultKernel})
  --scale N     how many times as much the tests do in each round (1)
  WORD...       only test files whose path has the word in it`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      minutes: { type: "string", default: "60" },
      kernel: { type: "string", default: defaultKernel },
      scale: { type: "string", default: "1" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const [minutes, scale] = [Number(values.minutes), Number(values.scale)];
  if (!(minutes > 0)) throw new UserError(`Cannot soak for "${values.minutes}" minutes: it is a number above 0`);
  if (!(scale > 0)) throw new UserError(`Cannot use --scale ${values.scale}: it is a number above 0`);
  const files = filesWithFigures().filter((file) =>
    positionals.length === 0 || positionals.some((word) => file.includes(word))
  );
  if (files.length === 0) {
    throw new UserError(`Cannot soak: no test with figures has ${positionals.join(" ")} in its path`);
  }
  const programFile = join(projectDir, "dblock-ramdisk");
  if (!exists(programFile)) throw new UserError(`Cannot find ${programFile} (make executable)`);
  const kernel = await fetchKernel(values.kernel);
  const moduleFile = await buildModule(kernel);
  return await soak({ kernel, moduleFile, programFile, scale }, files, minutes);
}

/** The device tests that call figure(): new ones need no list to be in. */
function filesWithFigures(): string[] {
  return suiteFiles("device").filter((file) => /\bfigure\(/.test(Deno.readTextFileSync(join(projectDir, file))));
}

type Setup = Omit<Parameters<typeof runDeviceTests>[0], "files">;

async function soak(setup: Setup, files: readonly string[], minutes: number): Promise<number> {
  const started = performance.now();
  const leftSeconds = () => minutes * 60 - (performance.now() - started) / 1000;
  const results: FileResult[] = [];
  console.log(`${files.length} files on ${setup.kernel.release}, for ${minutes} minutes`);
  let due = files;
  let rounds = 0;
  for (; due.length > 0; rounds++) {
    console.log(`round ${rounds + 1}, ${Math.round((performance.now() - started) / 1000)} s`);
    const round = await runDeviceTests({ ...setup, files: due, onResult: (result) => say(result) });
    results.push(...round);
    due = fitting(files, results, leftSeconds());
  }
  const { passed, failed, skipped } = addCounts(results.map(({ counts }) => counts));
  console.log(`\n${figureTable([setup.kernel], results)}\n`);
  console.log(`${rounds} rounds in ${((performance.now() - started) / 60_000).toFixed(1)} minutes`);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

/** As many files, in their order, as may be expected to end in time, given how long each took before. */
function fitting(files: readonly string[], results: readonly FileResult[], leftSeconds: number): string[] {
  let left = leftSeconds;
  return files.filter((file) => {
    const took = Math.max(...results.filter(({ path }) => path === file).map(({ seconds }) => seconds), 1);
    if (took > left) return false;
    left -= took;
    return true;
  });
}

function say(result: FileResult): void {
  const name = result.path.replace("tests/device/", "").replace("_test.ts", "");
  console.log(`  ${name.padEnd(24)} ${result.verdict.padEnd(5)} (${result.seconds.toFixed(1)} s)`);
  if (result.verdict !== "fail" && result.verdict !== "lost") return;
  // A seed is of no use if what it gave is not there any more in the morning.
  console.log(result.output.trimEnd());
  for (const problem of result.problems) console.log(`problem: ${problem}`);
}

if (import.meta.main) await runMain(main);
