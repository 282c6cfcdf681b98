// SPDX-License-Identifier: MIT
/** What can be typed where, as the shells' completions need it: from the tables of `--help`, in one shape for all shells. */
import { type Command, HELP_OPTION, type Option } from "../../command/command.ts";
import { COMMANDS } from "../../command/commands.ts";
import { SCHEMES } from "../../command/schemes.ts";
import { filters } from "../../filters/table.ts";
import { ON_DEATH } from "../../module/words.ts";
import { ramdiskOptions } from "../manual/ramdisk_options.ts";

/** What stands for a value: one of a few words, a disk, a file, a filter, or something that nobody can complete. */
export type ValueKind = "none" | "words" | "file" | "filter" | "any";

/** An option. */
export interface OptionWords {
  readonly name: string;
  readonly letter: string | undefined;
  readonly text: string;
  readonly kind: ValueKind;
  /** Of the kind "words". */
  readonly words: readonly string[];
}

/** A subcommand. */
export interface CommandWords {
  readonly name: string;
  readonly text: string;
  readonly options: readonly OptionWords[];
  /** What its words are. */
  readonly operands: "disk" | "spec" | "command" | "none";
}

/** A kind of disk: what a SPEC of it begins with, and its parameters, with "=" where they have a value. */
export interface SchemeWords {
  readonly prefixes: readonly string[];
  readonly parameters: readonly string[];
}

/** Every subcommand. */
export function commandWords(commands: readonly Command[] = COMMANDS): CommandWords[] {
  return commands.map(({ name, summary, usage, options }) => ({
    name,
    text: summary,
    options: [...options, HELP_OPTION].map(optionWords),
    operands: /^\[?NAME/.test(usage)
      ? "disk"
      : usage.startsWith("SPEC")
      ? "spec"
      : usage.startsWith("[COMMAND")
      ? "command"
      : "none",
  }));
}

/** The options of dblock-ramdisk. */
export function ramdiskWords(): OptionWords[] {
  return ramdiskOptions().map(optionWords);
}

/** Filters by name, each with its options. */
export function filterWords(): [name: string, options: string[]][] {
  return Object.entries(filters).map(([name, { options }]) => [name, Object.keys(options)]);
}

/** Every kind of disk; the first is what a path is. */
export function schemeWords(): SchemeWords[] {
  const all = SCHEMES.map(({ names, parameters }) => ({
    prefixes: names.map((name) => `${name}:`),
    parameters: parameters.map(({ name, value }) => value === undefined ? name : `${name}=`),
  }));
  const file = all.find(({ prefixes }) => prefixes.includes("file:"))!;
  return [file, ...all.filter((one) => one !== file)];
}

function optionWords({ name, letter, value, text }: Option): OptionWords {
  const own = { name, letter, text: text.replaceAll(/\s+/g, " "), words: [] };
  if (value === undefined) return { ...own, kind: "none" };
  if (value === "POLICY") return { ...own, kind: "words", words: Object.keys(ON_DEATH) };
  // A value in small letters is the word itself.
  if (/^[a-z|]+$/.test(value)) return { ...own, kind: "words", words: value.split("|") };
  if (value === "FILTER") return { ...own, kind: "filter" };
  return { ...own, kind: /FILE|PATH|DIR/.test(value) ? "file" : "any" };
}
