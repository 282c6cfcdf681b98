// SPDX-License-Identifier: MIT
/** The command `dblock`: finds the subcommand and runs it. */
import { DBLOCK_ABI_VERSION } from "../module/abi.ts";
import { runCommand, UsageError, VERSION } from "./cli.ts";
import { helpOf } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { findCommand, overview } from "./help.ts";

/** Runs `dblock WORDS…` and ends the program. */
export async function dblock(words: readonly string[]): Promise<never> {
  const isKnown = COMMANDS.some(({ name }) => name === words[0]);
  return await runCommand(isKnown ? `dblock ${words[0]}` : "dblock", () => readCommandLine(words)());
}

/**
 * Reads a command line; changes nothing.
 *
 * @returns what does what it asks for
 * @throws {UsageError} with what is wrong in it.
 */
export function readCommandLine(words: readonly string[]): () => Promise<void> {
  const [name, ...rest] = words;
  if (name === undefined) throw new UsageError("a command is missing");
  if (name === "--help" || name === "-h") return saying(() => overview(COMMANDS));
  if (name === "--version") return saying(() => `dblock ${VERSION} (ABI ${DBLOCK_ABI_VERSION})`);
  if (name.startsWith("-")) throw new UsageError(`${name} stands before the command`);
  const command = findCommand(name, COMMANDS);
  const end = rest.indexOf("--");
  const isHelp = (end < 0 ? rest : rest.slice(0, end)).some((word) => word === "--help" || word === "-h");
  return isHelp ? saying(() => helpOf(command)) : command.parse(rest);
}

function saying(text: () => string): () => Promise<void> {
  return () => Promise.resolve(console.log(text()));
}

if (import.meta.main) await dblock(Deno.args);
