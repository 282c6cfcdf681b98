// SPDX-License-Identifier: MIT
/**
 * A SPEC: the word that says where a disk's content is. This file reads the word; schemes.ts has what each scheme means and
 * opens it.
 */
import { UsageError } from "./cli.ts";

/** A SPEC, taken apart. */
export interface Spec {
  /** As it was typed. */
  readonly text: string;
  /** "memory", "file", …; a path has none, and its kind is told by its name. */
  readonly scheme: string | undefined;
  /** What follows the scheme, without parameters: "4GiB", a path. */
  readonly place: string;
  /** `?size=4GiB&direct`: a parameter without "=" has the value "". */
  readonly parameters: ReadonlyMap<string, string>;
}

const SCHEME = /^([a-z][a-z0-9+.-]*):(.*)$/s;

/**
 * Takes a SPEC apart: `SCHEME:PLACE?PARAMETERS` or `PATH?PARAMETERS`. What is in square brackets is a SPEC inside a SPEC
 * and is left alone. In the place and in values, %3F is "?", %26 is "&", and so on, as in any URL.
 *
 * @throws {UsageError} an empty word, brackets that do not match, a parameter twice.
 */
export function parseSpec(text: string): Spec {
  if (text === "") throw new UsageError("a SPEC is empty (write it like memory:4GiB or ./disk.img)");
  const mark = topLevel(text, "?")[0];
  const head = mark === undefined ? text : text.slice(0, mark);
  const matched = SCHEME.exec(head);
  const parameters = new Map<string, string>();
  const query = mark === undefined ? "" : text.slice(mark + 1);
  for (const pair of query.split("&").filter((one) => one !== "")) {
    const equals = pair.indexOf("=");
    const name = equals < 0 ? pair : pair.slice(0, equals);
    if (parameters.has(name)) throw new UsageError(`${text}: ${name} is there twice`);
    parameters.set(name, equals < 0 ? "" : decoded(pair.slice(equals + 1)));
  }
  const [scheme, place] = matched === null ? [undefined, head] : [matched[1]!, matched[2]!];
  // A set's place holds SPECs, which are decoded when they are read themselves.
  return { text, scheme, place: place.includes("[") ? place : decoded(place), parameters };
}

/**
 * The SPECs in the place of a set: divided by commas; one with a comma or a "?" of its own stands in square brackets.
 *
 * @throws {UsageError} as `parseSpec()`.
 */
export function membersOf(spec: Spec): Spec[] {
  const commas = topLevel(spec.place, ",");
  const parts = [-1, ...commas].map((comma, i) => spec.place.slice(comma + 1, commas[i]));
  return parts.map((part) => {
    if (part === "") throw new UsageError(`${spec.text}: there is no disk between two commas, or at an end`);
    return parseSpec(/^\[.*\]$/s.test(part) ? part.slice(1, -1) : part);
  });
}

/** Where a character stands outside of square brackets. */
function topLevel(text: string, char: string): number[] {
  const found: number[] = [];
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "[") depth++;
    else if (text[at] === "]") depth--;
    else if (text[at] === char && depth === 0) found.push(at);
    if (depth < 0) break;
  }
  if (depth !== 0) throw new UsageError(`${text}: a [ or ] has no partner`);
  return found;
}

/** %XX become characters; what is none of these stays as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
