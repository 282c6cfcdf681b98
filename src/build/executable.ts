// SPDX-License-Identifier: MIT
/**
 * Makes one self-contained executable of one program: `executable.ts --output FILE ENTRY.ts`, under more names if the
 * program looks at the name it was called by (`--also NAME`). With `deno compile` where
 * its runtime can be had; elsewhere from Deno's own binary, with the bundled program and a stub in it (without_denort/).
 * README.md says what a program must keep to. Nothing happens when nothing changed.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "@std/cli";
import { existsSync } from "@std/fs";
import { compile, findDenort } from "./denort.ts";
import { type Program, readProgram } from "./program.ts";
import { makeFromDeno, MAKER_FILES } from "./without_denort/make.ts";
import type { Arch } from "./without_denort/target.ts";

const HERE = dirname(new URL(import.meta.url).pathname);
const CACHE = resolve(HERE, "../../.build/executable");
const USAGE =
  `Usage: executable.ts --output FILE [--also NAME]... [--way auto|compile|stub] [--arch x86_64|aarch64] ENTRY.ts`;
/** Files that decide what comes out, besides the program's own. */
const BUILDER_FILES = [
  ...["executable.ts", "denort.ts", "program.ts"].map((name) => `${HERE}/${name}`),
  ...MAKER_FILES,
];

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
    string: ["output", "way", "arch", "also"],
    collect: ["also"],
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

  if (isCurrent(readStamp(stampPath), output, { way, arch })) return args.also.forEach((name) => linkTo(output, name));
  const program = await readProgram(entry);
  const temporary = `${output}.building-${Deno.pid}`;
  try {
    const how = await make(program, temporary, { way, arch });
    Deno.renameSync(temporary, output);
    for (const name of args.also) linkTo(output, name);
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

/** Another name of a file, in the same folder: a hard link, so that a program sees the name it was called by. */
function linkTo(output: string, name: string): void {
  const path = join(dirname(output), name);
  if (existsSync(path) && Deno.statSync(path).ino === Deno.statSync(output).ino) return;
  const temporary = `${path}.linking-${Deno.pid}`;
  removeIfThere(temporary);
  Deno.linkSync(output, temporary);
  Deno.renameSync(temporary, path);
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
  const denort = way === "stub" ? { available: false, reason: "as asked" } : await findDenort(arch);
  let reason = denort.reason;
  if (denort.available || way === "compile") {
    try {
      await compile(entry.path, others.map((part) => part.path), output, arch);
      return `made by deno compile (${reason})`;
    } catch (error) {
      reason = `deno compile failed: ${error instanceof Error ? error.message : error}`;
      if (way === "compile") throw new Error(reason);
    }
  }
  await makeFromDeno(program.parts, output, arch, CACHE);
  return `made from Deno's own binary with the program in it (${reason})`;
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
  const files = [...inputs, ...BUILDER_FILES];
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
