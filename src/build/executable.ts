// SPDX-License-Identifier: MIT
/**
 * Makes one self-contained executable of one program: `executable.ts --output FILE ENTRY.ts`. With `deno compile` where
 * its runtime can be had; elsewhere from Deno's own binary, with the bundled program and a stub in it (stub.c).
 * README.md says what a program must keep to. Nothing happens when nothing changed.
 */
import { createHash } from "node:crypto";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "@std/cli";
import { addProgram } from "./elf.ts";
import { compile, findDenort } from "./denort.ts";
import { type Arch, denoFor, stubTools } from "./target.ts";
import { type Part, type Program, readProgram, replaceReferences } from "./program.ts";

const HERE = dirname(new URL(import.meta.url).pathname);
const CACHE = resolve(HERE, "../../.build/executable");
const USAGE = `Usage: executable.ts --output FILE [--way auto|compile|stub] [--arch x86_64|aarch64] ENTRY.ts`;
/** Files that decide what comes out, besides the program's own. */
const BUILDER_FILES = ["executable.ts", "elf.ts", "denort.ts", "program.ts", "target.ts", "stub.c", "stub.ld"];

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

type Way = "auto" | "compile" | "stub";

/** What is asked for, besides the program. */
interface Kind {
  readonly way: Way;
  readonly arch: Arch;
}

/** What the last build was made of, to tell whether the next one is needed. */
interface Stamp {
  readonly key: string;
  readonly inputs: readonly string[];
  readonly outputBytes: number;
  readonly outputTime: number;
}

async function main(): Promise<void> {
  const args = parseArgs(Deno.args, {
    string: ["output", "way", "arch"],
    default: { way: "auto", arch: Deno.build.arch },
  });
  const [entry, ...rest] = args._.map(String);
  const { way, arch } = args;
  if (entry === undefined || rest.length > 0 || args.output === undefined || !isWay(way) || !isArch(arch)) {
    throw new Error(USAGE);
  }
  const output = resolve(args.output);
  const stampPath = `${CACHE}/${basename(output)}-${digest([output]).slice(0, 12)}.json`;
  Deno.mkdirSync(CACHE, { recursive: true });

  if (isCurrent(readStamp(stampPath), output, { way, arch })) return;
  const program = await readProgram(entry);
  const temporary = `${output}.building-${Deno.pid}`;
  try {
    const how = await make(program, temporary, { way, arch });
    Deno.renameSync(temporary, output);
    const { size, mtime } = Deno.statSync(output);
    const { inputs } = program;
    const stamp: Stamp = {
      key: keyOf(inputs, { way, arch }),
      inputs,
      outputBytes: size,
      outputTime: mtime?.getTime() ?? 0,
    };
    Deno.writeTextFileSync(stampPath, JSON.stringify(stamp, null, 2));
    console.log(`executable: ${args.output} (${(size / 2 ** 20).toFixed(0)} MiB), ${how}`);
  } finally {
    removeIfThere(temporary);
  }
}

function isArch(text: string): text is Arch {
  return text === "x86_64" || text === "aarch64";
}

function isWay(text: string): text is Way {
  return text === "auto" || text === "compile" || text === "stub";
}

/** Makes the executable one way or the other; says which in words for the user. */
async function make(program: Program, output: string, { way, arch }: Kind): Promise<string> {
  const [entry, ...others] = program.parts;
  if (entry === undefined) throw new Error("unreachable: a program without an entry");
  if (arch !== Deno.build.arch && way === "compile") {
    throw new Error(`Cannot make an executable for ${arch} with deno compile here: leave --way out`);
  }
  const isStub = way === "stub" || arch !== Deno.build.arch;
  const denort = isStub ? { available: false, reason: `as asked, for ${arch}` } : await findDenort();
  let reason = denort.reason;
  if (denort.available || way === "compile") {
    try {
      await compile(entry.path, others.map((part) => part.path), output);
      return `made by deno compile (${reason})`;
    } catch (error) {
      reason = `deno compile failed: ${error instanceof Error ? error.message : error}`;
      if (way === "compile") throw new Error(reason);
    }
  }
  await makeFromDeno(program.parts, output, arch);
  return `made from Deno's own binary with the program in it (${reason})`;
}

async function makeFromDeno(parts: readonly Part[], output: string, arch: Arch): Promise<void> {
  const stub = await compileStub(arch);
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

async function compileStub(arch: Arch): Promise<Uint8Array> {
  const { gcc, objcopy, flags, remedy } = stubTools(arch);
  const linked = `${CACHE}/stub-${Deno.pid}.elf`;
  const flat = `${CACHE}/stub-${Deno.pid}.bin`;
  try {
    await run(
      gcc,
      [...STUB_FLAGS.split(" "), ...flags, `-Wl,-T,${HERE}/stub.ld`, "-o", linked, `${HERE}/stub.c`],
      remedy,
    );
    await run(objcopy, ["-O", "binary", "-j", ".stub", linked, flat], remedy);
    return Deno.readFileSync(flat);
  } finally {
    removeIfThere(linked);
    removeIfThere(flat);
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

function isCurrent(stamp: Stamp | undefined, output: string, kind: Kind): boolean {
  if (stamp === undefined) return false;
  try {
    const { size, mtime } = Deno.statSync(output);
    return size === stamp.outputBytes && mtime?.getTime() === stamp.outputTime &&
      stamp.key === keyOf(stamp.inputs, kind);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Changes when any input, this builder, Deno or the way asked for does. Times of files do not count. */
function keyOf(inputs: readonly string[], { way, arch }: Kind): string {
  const files = [...inputs, ...BUILDER_FILES.map((name) => `${HERE}/${name}`)];
  const contents = files.flatMap((path) => [path, Deno.readFileSync(path)]);
  return digest([Deno.version.deno, way, arch, Deno.env.get("DENORT_BIN") ?? "", ...contents]);
}

function digest(pieces: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(`${piece.length}:`).update(piece);
  return hash.digest("hex");
}

function readStamp(path: string): Stamp | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    // A stamp that cannot be read only costs a build.
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(`executable: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
