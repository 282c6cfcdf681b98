// SPDX-License-Identifier: MIT
/**
 * Deno's own way to one file, `deno compile`, and the question whether its runtime (denort) can be had here. The other
 * way is in without_denort/.
 */
import { existsSync } from "@std/fs";
import { V8_FLAGS } from "./program.ts";
import type { Arch } from "./without_denort/target.ts";

/** Whether `deno compile` can work, and why. */
export interface Denort {
  readonly available: boolean;
  /** For the line that says which way the build took. */
  readonly reason: string;
}

const DENO = new URL("./deno.sh", import.meta.url).pathname;
/** Where "no" is kept, one file for each kind of machine. */
const ANSWER = new URL("../../.build/denort-source", import.meta.url).pathname;
const PROBE_TIMEOUT_MS = 5_000;
/** A "no" from the network is believed for this long, so that a build offline does not wait every time. */
const ANSWER_LIFETIME_MS = 24 * 60 * 60 * 1_000;

/** What Deno calls a kind of machine. */
function targetOf(arch: Arch): string {
  return `${arch}-unknown-linux-gnu`;
}

/**
 * Looks for denort: `DENORT_BIN`, Deno's cache, the network, in this order.
 *
 * @param arch The kind of machine that it is for; `DENORT_BIN` is taken to be for that one.
 * @throws {Error} When `DENORT_BIN` is set and is not a file.
 */
export async function findDenort(arch: Arch): Promise<Denort> {
  const binary = Deno.env.get("DENORT_BIN");
  if (binary !== undefined) {
    if (existsSync(binary, { isFile: true })) return { available: true, reason: "DENORT_BIN" };
    throw new Error(`Cannot use DENORT_BIN="${binary}": no such file; unset it or name the denort executable`);
  }
  const archive = `release/v${Deno.version.deno}/denort-${targetOf(arch)}.zip`;
  if (existsSync(`${Deno.env.get("DENO_DIR")}/dl/${archive}`, { isFile: true })) {
    return { available: true, reason: "denort from the cache" };
  }
  const no = { available: false, reason: "no denort: Deno's download site does not answer" };
  const answerFile = `${ANSWER}-${arch}`;
  if (answeredNo(answerFile)) return no;
  if (await answers(`https://dl.deno.land/${archive}`)) {
    return { available: true, reason: "denort from Deno's download site" };
  }
  Deno.writeTextFileSync(answerFile, "no\n");
  return no;
}

/**
 * Runs `deno compile`.
 *
 * @param entry The entry file.
 * @param includes Modules that the program refers to by URL.
 * @param output Path of the executable.
 * @param arch The kind of machine that it is for.
 * @throws {Error} With the line in which Deno says why.
 */
export async function compile(
  entry: string,
  includes: readonly string[],
  output: string,
  arch: Arch,
): Promise<void> {
  const args = [
    "compile",
    "--quiet",
    "--allow-all",
    "--no-prompt",
    "--no-lock",
    "--no-check",
    "--no-code-cache",
    `--v8-flags=${V8_FLAGS}`,
    "--output",
    output,
  ];
  if (arch !== Deno.build.arch) args.push("--target", targetOf(arch));
  for (const include of includes) args.push("--include", include);
  const { success, stderr } = await new Deno.Command(DENO, {
    args: [...args, entry],
    stdout: "null",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).output();
  if (success) return;
  const lines = new TextDecoder().decode(stderr).trim().split("\n").map((line) => line.trim());
  const error = lines.find((line) => line.startsWith("error")) ?? "error: no message";
  // Deno lists causes below its error, numbered; the last says most.
  const cause = lines.findLast((line) => /^\d+: [^<]/.test(line))?.replace(/^\d+: /, "");
  throw new Error(cause === undefined ? error : `${error} (${cause})`);
}

function answeredNo(answerFile: string): boolean {
  try {
    return Date.now() - (Deno.statSync(answerFile).mtime?.getTime() ?? 0) < ANSWER_LIFETIME_MS;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return response.ok;
  } catch {
    // Whatever the network's reason is, the other way is open.
    return false;
  }
}
