// SPDX-License-Identifier: MIT
/**
 * Loads a TypeScript module of the user's, and the files it imports, from the disk of this machine: anew each time, and
 * also in the executable, whose runtime need not know TypeScript. What the module exports is module_disk.ts's business.
 */
import { dirname, resolve } from "./path.ts";
import * as sdk from "../mod.ts";
import { DblockError, describe, ERRNO, errnoOf } from "../disk/errors.ts";
import { type Mark, markOf } from "./file_watch.ts";

/** What a module exports. */
export type ModuleExports = Readonly<Record<string, unknown>>;

/** This package, under the names by which modules import it. */
const SDK = /^(jsr:)?@dblock\/dblock(@[^/]*)?$/;
const REMOTE = /^(jsr|npm|https?):/;
/** Statements as the transpiler prints them, which begin a line; and import() of a literal. Of JSON with what says so. */
const IMPORT =
  /^(\s*(?:import|export)\s(?:[^"'`;]*?\sfrom\s)?\s*|.*?\bimport\(\s*)(["'])([^"'\n]+)\2(\s*with\s*\{\s*type:\s*["']json["']\s*,?\s*\})?/gm;
const META = /\bimport\.meta\.(url|filename|dirname|main)\b/g;

/**
 * The address of code that is in no file. `blob` costs a third of the time and of the memory, but the runtime that `deno
 * compile` puts into an executable knows only `data`, where the address is the code.
 */
export type AddressKind = "data" | "blob";

const ADDRESS: Readonly<Record<AddressKind, (code: string) => string>> = {
  data: dataUrl,
  // Never revoked: code may import it later.
  blob: (code) => URL.createObjectURL(new Blob([code], { type: "text/javascript" })),
};

/** Makes the address of a module that was loaded before another one: its content may be the same. */
let loads = 0;

/**
 * Loads a module. Each call loads it again, whatever was loaded before.
 *
 * @param files gets the files it is made of, absolute, the module's own first, with marks of what was read. If the module
 * cannot be loaded: those that were looked for.
 * @param kind what suits the runtime
 * @throws {DblockError} ENOENT (no such file), EINVAL (it cannot be understood, or imports what cannot be had here): one line
 * with what to type instead.
 */
export async function loadModule(
  path: string,
  files: Map<string, Mark> = new Map(),
  kind: AddressKind = Deno.build.standalone ? "data" : "blob",
): Promise<ModuleExports> {
  const attempted = `Cannot load ${path}`;
  const loader = new Loader(attempted, path, files, kind);
  const url = await loader.urlOf(resolve(path));
  try {
    return await import(url);
  } catch (error) {
    throw new DblockError("EINVAL", attempted, oneLine(error), { cause: error });
  }
}

class Loader {
  readonly #attempted: string;
  readonly #path: string;
  readonly #files: Map<string, Mark>;
  readonly #urls = new Map<string, string | undefined>();
  readonly #address: (code: string) => string;
  readonly #load = ++loads;
  /** What this package is called in the files. */
  readonly #sdkNames = new Set<string>();

  constructor(attempted: string, path: string, files: Map<string, Mark>, kind: AddressKind) {
    this.#address = ADDRESS[kind];
    this.#attempted = attempted;
    this.#path = path;
    this.#files = files;
  }

  /** The URL of a file's code, in which the URLs of what it imports are. */
  async urlOf(file: string): Promise<string> {
    if (this.#urls.has(file)) {
      const url = this.#urls.get(file);
      if (url !== undefined) return url;
      const wrong = `${file} imports itself, through others`;
      throw new DblockError("EINVAL", this.#attempted, wrong, { hint: "put what they share into a file of its own" });
    }
    this.#urls.set(file, undefined);
    const code = await this.#code(file);
    const specifiers = new Set([...code.matchAll(IMPORT)].map(([, , , specifier]) => specifier!));
    for (const specifier of specifiers) if (SDK.test(specifier)) this.#sdkNames.add(specifier);
    const known = new Map<string, string>();
    for (const specifier of specifiers) known.set(specifier, await this.#target(specifier, file));
    const linked = code.replaceAll(
      IMPORT,
      // What was JSON is code by now.
      (_all, head: string, quote: string, specifier: string) => `${head}${quote}${known.get(specifier)}${quote}`,
    );
    const url = this.#address(`${linked}\n//# sourceURL=${fileUrl(file)}?${this.#load}`);
    this.#urls.set(file, url);
    return url;
  }

  async #code(file: string): Promise<string> {
    this.#files.set(file, await markOf(file)); // before it is read: a change after that is seen
    const text = await this.#read(file);
    if (file.endsWith(".json")) return `export default ${this.#checkedJson(text, file)}`;
    const meta: Readonly<Record<string, string>> = {
      url: JSON.stringify(fileUrl(file)),
      filename: JSON.stringify(file),
      dirname: JSON.stringify(dirname(file)),
      main: "false",
    };
    const isTyped = /\.[cm]?ts$/.test(file);
    return (isTyped ? await this.#stripped(text, file) : text).replaceAll(META, (_all, name: string) => meta[name]!);
  }

  async #read(file: string): Promise<string> {
    try {
      return await Deno.readTextFile(file);
    } catch (error) {
      const wrong = error instanceof Deno.errors.NotFound ? `there is no file ${file}` : describe(error);
      throw new DblockError(errnoOf(error) ?? ERRNO.EIO, this.#attempted, wrong, { cause: error });
    }
  }

  #checkedJson(text: string, file: string): string {
    try {
      JSON.parse(text);
      return text;
    } catch (error) {
      throw new DblockError("EINVAL", this.#attempted, `${file}: ${oneLine(error)}`, { cause: error });
    }
  }

  /** Without the types. */
  async #stripped(text: string, file: string): Promise<string> {
    // Asked for by name, so that a program which loads no module does not load this either.
    const { stripTypeScriptTypes } = await import("node:module") as unknown as {
      stripTypeScriptTypes(code: string, options: { mode: "transform" }): string;
    };
    try {
      return stripTypeScriptTypes(text, { mode: "transform" });
    } catch (error) {
      const [, place = ""] = /stripTypeScriptTypes\.ts(:\d+:\d+)/.exec(describe(error)) ?? [];
      const wrong = `${file}${place}: ${oneLine(error).replace(/ at file:.*/, "")}`;
      throw new DblockError("EINVAL", this.#attempted, wrong, { cause: error });
    }
  }

  /** What a specifier means. */
  async #target(specifier: string, file: string): Promise<string> {
    if (/^\.{1,2}\/|^\/|^file:/.test(specifier)) {
      const target = specifier.startsWith("file:") ? new URL(specifier).pathname : resolve(dirname(file), specifier);
      return await this.urlOf(target);
    }
    if (specifier.startsWith("node:") || specifier.startsWith("data:")) return specifier;
    if (SDK.test(specifier)) return sdkUrl();
    const wrong = REMOTE.test(specifier)
      ? `it imports ${specifier}, which dblock does not download`
      : `it imports ${specifier}, and only files can be imported, such as "./${specifier}.ts"`;
    const external = [...this.#sdkNames].map((name) => ` --external ${name}`).join("");
    const hint = `make one file of it: deno bundle ${this.#path} -o disk.js${external}, and serve ./disk.js`;
    throw new DblockError("EINVAL", this.#attempted, wrong, { hint });
  }
}

/** A module that has what this program's own package exports: a DblockError of it is a DblockError here. */
function sdkUrl(): string {
  (globalThis as { __dblockSdk?: unknown }).__dblockSdk = sdk;
  return dataUrl(`export const { ${Object.keys(sdk).join(", ")} } = globalThis.__dblockSdk;`);
}

function dataUrl(code: string): string {
  const bytes = new TextEncoder().encode(code);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 32_768) binary += String.fromCharCode(...bytes.subarray(at, at + 32_768));
  return `data:text/javascript;base64,${btoa(binary)}`;
}

function fileUrl(file: string): string {
  return `file://${file.split("/").map(encodeURIComponent).join("/")}`;
}

function oneLine(error: unknown): string {
  const text = error instanceof SyntaxError ? error.message : describe(error);
  const [line = ""] = text.split("\n");
  return line.replaceAll(/data:text\/javascript;base64,[\w+/=]+|blob:[\w/-]+/g, "the module");
}
