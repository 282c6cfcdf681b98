// SPDX-License-Identifier: MIT
/**
 * The way to one file where denort cannot be had: a copy of Deno's own binary with the bundled program and a stub in it.
 * Nothing else uses this folder. It can go when everybody who builds gets denort from somewhere.
 */
import { existsSync } from "@std/fs";
import { basename } from "node:path";
import { type Part, replaceReferences, V8_FLAGS } from "../program.ts";
import { addProgram, type Bundle } from "./elf.ts";
import { startRuntime } from "./runtime.ts";
import { asScript } from "./script.ts";
import { type Arch, denoFor, stubTools } from "./target.ts";

const HERE = new URL(".", import.meta.url).pathname;
/** Files that decide what comes out, besides the program's own. */
export const MAKER_FILES = ["make.ts", "elf.ts", "runtime.ts", "script.ts", "target.ts", "stub.c", "stub.ld"].map((
  name,
) => `${HERE}${name}`);

/**
 * Deno's options in an executable. Everything that would look at the machine is off: configuration, lock file, cache,
 * network, prompts. `--ext` because the program's path, a file descriptor, has no extension.
 */
const OPTIONS = "deno run --quiet --allow-all --no-prompt --no-config --no-lock --no-remote --no-npm --cached-only " +
  `--no-code-cache --ext=js --v8-flags=${V8_FLAGS}`;

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
  Deno.copyFileSync(await denoFor(arch), output);
  Deno.chmodSync(output, 0o755);
  addProgram(output, stub, { options: OPTIONS.split(" "), variables: VARIABLES, bundles: bundlesOf(parts) });
}

/** A part that another one imports. As a script it is run at once: the way through a module with a URL takes 10 ms. */
const IMPORTED = /\bimport\(__dblock\.part\((\d+)\)\.href\)/g;

function isScript({ code, path }: Part): boolean {
  return asScript(code, basename(path), false) !== undefined;
}

/**
 * The program as the stub gives it to Deno, in consecutive file descriptors: a few lines that Deno loads as the main
 * module, and the parts, which those lines run.
 */
function bundlesOf(parts: readonly Part[]): Bundle[] {
  const made = parts.map((part, index) => {
    const code = replaceReferences(part.code, (specifier) => {
      const target = parts.findIndex((other) => other.path === part.references.get(specifier));
      if (target < 0) throw new Error(`unreachable: ${specifier} is no part of the program`);
      return `__dblock.part(${target})`;
    }).replaceAll(
      IMPORTED,
      (all, target: string) => isScript(parts[Number(target)]!) ? `__dblock.run(${target})` : all,
    );
    const name = basename(part.path);
    return { name, code, script: asScript(code, name, index === 0) };
  });
  const first = "Number(/\\d+$/.exec(import.meta.url)) + 1";
  const exportsOf = JSON.stringify(made.map(({ script }) => script?.exports ?? null));
  const begin = `(${startRuntime})(${first}, ${exportsOf});`;
  const [entry] = made;
  // An entry that imports something is a module, and Deno loads the one that is named; so it follows in the same text.
  const main = entry?.script === undefined ? `${begin}\n${entry?.code}` : `${begin} await __dblock.run(0);`;
  const encoder = new TextEncoder();
  return [
    { name: entry?.name ?? "", source: encoder.encode(main) },
    ...made.map(({ name, code, script }) => ({ name, source: encoder.encode(script?.source ?? code) })),
  ];
}

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
