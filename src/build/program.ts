// SPDX-License-Identifier: MIT
/**
 * A program's source as it goes into an executable: the entry and every module it refers to by
 * `new URL("./x.ts", import.meta.url)`, each with all its imports. It does not know what an executable looks like.
 */
import { dirname, resolve } from "node:path";
import { existsSync } from "@std/fs";

/** The entry, or a module that is started or imported by its URL. */
export interface Part {
  /** Absolute path of its source. */
  readonly path: string;
  /** The source with all its imports, as one module. */
  readonly code: string;
  /** Specifier in the code → path of the part it means. */
  readonly references: ReadonlyMap<string, string>;
}

/** A program, ready to be written down. */
export interface Program {
  /** The first is the entry. */
  readonly parts: readonly Part[];
  /** Absolute paths of all local files that the parts were made of. */
  readonly inputs: readonly string[];
}

/**
 * V8's options in an executable. Its memory reducer collects when a program has done nothing for a second, and V8 then drops
 * optimized code that knows of objects of which none is left: a disk would begin with slow code after each pause.
 */
export const V8_FLAGS = "--no-memory-reducer";

const DENO = new URL("./deno.sh", import.meta.url).pathname;

// Matches what esbuild prints: comments are gone by then, so an example in a doc comment is not taken for a reference.
const REFERENCE = /new URL\(\s*(["'`])(\.{1,2}\/[^"'`\n]+\.[cm]?[jt]sx?)\1,\s*import\.meta\.url\s*\)/g;

/**
 * Bundles an entry and, one by one, everything it refers to by URL.
 *
 * @param entry Path of the entry file.
 * @throws {Error} When something cannot be bundled, or a reference means no file or more than one.
 */
export async function readProgram(entry: string): Promise<Program> {
  const parts = new Map<string, Part>();
  const inputs = new Set<string>();
  const waiting = [resolve(entry)];
  for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
    if (parts.has(path)) continue;
    const [code, modules] = await Promise.all([bundle(path), localModules(path)]);
    const references = resolveReferences(findReferences(code), modules);
    parts.set(path, { path, code, references });
    modules.forEach((module) => inputs.add(module));
    waiting.push(...references.values());
  }
  return { parts: [...parts.values()], inputs: [...inputs].sort() };
}

/** The specifiers of all `new URL("./x.ts", import.meta.url)` in bundled code, each once. */
export function findReferences(code: string): string[] {
  return [...new Set(Array.from(code.matchAll(REFERENCE), (match) => match[2] ?? ""))];
}

/**
 * Replaces each reference in bundled code.
 *
 * @param code Bundled code.
 * @param expression Gives the JavaScript expression that takes the place of `new URL(specifier, import.meta.url)`.
 */
export function replaceReferences(code: string, expression: (specifier: string) => string): string {
  return code.replaceAll(REFERENCE, (_all, _quote, specifier: string) => expression(specifier));
}

/**
 * Says which file each specifier means. A bundle no longer tells which module a line came from, so every module that
 * has the specifier in its text is asked, and they must agree.
 */
function resolveReferences(specifiers: readonly string[], modules: readonly string[]): Map<string, string> {
  const references = new Map<string, string>();
  for (const specifier of specifiers) {
    const targets = new Set<string>();
    for (const module of modules) {
      if (!Deno.readTextFileSync(module).includes(specifier)) continue;
      const target = resolve(dirname(module), specifier);
      if (existsSync(target, { isFile: true })) targets.add(target);
    }
    const [target, ...others] = targets;
    if (target === undefined) {
      throw new Error(
        `Cannot bundle new URL("${specifier}", import.meta.url): there is no such file beside its module`,
      );
    }
    if (others.length > 0) {
      const all = [...targets].join(" and ");
      throw new Error(`Cannot bundle new URL("${specifier}", import.meta.url): it means ${all}; rename one of them`);
    }
    references.set(specifier, target);
  }
  return references;
}

function bundle(path: string): Promise<string> {
  return deno("bundle", "--quiet", "--no-lock", "--platform", "deno", path);
}

async function localModules(path: string): Promise<string[]> {
  const graph: unknown = JSON.parse(await deno("info", "--json", "--no-lock", path));
  if (!isGraph(graph)) throw new Error(`Cannot read the module graph of ${path}: deno info printed something new`);
  const failed = graph.modules.find((module) => module.error !== undefined);
  if (failed !== undefined) throw new Error(`Cannot bundle ${path}: ${failed.error}`);
  return graph.modules.flatMap((module) =>
    module.local !== undefined && module.specifier.startsWith("file:") ? [module.local] : []
  );
}

interface Graph {
  readonly modules: readonly { readonly specifier: string; readonly local?: string; readonly error?: string }[];
}

function isGraph(value: unknown): value is Graph {
  return typeof value === "object" && value !== null && "modules" in value && Array.isArray(value.modules);
}

/** Runs deno.sh and returns what it printed. */
async function deno(...args: string[]): Promise<string> {
  const command = new Deno.Command(DENO, { args, stdout: "piped", stderr: "piped", env: { NO_COLOR: "1" } });
  const { success, stdout, stderr } = await command.output();
  if (success) return new TextDecoder().decode(stdout);
  const lines = new TextDecoder().decode(stderr).trim().split("\n");
  const reason = lines.find((line) => line.startsWith("error")) ?? lines.at(-1) ?? "no message";
  throw new Error(`deno ${args.join(" ")} failed: ${reason}`);
}
