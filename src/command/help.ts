// SPDX-License-Identifier: MIT
/** `dblock help`: what there is to type. */
import { filters } from "../filters/table.ts";
import { type Command, helpOf, readTyped, row } from "./command.ts";
import { findCommand, overview } from "./command_line.ts";

/** The subcommand, over a table of which it is part. */
export function helpOver(commands: () => readonly Command[]): Command {
  return {
    name: "help",
    summary: "this text, or that of a subcommand",
    usage: "[COMMAND | filters]",
    options: [],
    examples: [
      { words: "help serve", text: "everything about serving; the same as serve --help" },
      { words: "help filters", text: "what can stand in front of a disk, with all options" },
    ],
    parse(words) {
      const [name] = readTyped(words, this, 1).words;
      if (name === undefined) return () => Promise.resolve(console.log(overview(commands())));
      if (name === "filters") return () => Promise.resolve(console.log(filterHelp()));
      const found = findCommand(name, commands());
      return () => Promise.resolve(console.log(helpOf(found)));
    },
  };
}

/** All filters with their options. */
function filterHelp(): string {
  const sections = Object.entries(filters).map(([name, { summary, example, options }]) =>
    [
      `${name}: ${summary}`,
      ...Object.entries(options).map(([option, { value, help }]) => row(`  ${option}=${value}`, help)),
      `  --with ${example}`,
    ].join("\n")
  );
  return `A filter stands in front of a disk: dblock serve SPEC --with NAME=OPTION=VALUE,...\n\n${
    sections.join("\n\n")
  }`;
}
