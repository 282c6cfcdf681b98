// SPDX-License-Identifier: MIT
/** Paths. As text, they are what `node:path` has, whose load would cost a program that starts a disk more than the disk. */

/** True if there is something at a path, and this program may know. Links are followed. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

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
