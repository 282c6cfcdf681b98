// SPDX-License-Identifier: MIT
/**
 * Stands in for `@std/fs` where JSR cannot be reached: the functions a program or test here uses, with the same names,
 * options and results. Globs, moves and links are not here.
 */
import { basename, join } from "node:path";

/** Options of {@linkcode exists}. */
export interface ExistsOptions {
  /** Only when it can be read. */
  isReadable?: boolean;
  /** Only when it is a directory; not together with `isFile`. */
  isDirectory?: boolean;
  /** Only when it is a file. */
  isFile?: boolean;
}

/** Options of {@linkcode walk}. */
export interface WalkOptions {
  /** How deep to go; 0 is the root alone. @default {Infinity} */
  maxDepth?: number;
  /** @default {true} */
  includeFiles?: boolean;
  /** @default {true} */
  includeDirs?: boolean;
  /** @default {true} */
  includeSymlinks?: boolean;
  /** Go into what symbolic links name. @default {false} */
  followSymlinks?: boolean;
  /** Only paths that end so, with or without the dot. */
  exts?: string[];
  /** Only paths that match one of these. */
  match?: RegExp[];
  /** Neither paths that match one of these nor anything below them. */
  skip?: RegExp[];
}

/** What {@linkcode walk} yields. */
export interface WalkEntry extends Deno.DirEntry {
  /** The root as it was given, and the way down from it. */
  path: string;
}

/** Options of {@linkcode copy}. */
export interface CopyOptions {
  /** Replace what is there. @default {false} */
  overwrite?: boolean;
  /** Keep access and modification times. @default {false} */
  preserveTimestamps?: boolean;
}

/** Whether a path exists and is what the options ask for. */
export function existsSync(path: string | URL, options: ExistsOptions = {}): boolean {
  try {
    return fits(Deno.statSync(path), options);
  } catch (error) {
    return isAbsent(error, options);
  }
}

/** Whether a path exists and is what the options ask for. */
export async function exists(path: string | URL, options: ExistsOptions = {}): Promise<boolean> {
  try {
    return fits(await Deno.stat(path), options);
  } catch (error) {
    return isAbsent(error, options);
  }
}

function fits(info: Deno.FileInfo, options: ExistsOptions): boolean {
  if (options.isDirectory && options.isFile) {
    throw new TypeError("ExistsOptions.options.isDirectory and ExistsOptions.options.isFile must not be true together");
  }
  if ((options.isDirectory && !info.isDirectory) || (options.isFile && !info.isFile)) return false;
  if (!options.isReadable || info.mode === null) return true;
  const bits = Deno.uid() === 0 ? 0o777 : info.uid === Deno.uid() ? 0o400 : info.gid === Deno.gid() ? 0o040 : 0o004;
  return (info.mode & bits) !== 0 || Deno.uid() === 0;
}

function isAbsent(error: unknown, options: ExistsOptions): boolean {
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
  // Something is there that may not be looked at.
  if (error instanceof Deno.errors.PermissionDenied) return !options.isReadable;
  throw error;
}

/** Makes a directory and those above it, if need be. Throws when something else has that name. */
export async function ensureDir(dir: string | URL): Promise<void> {
  await Deno.mkdir(dir, { recursive: true });
}

/** Makes a directory and those above it, if need be. Throws when something else has that name. */
export function ensureDirSync(dir: string | URL): void {
  Deno.mkdirSync(dir, { recursive: true });
}

/** Makes a directory, or removes all that is in it. */
export async function emptyDir(dir: string | URL): Promise<void> {
  await Deno.mkdir(dir, { recursive: true });
  const path = pathOf(dir);
  for await (const entry of Deno.readDir(path)) await Deno.remove(join(path, entry.name), { recursive: true });
}

/** Makes a directory, or removes all that is in it. */
export function emptyDirSync(dir: string | URL): void {
  Deno.mkdirSync(dir, { recursive: true });
  const path = pathOf(dir);
  for (const entry of [...Deno.readDirSync(path)]) Deno.removeSync(join(path, entry.name), { recursive: true });
}

/** All that is under a directory, the directory first. */
export function* walkSync(root: string | URL, options: WalkOptions = {}): IterableIterator<WalkEntry> {
  const path = pathOf(root);
  const { isFile, isDirectory, isSymlink } = Deno.lstatSync(path);
  const entry = { path, name: basename(path), isFile, isDirectory: isDirectory || isSymlink, isSymlink: false };
  yield* walkEntry(entry, options.maxDepth ?? Infinity, options);
}

/** All that is under a directory, the directory first. */
export async function* walk(root: string | URL, options: WalkOptions = {}): AsyncIterableIterator<WalkEntry> {
  // Trees here are small; what matters is that callers read as with the package.
  yield* walkSync(root, options);
}

function* walkEntry(entry: WalkEntry, depth: number, options: WalkOptions): Generator<WalkEntry> {
  if (depth < 0 || options.skip?.some((pattern) => pattern.test(entry.path))) return;
  let { isDirectory } = entry;
  let shown = entry;
  if (entry.isSymlink && options.followSymlinks) {
    const info = Deno.statSync(entry.path);
    isDirectory = info.isDirectory;
    shown = { ...entry, path: Deno.realPathSync(entry.path), isFile: info.isFile, isDirectory, isSymlink: false };
  }
  const wanted = shown.isSymlink
    ? options.includeSymlinks ?? true
    : isDirectory
    ? options.includeDirs ?? true
    : options.includeFiles ?? true;
  if (wanted && isChosen(shown.path, options)) yield shown;
  if (!isDirectory || shown.isSymlink || depth === 0) return;
  for (const child of [...Deno.readDirSync(shown.path)]) {
    yield* walkEntry({ ...child, path: join(shown.path, child.name) }, depth - 1, options);
  }
}

function isChosen(path: string, { exts, match }: WalkOptions): boolean {
  if (exts && !exts.some((ext) => path.endsWith(ext.startsWith(".") ? ext : `.${ext}`))) return false;
  return !match || match.some((pattern) => pattern.test(path));
}

/** Copies a file, a symbolic link or a directory with all that is in it. */
export async function copy(src: string | URL, dest: string | URL, options: CopyOptions = {}): Promise<void> {
  await Promise.resolve();
  copySync(src, dest, options);
}

/** Copies a file, a symbolic link or a directory with all that is in it. */
export function copySync(src: string | URL, dest: string | URL, options: CopyOptions = {}): void {
  const from = pathOf(src);
  const to = pathOf(dest);
  const info = Deno.lstatSync(from);
  if (info.isDirectory && (to === from || to.startsWith(`${from}/`))) {
    throw new Error(`Cannot copy '${from}' to a subdirectory of itself: '${to}'`);
  }
  copyEntry(from, to, info, options);
}

function copyEntry(from: string, to: string, info: Deno.FileInfo, options: CopyOptions): void {
  if (!options.overwrite && existsSync(to)) throw new Deno.errors.AlreadyExists(`'${to}' already exists.`);
  if (info.isSymlink) {
    if (options.overwrite && existsSync(to)) Deno.removeSync(to);
    Deno.symlinkSync(Deno.readLinkSync(from), to);
    return;
  }
  if (info.isDirectory) {
    Deno.mkdirSync(to, { recursive: true });
    for (const child of [...Deno.readDirSync(from)]) {
      const path = join(from, child.name);
      copyEntry(path, join(to, child.name), Deno.lstatSync(path), options);
    }
  } else {
    Deno.copyFileSync(from, to);
  }
  if (options.preserveTimestamps && info.atime && info.mtime) Deno.utimeSync(to, info.atime, info.mtime);
}

function pathOf(path: string | URL): string {
  return typeof path === "string" ? path : decodeURIComponent(path.pathname);
}
