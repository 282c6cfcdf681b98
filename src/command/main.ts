// SPDX-License-Identifier: MIT
/** The command `dblock` with all its subcommands. */
import { readWords, runDblock } from "./command_line.ts";
import { COMMANDS } from "./commands.ts";

/** Runs `dblock WORDS…` and ends the program. */
export async function dblock(words: readonly string[]): Promise<never> {
  return await runDblock(words, COMMANDS);
}

/**
 * Reads a command line; changes nothing.
 *
 * @returns what does what it asks for
 * @throws {UsageError} with what is wrong in it.
 */
export function readCommandLine(words: readonly string[]): () => Promise<void> {
  return readWords(words, COMMANDS);
}

if (import.meta.main) await dblock(Deno.args);
