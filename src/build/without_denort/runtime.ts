// SPDX-License-Identifier: MIT
/**
 * What runs before a program in an executable of this kind: it finds the program's parts, which the stub has put into file
 * descriptors. make.ts writes these functions into the executable as text, so they use nothing that is not in them.
 */

/** As scripts and modules of an executable see it. */
interface Runtime {
  /** Runs a part that is a script, once; resolves to its exports. */
  run(index: number): Promise<unknown>;
  /** A URL from which a part can be started, or imported: always the same one. */
  part(index: number): URL;
}

/**
 * Makes `__dblock` of an isolate, unless it is there.
 *
 * @param first The descriptor of the first part.
 * @param exportsOf For each part that is a script, the names of its exports; null for one that is a module.
 */
export function startRuntime(first: number, exportsOf: readonly (readonly string[] | null)[]): void {
  const scope = globalThis as { __dblock?: Runtime };
  if (scope.__dblock !== undefined) return;
  const read = (index: number) => Deno.readTextFileSync(`/proc/self/fd/${first + index}`);
  const urls: string[] = [];
  const runs: Promise<unknown>[] = [];
  const moduleOf = (index: number): string => {
    const begin = `(${startRuntime})(${first}, ${JSON.stringify(exportsOf)});`;
    const names = exportsOf[index];
    if (!names) return begin + read(index);
    const exported = names.map((name) =>
      name === "default" ? "export default part.default;" : `export const ${name} = part.${name};`
    );
    return `${begin} const part = await __dblock.run(${index}); ${exported.join(" ")}`;
  };
  scope.__dblock = {
    // Called in this way, eval() runs the script in the global scope.
    // deno-lint-ignore no-eval -- it is the program itself
    run: (index) => runs[index] ??= (0, eval)(read(index)),
    // A descriptor's path as the URL has no extension, so Deno would transpile it; a blob has a media type.
    part: (index) =>
      new URL(urls[index] ??= URL.createObjectURL(new Blob([moduleOf(index)], { type: "text/javascript" }))),
  };
}
