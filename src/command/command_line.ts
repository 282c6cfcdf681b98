// SPDX-License-Identifier: MIT
/** A command line of `dblock`: finds its subcommand in a table and runs it. Which subcommands there are is the caller's. */
import { DBLOCK_ABI_VERSION } from "../module/abi.ts";
import { runCommand, UsageError, VERSION } from "./cli.ts";
import { type Command, helpOf, row } from "./command.ts";
import { didYouMean } from "./words.ts";

/** Runs `dblock WORDS…` and ends the program. */
export async function runDblock(words: readonly string[], commands: readonly Command[]): Promise<never> {
  const isKnown = commands.some(({ name }) => name === words[0]);
  return await runCommand(isKnown ? `dblock ${words[0]}` : "dblock", () => readWords(words, commands)());
}

/**
 * Reads a command line; changes nothing.
 *
 * @returns what does what it asks for
 * @throws {UsageError} with what is wrong in it.
 */
export function readWords(words: readonly string[], commands: readonly Command[]): () => Promise<void> {
  const [name, ...rest] = words;
  if (name === undefined) throw new UsageError("a command is missing");
  if (name === "--help" || name === "-h") return saying(() => overview(commands));
  if (name === "--version") return saying(() => `dblock ${VERSION} (ABI ${DBLOCK_ABI_VERSION})`);
  if (name.startsWith("-")) throw new UsageError(`${name} stands before the command`);
  const command = findCommand(name, commands);
  const end = rest.indexOf("--");
  const isHelp = (end < 0 ? rest : rest.slice(0, end)).some((word) => word === "--help" || word === "-h");
  return isHelp ? saying(() => helpOf(command)) : command.parse(rest);
}

function saying(text: () => string): () => Promise<void> {
  return () => Promise.resolve(console.log(text()));
}

/**
 * A subcommand by its name.
 *
 * @throws {UsageError} with the one that was meant.
 */
export function findCommand(name: string, commands: readonly Command[]): Command {
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  throw new UsageError(`there is no command ${name}${didYouMean(name, commands.map((command) => command.name))}`);
}

/** All subcommands. */
export function overview(commands: readonly Command[]): string {
  return `dblock: disks that programs serve

  sudo dblock serve memory:4GiB --name scratch     a disk: /dev/scratch
  sudo dblock list                                 what there is
  sudo dblock destroy scratch                      end it, from another terminal

${commands.map(({ name, summary }) => row(`  dblock ${name}`, summary)).join("\n")}

dblock COMMAND --help says more. Exit status: 0; 1 it failed; 2 it was typed wrongly.
As dblock-ramdisk, this program is the ramdisk: dblock-ramdisk --help.`;
}
