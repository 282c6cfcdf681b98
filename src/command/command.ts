// SPDX-License-Identifier: MIT
/**
 * What a subcommand of `dblock` is: a row of a table from which `--help` is printed and the command line is read. What the
 * subcommands do is in a file each.
 */
import { UsageError } from "./cli.ts";
import { didYouMean } from "./words.ts";

/** An option of a subcommand. */
export interface Option {
  /** Without the dashes: "name". */
  readonly name: string;
  /** One letter that means the same: "h". */
  readonly letter?: string;
  /** What its value is called in `--help`: "NAME". Without it, the option has none. */
  readonly value?: string;
  /** What it means without its value, as the last word or in front of another option. @default it needs one */
  readonly fallback?: string;
  /** It belongs to the disk whose SPEC was typed before it. @default false */
  readonly ofDisk?: boolean;
  /** What it does, in a line or two; a default in brackets at the end. */
  readonly text: string;
}

/** A command line that works as it is typed, without the "dblock" at its beginning. */
export interface Example {
  readonly words: string;
  /** What it does. */
  readonly text: string;
}

/** A subcommand. */
export interface Command {
  readonly name: string;
  /** What it does, in a few words. */
  readonly summary: string;
  /** What follows its name: "NAME [--force]". */
  readonly usage: string;
  readonly options: readonly Option[];
  readonly examples: readonly Example[];
  /** More paragraphs of `--help`. */
  readonly notes?: () => string;
  /**
   * Reads the words after the subcommand's name and changes nothing.
   *
   * @returns what does what they ask for
   * @throws {UsageError} with what is wrong in them.
   */
  parse(words: readonly string[]): () => Promise<void>;
}

/** A word of a command line, understood. */
export type Item =
  | { readonly kind: "word"; readonly text: string }
  | { readonly kind: "option"; readonly option: Option; readonly value: string };

/** Every subcommand has it. */
export const HELP_OPTION: Option = { name: "help", letter: "h", text: "this text" };

/** For programs. */
export const JSON_OPTION: Option = { name: "json", text: "as JSON, for programs" };

/**
 * Reads words in their order: `--name VALUE`, `--name=VALUE`, `-h`; after `--` nothing is an option.
 *
 * @throws {UsageError} an option that does not exist, a value that is missing or too much.
 */
export function readItems(words: readonly string[], options: readonly Option[]): Item[] {
  const items: Item[] = [];
  for (let at = 0; at < words.length; at++) {
    const text = words[at]!;
    if (text === "--") return [...items, ...words.slice(at + 1).map((rest): Item => ({ kind: "word", text: rest }))];
    if (!text.startsWith("-") || text === "-") {
      items.push({ kind: "word", text });
      continue;
    }
    const [, name = "", inline] = /^(.+?)(?:=(.*))?$/s.exec(text)!;
    const option = options.find((one) => name === `--${one.name}` || name === `-${one.letter}`);
    if (option === undefined) {
      const known = options.map((one) => `--${one.name}`);
      throw new UsageError(`there is no option ${name}${didYouMean(name, known)}`);
    }
    if (option.value === undefined) {
      if (inline !== undefined) throw new UsageError(`${name} takes no value`);
      items.push({ kind: "option", option, value: "" });
      continue;
    }
    const next = words[at + 1];
    const isAlone = option.fallback !== undefined && (next === undefined || next.startsWith("-"));
    const value = inline ?? (isAlone ? option.fallback : words[++at]);
    if (value === undefined || value === "") throw new UsageError(`${name} needs a value: ${name} ${option.value}`);
    items.push({ kind: "option", option, value });
  }
  return items;
}

/** What was typed, by option; for subcommands in which the order does not matter. */
export interface Typed {
  readonly words: readonly string[];
  /** Whether an option was given. */
  has(name: string): boolean;
  /** The value of an option. */
  value(name: string): string | undefined;
}

/**
 * {@linkcode readItems} for options that are given once, and words up to a number.
 *
 * @throws {UsageError} an option twice; a word too many.
 */
export function readTyped(words: readonly string[], { options, usage }: Command, wordsMax: number): Typed {
  const given = new Map<string, string>();
  const rest: string[] = [];
  for (const item of readItems(words, options)) {
    if (item.kind === "word") rest.push(item.text);
    else if (given.has(item.option.name)) throw new UsageError(`--${item.option.name} is there twice`);
    else given.set(item.option.name, item.value);
  }
  const stray = rest[wordsMax];
  if (stray !== undefined) throw new UsageError(`there is one word too many: ${stray} (it takes ${usage || "none"})`);
  return { words: rest, has: (name) => given.has(name), value: (name) => given.get(name) };
}

const COLUMN = 22;
const WIDTH = 80;

/** `--help` of a subcommand. */
export function helpOf(command: Command): string {
  const { name, summary, usage, options, examples, notes } = command;
  const sections = [`dblock ${name}: ${summary}`, `  dblock ${name} ${usage}`.trimEnd()];
  if (examples.length > 0) sections.push(`Examples:\n${examples.map(exampleLines).join("\n")}`);
  const own = [...options.filter((option) => !option.ofDisk), HELP_OPTION];
  const ofDisk = options.filter((option) => option.ofDisk);
  if (ofDisk.length > 0) {
    sections.push(`Options of a disk (they follow its SPEC):\n${ofDisk.map(optionLines).join("\n")}`);
  }
  sections.push(`Options:\n${own.map(optionLines).join("\n")}`);
  if (notes !== undefined) sections.push(notes().trimEnd());
  return sections.join("\n\n");
}

function exampleLines({ words, text }: Example): string {
  return `  dblock ${words}\n${indented(text, 6)}`;
}

function optionLines({ name, letter, value, fallback, text }: Option): string {
  const shown = value === undefined ? "" : fallback === undefined ? ` ${value}` : ` [${value}]`;
  const left = `  ${letter === undefined ? "" : `-${letter}, `}--${name}${shown}`;
  return row(left, text);
}

/** A line of a table: what it is, and what that means. */
export function row(left: string, text: string): string {
  const lines = indented(text, COLUMN);
  return left.length < COLUMN - 1 ? left.padEnd(COLUMN) + lines.trimStart() : `${left}\n${lines}`;
}

/** Text in lines of 80 columns, all of them indented. */
function indented(text: string, columns: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && columns + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((one) => " ".repeat(columns) + one).join("\n");
}
