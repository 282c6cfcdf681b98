/**
 * `make soak MINUTES=60`: the tests that report figures, again and again with fresh seeds, each round in new VMs, until
 * the time is over. Ends with the figures of all rounds; the exit status is 1 if anything failed in any round.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type FileResult, limitSeconds, runDeviceTests } from "./vm/device.ts";
import { buildProgram } from "./vm/architecture.ts";
import { projectDir, runMain, UserError } from "./vm/host.ts";
import { defaultKernel, fetchKernel } from "./vm/kernels.ts";
import { buildModule } from "./vm/module.ts";
import { addCounts } from "./vm/report.ts";
import { suiteFiles } from "./vm/suites.ts";
import { figureTable } from "./vm/summary.ts";

const help = `Usage: make soak [MINUTES=60] [KERNEL=6.12] [ARGS="WORD..."]

  --minutes N   how long (60); a file is not begun when it would not end in time: the longest it took is what it is
                expected to take, and before its first run, its time limit
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
  const kernel = await fetchKernel(values.kernel);
  const moduleFile = await buildModule(kernel);
  return await soak(
    { kernel, moduleFile, programFile: await buildProgram(kernel.architecture), scale },
    files,
    minutes,
  );
}

/** The device tests that call figure(): new ones need no list to be in. */
function filesWithFigures(): string[] {
  return suiteFiles("device").filter((file) => /\bfigure\(/.test(Deno.readTextFileSync(join(projectDir, file))));
}

type Setup = Omit<Parameters<typeof runDeviceTests>[0], "files">;

async function soak(setup: Setup, files: readonly string[], minutes: number): Promise<number> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const results: FileResult[] = [];
  const longest = new Map(files.map((file) => [file, limitSeconds(file, setup)]));
  console.log(`${files.length} files on ${setup.kernel.release}, for ${minutes} minutes`);
  const shortest = Math.min(...longest.values()) + bootSeconds;
  if (shortest > minutes * 60) {
    throw new UserError(
      `Cannot soak for ${minutes} minutes: a single file may take ${shortest} s (MINUTES=${
        Math.ceil(shortest / 60)
      } will do)`,
    );
  }
  let rounds = 0;
  for (let isOver = false; !isOver;) {
    let left = files;
    let batch = fitting(left, longest, minutes * 60 - seconds());
    isOver = batch.length === 0;
    if (!isOver) console.log(`round ${++rounds}, ${Math.round(seconds())} s`);
    // In its first round a file is expected to take as long as it may; how soon it ends leaves time for others.
    while (batch.length > 0) {
      results.push(...await runDeviceTests({ ...setup, files: batch, onResult: say }));
      for (const file of batch) longest.set(file, longestRun(results, file));
      left = left.filter((file) => !batch.includes(file));
      batch = fitting(left, longest, minutes * 60 - seconds());
    }
  }
  return account(setup, files, results, `${rounds} rounds in ${(seconds() / 60).toFixed(1)} minutes`);
}

function account(setup: Setup, files: readonly string[], results: readonly FileResult[], said: string): number {
  const { passed, failed, skipped } = addCounts(results.map(({ counts }) => counts));
  console.log(`\n${figureTable([setup.kernel], results)}\n`);
  const never = files.filter((file) => results.every(({ path }) => path !== file));
  if (never.length > 0) console.log(`never begun, as it might not have ended in time: ${never.join(", ")}`);
  console.log(`${said}, the last of them perhaps not whole`);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return failed > 0 || passed === 0 ? 1 : 0;
}

function longestRun(results: readonly FileResult[], file: string): number {
  return Math.max(...results.filter(({ path }) => path === file).map(({ seconds }) => seconds), 1);
}

/** Until a VM runs its first test, and after its last: files that want a machine of another kind have one of their own. */
const bootSeconds = 15;

/** As many files, in their order, as may be expected to end in time, given how long each takes. */
export function fitting(
  files: readonly string[],
  takesSeconds: ReadonlyMap<string, number>,
  leftSeconds: number,
): string[] {
  let left = leftSeconds;
  return files.filter((file) => {
    const takes = takesSeconds.get(file)! + bootSeconds;
    if (takes > left) return false;
    left -= takes;
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
