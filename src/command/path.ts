// SPDX-License-Identifier: MIT
/** Paths as text. As `node:path` has it, whose load would cost a program that starts a disk more than the disk. */

/** A path from the root: without "." and "..", and from the working directory if it does not begin at the root. */
export function resolve(...paths: readonly string[]): string {
  let whole = "";
  for (const path of paths) whole = path.startsWith("/") ? path : `${whole}/${path}`;
  if (!paths.some((path) => path.startsWith("/"))) whole = `${Deno.cwd()}${whole}`;
  const parts: string[] = [];
  for (const part of whole.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** The folder that a path is in. */
export function dirname(path: string): string {
  const end = path.lastIndexOf("/");
  return end < 0 ? "." : path.slice(0, end) || "/";
}

/** The last part of a path. */
export function basename(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
