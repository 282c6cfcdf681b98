/**
 * What a person would type on the machine, and see: each command, what it says, and how long it took. Printed while it happens; the
 * host picks these lines out of what a boot prints, and keeps them (machine.ts).
 */
import { sh, type ShellOptions, type ShellResult } from "../device/harness.ts";

/** Before each line of the transcript, among others that a test prints. */
const mark = "transcript: ";

/** Options of {@linkcode show}. */
export interface ShowOptions extends ShellOptions {
  /** Where the command is typed. @default "/root" */
  readonly folder?: string;
}

/** Runs a command, and prints it as typed, then what it says, then its time. What it says is `stdout`, whichever way it came. */
export async function show(command: string, options: ShowOptions = {}): Promise<ShellResult> {
  const { folder = "/root", ...others } = options;
  print(`\n$ ${command}`);
  const started = performance.now();
  // Nobody is asked anything here.
  const env = { DEBIAN_FRONTEND: "noninteractive", ...others.env };
  const result = await sh(`cd ${folder} && { ${command}\n} 2>&1`, { ...others, env });
  const seconds = (performance.now() - started) / 1000;
  const lines = visible(result.stdout);
  print(lines.map((line) => `    ${line}`).join("\n"));
  const status = result.status === 0 ? "" : `exit status ${result.status}, `;
  print(`    (${status}${seconds.toFixed(1)} s)`);
  return result;
}

/** Says what happens between two commands. */
export function note(text: string): void {
  print(`\n# ${text}`);
}

/** The transcript in what a boot has printed. */
export function transcriptOf(output: string): string {
  const lines = output.split("\n").filter((line) => line.startsWith(mark.trimEnd()));
  return lines.map((line) => `${line.slice(mark.length).trimEnd()}\n`).join("");
}

/** What a terminal would show in the end: programs that draw progress go back to the beginning of the line. */
function visible(text: string): string[] {
  return text.split("\n").map((line) => line.slice(line.trimEnd().lastIndexOf("\r") + 1).trimEnd())
    .filter((line) => line !== "");
}

function print(text: string): void {
  if (text === "") return;
  for (const line of text.split("\n")) console.log(`${mark}${line}`);
}
