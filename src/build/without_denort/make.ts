// SPDX-License-Identifier: MIT
/**
 * The way to one file where denort cannot be had: a copy of Deno's own binary with the bundled program and a stub in it.
 * Nothing else uses this folder. It can go when everybody who builds gets denort from somewhere.
 */
import { existsSync } from "@std/fs";
import { basename } from "node:path";
import { type Part, replaceReferences } from "../program.ts";
import { addProgram } from "./elf.ts";
import { type Arch, denoFor, stubTools } from "./target.ts";

const HERE = new URL(".", import.meta.url).pathname;
/** Files that decide what comes out, besides the program's own. */
export const MAKER_FILES = ["make.ts", "elf.ts", "target.ts", "stub.c", "stub.ld"].map((name) => `${HERE}${name}`);

/**
 * Deno's options in an executable. Everything that would look at the machine is off: configuration, lock file, cache,
 * network, prompts. `--ext` because the program's path, a file descriptor, has no extension.
 */
const OPTIONS = "deno run --quiet --allow-all --no-prompt --no-config --no-lock --no-remote --no-npm --cached-only " +
  "--no-code-cache --ext=js";

/**
 * DENO_DIR is a path that nobody can create, not even root, so that no cache is left behind. On a terminal Deno complains
 * about that as an error; DENO_LOG leaves all its errors but those of its caches.
 */
const VARIABLES = {
  DENO_DIR: "/proc/self/exe/none",
  DENO_LOG: "error,deno::cache=off",
  DENO_NO_PACKAGE_JSON: "1",
  DENO_NO_UPDATE_CHECK: "1",
};

// The same flags wherever the compiler's defaults differ: no section but code and constants, no call into a library.
const STUB_FLAGS = "-Os -std=gnu11 -Wall -Wextra -Werror -ffreestanding -fpie -fvisibility=hidden " +
  "-fno-stack-protector -fno-asynchronous-unwind-tables -mgeneral-regs-only -nostdlib -static " +
  "-Wl,--build-id=none";

/**
 * Makes the executable.
 *
 * @param parts The first is the main program.
 * @param output Path of the executable.
 * @param scratchDir A folder for files that are removed again.
 * @throws {Error} When there is no compiler, or no Deno, for that kind of machine.
 */
export async function makeFromDeno(
  parts: readonly Part[],
  output: string,
  arch: Arch,
  scratchDir: string,
): Promise<void> {
  const stub = await compileStub(arch, scratchDir);
  const encoder = new TextEncoder();
  const bundles = parts.map((part, index) => ({
    name: basename(part.path),
    source: encoder.encode(withDescriptors(part, index, parts)),
  }));
  Deno.copyFileSync(await denoFor(arch), output);
  Deno.chmodSync(output, 0o755);
  addProgram(output, stub, { options: OPTIONS.split(" "), variables: VARIABLES, bundles });
}

/**
 * A part's code with its references made valid. The stub gives the parts consecutive file descriptors in their order;
 * the first is the entry's, known from its URL, and every part that is started hands the number on to the next.
 *
 * Why not the descriptor's path as the URL: it has no extension, and what is started by URL gets no `--ext`, so Deno
 * would transpile it and try for 150 ms to keep the result in a cache that is not there. A blob has a media type.
 */
function withDescriptors(part: Part, index: number, parts: readonly Part[]): string {
  if (part.references.size === 0) return part.code;
  const code = replaceReferences(part.code, (specifier) => {
    const target = parts.findIndex((other) => other.path === part.references.get(specifier));
    if (target < 0) throw new Error(`unreachable: ${specifier} is no part of the program`);
    return `__dblockPart(${target})`;
  });
  const first = index === 0 ? "globalThis.__dblockFirst ??= Number(/\\d+$/.exec(import.meta.url));" : "";
  return `${first}${PART_FUNCTION}\n${code}`;
}

/** One line, so that line numbers in messages are off by one only. The same part has the same URL each time. */
const PART_FUNCTION = `const __dblockUrls = []; function __dblockPart(index) {
  return new URL(__dblockUrls[index] ??= URL.createObjectURL(new Blob([
    "globalThis.__dblockFirst ??= " + __dblockFirst + ";", Deno.readFileSync("/proc/self/fd/" + (__dblockFirst + index)),
  ], { type: "text/javascript" })));
}`.replaceAll(/\n */g, " ");

async function compileStub(arch: Arch, scratchDir: string): Promise<Uint8Array> {
  const { gcc, objcopy, flags, remedy } = stubTools(arch);
  const linked = `${scratchDir}/stub-${Deno.pid}.elf`;
  const flat = `${scratchDir}/stub-${Deno.pid}.bin`;
  try {
    await run(
      gcc,
      [...STUB_FLAGS.split(" "), ...flags, `-Wl,-T,${HERE}stub.ld`, "-o", linked, `${HERE}stub.c`],
      remedy,
    );
    await run(objcopy, ["-O", "binary", "-j", ".stub", linked, flat], remedy);
    return Deno.readFileSync(flat);
  } finally {
    for (const file of [linked, flat]) if (existsSync(file)) Deno.removeSync(file);
  }
}

async function run(command: string, args: readonly string[], remedy: string): Promise<void> {
  let result;
  try {
    result = await new Deno.Command(command, { args: [...args], stdout: "null", stderr: "piped" }).output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new Error(`Cannot find ${command}; type: ${remedy}`);
    throw error;
  }
  if (!result.success) throw new Error(`${command} failed: ${new TextDecoder().decode(result.stderr).trim()}`);
}
