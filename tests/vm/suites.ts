/**
 * The parts of a test run that happen on the host: static checks and the suites of `deno test`. Nothing here starts a VM,
 * though the suites "vm", the harness's own test, and "installed" do so by themselves.
 */
import { join } from "node:path";
import { buildDir, exists, listFiles, projectDir } from "./host.ts";
import { type Counts, parseTestSummary } from "./report.ts";

const denoScript = join(projectDir, "src/build/deno.sh");
/** A check or a suite that says nothing for so long hangs; how long it takes in all is the machine's business. */
const silenceLimitMs = 300_000;

/** Suites of `deno test`; "device" runs in the VM. */
export const suiteNames = ["unit", "abi", "sim", "interop", "packages", "vm", "installed", "device"] as const;

/** Runs only if it is asked for: it takes as long as half of all others. */
export const suitesByName: readonly string[] = ["installed"];

/** What the package offers: its documentation is checked. */
const { exports: entryPoints } = JSON.parse(Deno.readTextFileSync(join(projectDir, "deno.json")));
/** deno.json as {@linkcode examplesConfig} writes it for examples. */
const examplesFile = join(buildDir, "examples.json");

/** What must hold of all source files. */
export const staticChecks: Readonly<Record<string, readonly string[]>> = {
  format: ["fmt", "--quiet", "--check"],
  lint: ["lint", "--quiet"],
  types: ["check", "--quiet", "src", "tests"],
  examples: ["check", "--quiet", `--config=${examplesFile}`, "--doc", "src"],
  docs: ["doc", "--quiet", "--lint", ...Object.values<string>(entryPoints)],
  publish: ["publish", "--quiet", "--dry-run", "--allow-dirty"],
};

/** The test files of a suite, as sorted paths relative to the project. */
export function suiteFiles(suite: string): string[] {
  const dir = join(projectDir, "tests", suite);
  if (!exists(dir)) return [];
  return listFiles(dir)
    .filter((file) => file.endsWith("_test.ts") && !file.startsWith("fixtures/"))
    .map((file) => `tests/${suite}/${file}`);
}

/** How a check or suite on the host did. */
export interface HostResult {
  readonly name: string;
  /** A check that fails, or a suite that does not come to its summary, counts as one failed test. */
  readonly counts: Counts;
  readonly seconds: number;
  readonly output: string;
}

/** deno.json for the examples in doc comments: Deno adds imports to them, of which an example need not use each. */
function examplesConfig(): string {
  const { imports, compilerOptions } = JSON.parse(Deno.readTextFileSync(join(projectDir, "deno.json")));
  return JSON.stringify({ imports, compilerOptions: { ...compilerOptions, noUnusedLocals: false }, lock: false });
}

/** Runs one of {@linkcode staticChecks}. It is not a test, so passing counts nothing. */
export async function runCheck(name: string): Promise<HostResult> {
  if (name === "examples") await Deno.writeTextFile(examplesFile, examplesConfig());
  const { output, success, seconds } = await deno(staticChecks[name]!);
  return { name, counts: { passed: 0, failed: success ? 0 : 1, skipped: 0 }, seconds, output };
}

/** Runs test files on the host; what they leave in the folder for temporary files goes. Types are checked elsewhere. */
export async function runSuite(
  name: string,
  files: readonly string[],
  filter: string | undefined,
): Promise<HostResult> {
  const filterArguments = filter === undefined ? [] : [`--filter=${filter}`];
  const command = ["test", "--allow-all", "--no-check", ...filterArguments, ...files];
  // Short, as sockets are made there, whose paths have 107 bytes.
  const temporaryDir = await Deno.makeTempDir({ prefix: "dblock-" });
  const { output, success, seconds } = await deno(command, { TMPDIR: temporaryDir });
  // Where a process of a test that was killed still writes to it, it stays.
  await Deno.remove(temporaryDir, { recursive: true }).catch(() => {});
  const counts = parseTestSummary(output) ?? { passed: 0, failed: 0, skipped: 0 };
  // A failure that the summary does not know of, such as a leak at the very end, must not get lost.
  const failed = success ? counts.failed : Math.max(1, counts.failed);
  return { name, counts: { ...counts, failed }, seconds, output };
}

async function deno(
  args: readonly string[],
  variables: Readonly<Record<string, string>> = {},
): Promise<{ output: string; success: boolean; seconds: number }> {
  const started = performance.now();
  const child = new Deno.Command("setsid", {
    args: [denoScript, ...args],
    cwd: projectDir,
    env: { NO_COLOR: "1", ...variables },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const texts = { stdout: "", stderr: "" };
  const kill = () => void new Deno.Command("kill", { args: ["-KILL", "--", `-${child.pid}`] }).outputSync();
  let timer = setTimeout(kill, silenceLimitMs);
  const collect = async (name: "stdout" | "stderr") => {
    for await (const text of child[name].pipeThrough(new TextDecoderStream())) {
      texts[name] += text;
      clearTimeout(timer);
      timer = setTimeout(kill, silenceLimitMs);
    }
  };
  const [{ success, signal }] = await Promise.all([child.status, collect("stdout"), collect("stderr")]);
  clearTimeout(timer);
  let output = texts.stdout + texts.stderr;
  if (signal === "SIGKILL") output += `\nsaid nothing for ${silenceLimitMs / 1000} s\n`;
  return { output, success, seconds: (performance.now() - started) / 1000 };
}
