// SPDX-License-Identifier: MIT
/**
 * kmod/uapi/dblock.h as a C compiler sees it. The names are read from the text, in a way that only trusts its layout (one
 * definition a line); what they mean is asked of gcc by a program made of those names.
 */

const UAPI = new URL("../../kmod/uapi/", import.meta.url).pathname;
const DEPTH_MAX = 1024;

/** The names that a header defines. */
export interface Names {
  readonly constants: string[];
  /** Fields by structure. */
  readonly structs: Record<string, string[]>;
}

/** What the compiler makes of them. */
export interface Dump {
  /** Numbers in decimal, strings as they are. */
  readonly constants: Record<string, string>;
  readonly structs: Record<string, { size: number; fields: Record<string, { offset: number; bytes: number }> }>;
  /** DBLOCK_RING_BYTES(0 … 1024). */
  readonly ringBytes: number[];
}

/** The names in a header's text; of dblock.h by default. */
export function namesOf(text: string = Deno.readTextFileSync(`${UAPI}dblock.h`)): Names {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "");
  const defines = [...code.matchAll(/^#define[ \t]+(DBLOCK_\w+)(?=[ \t])/gm)].map((match) => match[1] ?? "");
  const values = [...code.matchAll(/^enum \w+ \{([\s\S]*?)^\};/gm)]
    .flatMap((match) => [...(match[1] ?? "").matchAll(/^\s*(\w+)/gm)].map((value) => value[1] ?? ""));
  const structs = [...code.matchAll(/^struct (\w+) \{([\s\S]*?)^\};/gm)].map((match) =>
    [match[1], [...(match[2] ?? "").matchAll(/(\w+)(?:\[\w+\])?;/g)].map((field) => field[1] ?? "")] as const
  );
  return { constants: [...defines, ...values], structs: Object.fromEntries(structs) };
}

/** Runs gcc on the header and some code after it. */
export async function compile(
  options: readonly string[],
  code = "",
  input = `#include "dblock.h"\n${code}\nint main(void) { return 0; }\n`,
): Promise<{ code: number; stderr: string }> {
  const gcc = new Deno.Command("gcc", {
    args: ["-std=gnu11", "-Wall", "-Wextra", "-Werror", `-I${UAPI}`, ...options, "-x", "c", "-"],
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
    env: { LC_ALL: "C" },
  }).spawn();
  const writer = gcc.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const output = await gcc.output();
  return { code: output.code, stderr: new TextDecoder().decode(output.stderr) };
}

/** Builds and runs a program that prints everything about these names. */
export async function dumpHeader(names: Names): Promise<Dump> {
  const folder = await Deno.makeTempDir({ prefix: "dblock-abi-" });
  try {
    const program = `${folder}/dump`;
    const { code, stderr } = await compile(["-o", program], undefined, programFor(names));
    if (code !== 0) throw new Error(`gcc refuses the dump of dblock.h:\n${stderr}`);
    const { stdout } = await new Deno.Command(program).output();
    return parseDump(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A line of JSON for each thing it prints. */
function programFor({ constants, structs }: Names): string {
  return [
    `#include <stddef.h>`,
    `#include <stdio.h>`,
    `#include "dblock.h"`,
    `int main(void) {`,
    ...constants.map((name) =>
      name.endsWith("_PATH")
        ? `printf("[\\"constant\\",\\"${name}\\",\\"%s\\"]\\n", ${name});`
        : `printf("[\\"constant\\",\\"${name}\\",\\"%llu\\"]\\n", (unsigned long long)${name});`
    ),
    ...Object.entries(structs).flatMap(([name, fields]) => [
      `printf("[\\"struct\\",\\"${name}\\",%zu]\\n", sizeof(struct ${name}));`,
      ...fields.map((field) =>
        `printf("[\\"field\\",\\"${name}\\",\\"${field}\\",%zu,%zu]\\n", ` +
        `offsetof(struct ${name}, ${field}), sizeof(((struct ${name} *)0)->${field}));`
      ),
    ]),
    `for (int depth = 0; depth <= ${DEPTH_MAX}; depth++)`,
    `printf("[\\"ring\\",%llu]\\n", (unsigned long long)DBLOCK_RING_BYTES(depth));`,
    `return 0; }`,
  ].join("\n");
}

function parseDump(output: string): Dump {
  const dump: Dump = { constants: {}, structs: {}, ringBytes: [] };
  for (const line of output.trimEnd().split("\n")) {
    const [kind, ...values] = JSON.parse(line) as (string | number)[];
    const [name, value, offset, bytes] = values;
    if (kind === "constant") {
      dump.constants[String(name)] = String(value);
    } else if (kind === "struct") {
      dump.structs[String(name)] = { size: Number(value), fields: {} };
    } else if (kind === "field") {
      const struct = dump.structs[String(name)];
      if (struct !== undefined) struct.fields[String(value)] = { offset: Number(offset), bytes: Number(bytes) };
    } else {
      dump.ringBytes.push(Number(name));
    }
  }
  return dump;
}
