// SPDX-License-Identifier: MIT
/**
 * A bundle as a script, which V8 compiles by itself: functions when they are first called. Deno's loader reads every
 * module it starts as a whole, to find its imports, and that was most of an executable's start. What a bundle means stays
 * the same; how it gets into an executable is make.ts's business.
 */

/** A bundle that a script can take the place of. */
export interface Script {
  /** An expression: a promise of the object with all exports. */
  readonly source: string;
  /** Their names; "default" is one. */
  readonly exports: readonly string[];
}

// As esbuild prints them: all exports in one statement at the end.
const EXPORTS = /(?:^|\n)export \{([^{}]*)\};\s*$/;
const META = /\bimport\.meta\b/g;

/**
 * Makes a script of a bundle.
 *
 * @param code A bundle without imports, its references replaced.
 * @param name What stack traces call it.
 * @param isEntry What `import.meta.main` is in it.
 * @returns Undefined for a bundle that imports something: only a module can.
 */
export function asScript(code: string, name: string, isEntry: boolean): Script | undefined {
  const list = EXPORTS.exec(code)?.[1] ?? "";
  const body = code.replace(EXPORTS, "\n").replace(META, "__dblockMeta");
  if (!isBody(body)) return undefined;
  const pairs = list.split(",").map((item) => item.trim()).filter((item) => item !== "").map((item) => {
    const [local, exported = local] = item.split(/\s+as\s+/) as [string, string?];
    return [exported, local] as const;
  });
  const meta = `const __dblockMeta = { main: ${isEntry}, url: ${JSON.stringify(`dblock:${name}`)} };`;
  const result = `return { ${pairs.map(([exported, local]) => `${exported}: ${local}`).join(", ")} };`;
  return {
    // In front of the first line, so that line numbers are the bundle's.
    source: `(async () => { "use strict"; ${meta} ${body}\n${result}\n})()\n//# sourceURL=${name}\n`,
    exports: pairs.map(([exported]) => exported),
  };
}

/**
 * Whether V8 takes it for a function's body. An import or an export is an error there, but not the text of one: a bundle has other
 * modules in it as strings.
 */
function isBody(code: string): boolean {
  try {
    new Function(`return async () => { "use strict"; ${code}\n};`);
    return true;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}
