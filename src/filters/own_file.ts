// SPDX-License-Identifier: MIT
/** Files of a filter's own, such as a log: opened so that a mistake in the path is one line that says what to type. */
import { DblockError, describe, ERRNO, errnoOf } from "../disk/errors.ts";

/**
 * Opens a file with `open`, which is given the path.
 *
 * @param what the file, for the message: "the log"
 * @throws {DblockError} with the errno of what `open` threw, its path, and what to do about it.
 */
export function openOwnFile<T>(what: string, path: string, open: (path: string) => T): T {
  try {
    return open(path);
  } catch (error) {
    const { wrong, hint } = whyNot(path, error);
    const options = { cause: error, ...(hint === undefined ? {} : { hint }) };
    throw new DblockError(errnoOf(error) ?? ERRNO.EIO, `Cannot open ${what} ${path}`, wrong, options);
  }
}

function whyNot(path: string, error: unknown): { readonly wrong: string; readonly hint?: string } {
  if (error instanceof Deno.errors.NotFound) {
    const folder = path.slice(0, path.lastIndexOf("/")) || "/";
    return { wrong: "its folder is not there", hint: `mkdir -p ${folder}` };
  }
  if (error instanceof Deno.errors.PermissionDenied) return { wrong: "permission denied", hint: "take another file" };
  if (error instanceof Deno.errors.IsADirectory) return { wrong: "it is a folder", hint: "take another file" };
  if (error instanceof Deno.errors.NotADirectory) {
    return { wrong: "a part of its path is no folder", hint: "take another file" };
  }
  return { wrong: describe(error) };
}
