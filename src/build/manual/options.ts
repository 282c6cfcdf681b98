// SPDX-License-Identifier: MIT
/** The tables of `--help` as parts of a page. */
import { type Command, HELP_OPTION, type Option } from "../../command/command.ts";
import { SCHEMES } from "../../command/schemes.ts";
import { filters } from "../../filters/table.ts";
import { argument, list, literal, prose, subsection } from "./mdoc.ts";

/** An option as it is typed. */
export function optionHead({ name, letter, value, fallback }: Option): string {
  const short = letter === undefined ? "" : `Fl ${letter} , `;
  const shown = value === undefined
    ? ""
    : fallback === undefined
    ? ` Ar ${argument(value)}`
    : ` Op Ar ${argument(value)}`;
  return `${short}Fl Fl ${argument(name)}${shown}`;
}

/** Options with what they do. */
export function optionList(options: readonly Option[]): string {
  return list(options.map((option) => ({ head: optionHead(option), text: prose(sentence(option.text)) })));
}

/** A subcommand: what it does, its options, and what else its `--help` says. */
export function commandSection(command: Command, { withNotes }: { readonly withNotes: boolean }): string {
  const { name, summary, usage, options, examples, notes } = command;
  const parts = [
    literal(`dblock ${name} ${usage}`.trimEnd()),
    prose(sentence(summary)),
    optionList([...options.filter(({ ofDisk }) => !ofDisk), HELP_OPTION]),
  ];
  const ofDisk = options.filter(({ ofDisk }) => ofDisk);
  if (ofDisk.length > 0) parts.push("Options of a disk follow its SPEC:", optionList(ofDisk));
  if (withNotes && notes !== undefined) parts.push(prose(notes()));
  parts.push(
    "Examples:",
    list(examples.map(({ words, text }) => ({
      head: `Li ${argument(`dblock ${words}`)}`,
      text: prose(sentence(text)),
    }))),
  );
  return subsection(name, ...parts);
}

/** What can be served, with its parameters. */
export function schemeList(): string {
  return list(SCHEMES.map(({ form, text, parameters }) => {
    const own = parameters.map(({ name, value, text }) => ({
      head: `Li ${argument(`?${name}${value === undefined ? "" : `=${value}`}`)}`,
      text: prose(sentence(text)),
    }));
    return {
      head: `Li ${argument(form)}`,
      text: [prose(sentence(text)), ...own.length === 0 ? [] : [list(own)]].join("\n"),
    };
  }));
}

/** What can stand in front of a disk. */
export function filterList(): string {
  return list(
    Object.entries(filters).map(([name, { summary, example, options }]) => {
      const own = Object.entries(options).map(([option, { value, help }]) => ({
        head: `Li ${argument(`${option}=${value}`)}`,
        text: prose(sentence(help)),
      }));
      const parts = [prose(sentence(summary)), ...own.length === 0 ? [] : [list(own)], literal(`--with ${example}`)];
      return { head: `Li ${argument(name)}`, text: parts.join("\n") };
    }),
  );
}

/** A row of a table as a sentence: with a capital letter, unless it begins with something that is typed, and its end. */
export function sentence(text: string): string {
  const capital = /^[a-z]+[ ,;:.]/.test(text) ? `${text[0]!.toUpperCase()}${text.slice(1)}` : text;
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
