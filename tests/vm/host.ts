/**
 * The checkout on the host: where its folders are, how commands run, how content is hashed.
 * Knows nothing of kernels or VMs. Everything built or downloaded goes under `.build/`.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The top folder of the checkout. */
export const projectDir = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The ignored folder that holds everything this project builds or downloads. */
export const buildDir = join(projectDir, ".build");

/** An error whose message is meant for the person at the keyboard: no stack, one or few lines. */
export class UserError extends Error {
  override name = "UserError";
}

/** Options of {@linkcode run}. */
export interface RunOptions {
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Called with the whole output when the command fails; says what to do about it. */
  readonly hint?: string | undefined;
  /** Names a file in which the output is kept. */
  readonly logFile?: string | undefined;
}

/** Runs a command to its end and returns its standard output. Throws with the output's tail when it fails. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program, ...args] = command;
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(program!, {
      args,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { LC_ALL: "C.UTF-8", ...options.env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new UserError(`Cannot run "${program}": not found ("make doctor" says what to install)`);
    }
    throw error;
  }
  const decoder = new TextDecoder();
  const stdout = decoder.decode(output.stdout);
  const stderr = decoder.decode(output.stderr);
  if (options.logFile !== undefined) await Deno.writeTextFile(options.logFile, stdout + stderr);
  if (!output.success) {
    const tail = (stdout + stderr).trimEnd().split("\n").slice(-25).map((line) => `    ${line}`).join("\n");
    const hint = options.hint === undefined ? "" : `\n${options.hint}`;
    throw new UserError(`"${command.join(" ")}" ended with ${output.code}:\n${tail}${hint}`);
  }
  return stdout;
}

/** True if a file, folder or link is there. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The files below a folder, as sorted paths relative to it. Links are listed, not followed. */
export function listFiles(dir: string): string[] {
  const found: string[] = [];
  const visit = (relative: string) => {
    for (const entry of Deno.readDirSync(join(dir, relative))) {
      const path = relative === "" ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory) visit(path);
      else found.push(path);
    }
  };
  visit("");
  return found.sort();
}

/**
 * A hash of names, modes and bytes of files and folders, and of any further strings that decide a build's result.
 * Times and hidden state do not enter, so a changed file is never taken for an unchanged one.
 */
export function contentHash(paths: readonly string[], extra: readonly string[] = []): string {
  const hash = createHash("sha256");
  for (const path of paths) {
    const info = Deno.lstatSync(path);
    const files = info.isDirectory ? listFiles(path).map((file) => join(path, file)) : [path];
    for (const file of files) {
      const entry = Deno.lstatSync(file);
      const bytes = entry.isSymlink ? new TextEncoder().encode(Deno.readLinkSync(file)) : Deno.readFileSync(file);
      hash.update(`${file}\0${entry.mode}\0${bytes.length}\0`);
      hash.update(bytes);
    }
  }
  for (const text of extra) hash.update(`${text.length}\0${text}`);
  return hash.digest("hex").slice(0, 16);
}

/** Holds a lock, a file of that name, while `work` is done: two runs in one checkout do not make the same thing at once. */
export async function withLock<T>(lockFile: string, work: () => Promise<T>): Promise<T> {
  await Deno.mkdir(dirname(lockFile), { recursive: true });
  using file = await Deno.open(lockFile, { write: true, create: true });
  await file.lock(true);
  return await work();
}

/**
 * Makes a folder exactly once: `make` fills a temporary one, which then takes the final name in one step, so
 * that an interrupted or concurrent run never leaves a half-made result behind.
 */
export async function makeDirOnce(dir: string, make: (temporaryDir: string) => Promise<void>): Promise<void> {
  if (exists(dir)) return;
  await withLock(`${dir}.lock`, async () => {
    if (exists(dir)) return;
    const temporaryDir = `${dir}.making`;
    if (exists(temporaryDir)) await Deno.remove(temporaryDir, { recursive: true });
    await Deno.mkdir(temporaryDir);
    await make(temporaryDir);
    await Deno.rename(temporaryDir, dir);
  });
}

/** Runs a program's main function; a {@linkcode UserError} becomes its message and exit status 1. */
export async function runMain(main: () => Promise<number>): Promise<never> {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
