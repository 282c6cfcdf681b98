// SPDX-License-Identifier: MIT
/** Words as people type them: how a file of words is split, which known word a wrong one was meant to be, a disk's name. */
import { whyBadName } from "../module/control.ts";
import { UsageError } from "./cli.ts";

const SPACE = /\s/;

/**
 * The words of a text, as a shell would split them: blanks and line ends divide, quotes (' and ") keep together, a
 * backslash takes the next character as it is, and `#` at the beginning of a word begins a comment. Nothing is expanded.
 *
 * @throws {UsageError} a quote without its end.
 */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!;
    if (quote !== "") {
      if (char === quote) quote = "";
      else if (char === "\\" && quote === '"' && '"\\'.includes(text[at + 1] ?? "")) word += text[++at]!;
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (SPACE.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (char === "#" && word === undefined) {
      const end = text.indexOf("\n", at);
      at = end < 0 ? text.length : end - 1;
    } else if (char === "\\" && at + 1 < text.length) {
      // As in a shell, a line that ends in a backslash goes on in the next one.
      if (text[++at] !== "\n") word = (word ?? "") + text[at]!;
    } else word = (word ?? "") + char;
  }
  if (quote !== "") throw new UsageError(`there is a ${quote} without its end`);
  if (word !== undefined) words.push(word);
  return words;
}

/** A word so that {@linkcode splitWords}, and a shell, read it as one. */
export function quoteWord(word: string): string {
  return /^[\w@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** More letters than this are not one mistake any more. */
const DISTANCE_MAX = 2;

/** Which of the known words was meant by a wrong one; undefined if none is near. */
export function nearest(wrong: string, known: Iterable<string>): string | undefined {
  let found: string | undefined;
  let least = Math.min(DISTANCE_MAX, Math.floor(wrong.length / 2)) + 1;
  for (const word of known) {
    const distance = wrong.length > 1 && word.startsWith(wrong) ? 1 : distanceOf(wrong, word);
    if (distance < least) [found, least] = [word, distance];
  }
  return found;
}

/** `, did you mean "…"?`, or what there is if nothing is near. */
export function didYouMean(wrong: string, known: readonly string[]): string {
  if (known.length === 0) return "";
  const meant = nearest(wrong, known);
  return meant === undefined ? `; there is: ${known.join(", ")}` : `; did you mean ${meant}?`;
}

/** How many letters have to be changed, added, left out, or swapped with the next one. */
function distanceOf(from: string, to: string): number {
  const rows = [[...Array(to.length + 1).keys()]];
  for (let i = 1; i <= from.length; i++) {
    const [above, row] = [rows[i - 1]!, [i]];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1] ? 0 : 1;
      let least = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + same);
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) {
        least = Math.min(least, rows[i - 2]![j - 2]! + 1);
      }
      row.push(least);
    }
    rows.push(row);
  }
  return rows[from.length]![to.length]!;
}

/**
 * The name of a disk, as it was typed; "/dev/NAME" means the same.
 *
 * @throws {UsageError} if it cannot be one.
 */
export function checkName(text: string): string {
  const name = text.replace(/^\/dev\//, "");
  const wrong = whyBadName(name);
  if (wrong === undefined) return name;
  throw new UsageError(`"${text}" cannot be a disk's name: ${wrong}`);
}
