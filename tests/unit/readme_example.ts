// SPDX-License-Identifier: MIT
/** The worked examples of src/README.md, for the tests that run them: here on a fake kernel, in tests/device on the real one. */

/** The first block of TypeScript in src/README.md, importing from `modHref` instead of "./mod.ts". */
export async function readmeExample(modHref: string): Promise<string> {
  const text = await Deno.readTextFile(new URL("../../src/README.md", import.meta.url));
  const code = /^```ts\n([\s\S]*?)^```$/m.exec(text)?.[1];
  if (code === undefined) throw new Error("src/README.md has no example");
  return code.replace('"./mod.ts"', JSON.stringify(modHref));
}

/** The block of TypeScript under a heading of src/README.md. */
export async function readmeExampleOf(heading: string): Promise<string> {
  const text = await Deno.readTextFile(new URL("../../src/README.md", import.meta.url));
  const section = text.slice(text.indexOf(`\n## ${heading}\n`) + 1).split("\n## ", 1)[0]!;
  const code = /^```ts\n([\s\S]*?)^```$/m.exec(section)?.[1];
  if (code === undefined) throw new Error(`"${heading}" of src/README.md has no example`);
  return code;
}
