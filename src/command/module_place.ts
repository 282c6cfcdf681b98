// SPDX-License-Identifier: MIT
/**
 * Where in the files of a user's module an error was thrown. What runs there is the code without its types, whose lines are
 * others than those that the user has written; how a module is loaded is module_loader.ts.
 */
const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** A line of a stack: `    at Store.check (file:///root/disk.ts:10:26)`. */
const FRAME = /^\s+at (?:.*?\()?(?:async )?file:\/\/(\/.*):(\d+):(\d+)\)?$/gm;

/** A place in a text: line and column, both from 1 on. */
interface Place {
  readonly line: number;
  readonly column: number;
}

/**
 * The place of an error in a user's files, such as "/root/disk.ts:14:5".
 *
 * @param files those of the module, absolute
 * @returns undefined if the error came from no line of them
 */
export async function placeOf(error: unknown, files: { has(file: string): boolean }): Promise<string | undefined> {
  if (!(error instanceof Error)) return undefined;
  for (const [, path = "", line, column] of String(error.stack).matchAll(FRAME)) {
    // The runtime shows a blank as it is, and leaves other characters as they are in the URL.
    const file = [path, decoded(path)].find((one) => files.has(one));
    if (file === undefined) continue;
    const thrown = { line: Number(line), column: Number(column) };
    const written = /\.[cm]?ts$/.test(file) ? await writtenPlace(file, thrown) : thrown;
    return written === undefined ? file : `${file}:${written.line}:${written.column}`;
  }
  return undefined;
}

/** The place in the TypeScript that became this place; undefined if the file is another one by now. */
async function writtenPlace(file: string, { line, column }: Place): Promise<Place | undefined> {
  try {
    const { stripTypeScriptTypes } = await import("node:module") as unknown as {
      stripTypeScriptTypes(code: string, options: { mode: "transform"; sourceMap: true }): string;
    };
    const code = stripTypeScriptTypes(await Deno.readTextFile(file), { mode: "transform", sourceMap: true });
    const [, encoded] = /\/\/# sourceMappingURL=data:application\/json;base64,([A-Za-z0-9+/=]+)\s*$/.exec(code)!;
    const bytes = Uint8Array.from(atob(encoded!), (character) => character.charCodeAt(0));
    const { mappings } = JSON.parse(new TextDecoder().decode(bytes)) as { readonly mappings: string };
    return placeInSource(mappings, { line, column });
  } catch {
    return undefined;
  }
}

/**
 * Follows a source map.
 *
 * @param mappings of version 3: lines of the code end with ";", and segments of a line are divided by ","
 */
export function placeInSource(mappings: string, place: Place): Place | undefined {
  let [line, column] = [0, 0];
  let found: Place | undefined;
  for (const [i, segments] of mappings.split(";").slice(0, place.line).entries()) {
    let at = 0;
    for (const segment of segments === "" ? [] : segments.split(",")) {
      // Each number is the difference to the one before it; a segment without a source has only the first.
      const [atStep = 0, , lineStep, columnStep = 0] = numbersOf(segment);
      at += atStep;
      line += lineStep ?? 0;
      column += columnStep;
      const isBefore = i + 1 === place.line && at < place.column;
      if (isBefore && lineStep !== undefined) found = { line: line + 1, column: column + 1 };
    }
  }
  return found;
}

/** Base64 digits of six bits: the highest says that more follow, and the number's lowest bit is its sign. */
function numbersOf(segment: string): number[] {
  const numbers: number[] = [];
  let [value, shift] = [0, 0];
  for (const character of segment) {
    const digit = BASE64.indexOf(character);
    value += (digit & 31) * 2 ** shift;
    shift += 5;
    if ((digit & 32) !== 0) continue;
    numbers.push(value % 2 === 0 ? value / 2 : -(value - 1) / 2);
    [value, shift] = [0, 0];
  }
  return numbers;
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
