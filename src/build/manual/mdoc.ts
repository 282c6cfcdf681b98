// SPDX-License-Identifier: MIT
/** Text as mdoc(7) has it: what begins a line, ends a sentence or is a backslash there means something, and must not here. */

/** Where a line of source ends: `mandoc -T lint` complains about more than 80 bytes. */
const WIDTH = 78;
/** A sentence that ends in a line would be set wrongly: each begins a line of its own. */
const SENTENCE_END = /[.!?][)"]?$/;

/** A word or a text so that it stands in the page as it is. */
export function escaped(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("…", "...").replaceAll(/^([.'])/gm, "\\&$1");
}

/** An argument of a macro: one word, whatever is in it. */
export function argument(text: string): string {
  // A word of two or three letters could be the name of a macro, and punctuation stands outside of what is marked.
  const word = escaped(text).replaceAll('"', "\\(dq");
  if (/^[A-Z%][A-Za-z0-9]{1,2}$|^[,:;()[\]?!|]$/.test(text)) return `\\&${word}`;
  return /\s/.test(word) ? `"${word}"` : word;
}

/** Prose, a sentence after the other. */
export function prose(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of escaped(text.replaceAll(/\s+/g, " ").trim()).split(" ")) {
    const isNew = line !== "" && (line.length + 1 + word.length > WIDTH || SENTENCE_END.test(line));
    if (isNew) lines.push(line);
    line = line === "" || isNew ? word : `${line} ${word}`;
  }
  return [...lines, line].map((one) => one.replace(/^([.'])/, "\\&$1")).join("\n");
}

/** Lines that stay as they are. */
export function literal(text: string): string {
  return `.Bd -literal -offset indent\n${escaped(text.replace(/\n+$/, ""))}\n.Ed`;
}

/** A list of things with what they are. */
export function list(items: readonly { readonly head: string; readonly text: string }[]): string {
  const rows = items.map(({ head, text }) => `.It ${head}\n${text}`);
  return [".Bl -tag -width Ds", ...rows, ".El"].join("\n");
}

/** A section; its parts are divided by paragraphs, but where a macro begins one anyway. */
export function section(name: string, ...parts: readonly string[]): string {
  return [`.Sh ${name}`, joined(parts)].join("\n");
}

/** A part of a section. */
export function subsection(name: string, ...parts: readonly string[]): string {
  return [`.Ss ${name}`, joined(parts)].join("\n");
}

function joined(parts: readonly string[]): string {
  return parts.filter((part) => part !== "").map((part, i) => {
    const divides = i > 0 && !part.startsWith(".Ss") && !part.startsWith(".Bd") && !part.startsWith(".Bl");
    return divides ? `.Pp\n${part}` : part;
  }).join("\n");
}

/** What a page begins with. */
export interface PageHead {
  readonly name: string;
  readonly section: number;
  /** What it is about, in a line. */
  readonly summary: string;
  readonly date: Date;
}

/** A whole page. */
export function page({ name, section: number, summary, date }: PageHead, sections: readonly string[]): string {
  const day = date.toLocaleDateString("en-US", { month: "long", day: "numeric", year: "numeric", timeZone: "UTC" });
  return [
    `.\\" Made by src/build/manual/main.ts from the tables of --help: change those.`,
    `.Dd ${day}`,
    `.Dt ${name.toUpperCase()} ${number}`,
    ".Os",
    ".Sh NAME",
    `.Nm ${name}`,
    `.Nd ${escaped(summary)}`,
    ...sections,
    "",
  ].join("\n");
}
