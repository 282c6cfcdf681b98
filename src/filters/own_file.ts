// SPDX-License-Identifier: MIT
/**
 * Files of a filter's own, such as a log: opened so that a mistake in the path is one line that says what to type, and removed
 * if they were made for a disk that was never used.
 */
import { DblockError, describe, ERRNO, errnoOf, isOfSystem } from "../disk/errors.ts";

/** A file that is open, and whether it was made for that. */
export interface OwnFile {
  readonly file: Deno.FsFile;
  readonly isMade: boolean;
}

/**
 * Opens a file, or makes it.
 *
 * @param what the file, for the message: "the log"
 * @throws {DblockError} with the errno of what went wrong, the path, and what to do about it.
 */
export function openOwnFile(what: string, path: string, options: Deno.OpenOptions): OwnFile {
  try {
    return openOrMake(path, options);
  } catch (error) {
    const { wrong, hint } = whyNot(path, error);
    const more = { cause: error, ...(hint === undefined ? {} : { hint }) };
    throw new DblockError(errnoOf(error) ?? ERRNO.EIO, `Cannot open ${what} ${path}`, wrong, more);
  }
}

/** What writing or reading such a file failed with, with its path. */
export function ofOwnFile(what: string, path: string, error: unknown): unknown {
  if (!isOfSystem(error)) return error;
  return new DblockError(errnoOf(error) ?? "EIO", `Cannot use ${what} ${path}`, describe(error), { cause: error });
}

function openOrMake(path: string, options: Deno.OpenOptions): OwnFile {
  try {
    return { file: Deno.openSync(path, { ...options, createNew: true }), isMade: true };
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return { file: Deno.openSync(path, { ...options, create: true }), isMade: false };
  }
}

/**
 * Removes a file that was made for a disk that was never used. Never throws: somebody is told why the disk is not used.
 *
 * @param sizeMax one that has more in it is somebody else's as well by now, and stays
 */
export function removeUnused(path: string, sizeMax = 0): void {
  try {
    if (Deno.lstatSync(path).size <= sizeMax) Deno.removeSync(path);
  } catch {
    // it is gone, or its folder may not be changed any more
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
