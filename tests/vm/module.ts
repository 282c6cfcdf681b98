/**
 * Builds dblock.ko for a kernel. Sources are copied into a build folder per kernel release, so that kernels never
 * mix, and a build is reused only while the content of every source is what it was built from.
 */
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { machineOf } from "./architecture.ts";
import { buildDir, contentHash, exists, listFiles, projectDir, run, runMain, UserError, withLock } from "./host.ts";
import { defaultKernel, fetchKernel, type Kernel } from "./kernels.ts";

/** Where modules are built: for a kernel of ours, or for the one this machine runs. */
interface Target {
  readonly release: string;
  readonly headersDir: string;
  /** Further words for make. */
  readonly makeArguments: readonly string[];
  /** The tree to build inside, when the kernel brings its compiler. */
  readonly chrootDir?: string | undefined;
  /** Warnings fail the build; off on machines of others, whose compilers we have not seen. */
  readonly strict: boolean;
}

/** Options of {@linkcode buildModule}. */
export interface ModuleOptions {
  /** The folder of sources with its Kbuild. @default kmod/ of the checkout */
  readonly sourceDir?: string | undefined;
  /** The module's name. @default "dblock" */
  readonly name?: string | undefined;
  /** Keeps this build apart from others of that name. @default the module's name if it is another */
  readonly variant?: string | undefined;
  /** Check with sparse instead of building. @default false */
  readonly sparse?: boolean;
}

/** Builds the module for one of our kernels, unless it was built from the same content before. Returns the .ko's path. */
export async function buildModule(kernel: Kernel, options: ModuleOptions = {}): Promise<string> {
  const { makeArguments } = await machineOf(kernel.architecture);
  return await buildFor({
    release: kernel.release,
    // A kernel that brings its compiler knows its name.
    makeArguments: kernel.hasToolchain ? [] : makeArguments,
    headersDir: kernel.headersDir,
    chrootDir: kernel.hasToolchain ? kernel.rootDir : undefined,
    strict: true,
  }, options);
}

async function buildFor(target: Target, options: ModuleOptions): Promise<string> {
  const { name = "dblock", variant = name === "dblock" ? undefined : name, sparse = false } = options;
  const dir = join(
    buildDir,
    variant === undefined ? "kmod" : `kmod-${variant}`,
    target.release + (sparse ? "-sparse" : ""),
  );
  return await withLock(`${dir}.lock`, () => buildIn(dir, target, options));
}

async function buildIn(dir: string, target: Target, options: ModuleOptions): Promise<string> {
  const { sourceDir = join(projectDir, "kmod"), name = "dblock", sparse = false } = options;
  const module = join(dir, `${name}.ko`);
  const sources = listFiles(sourceDir).filter((file) =>
    /(\.[ch]|(^|\/)Kbuild)$/.test(file) && !file.endsWith(".mod.c")
  );
  if (!sources.includes("Kbuild")) throw new UserError(`Cannot build ${name}: ${sourceDir} has no Kbuild`);
  const makeArguments = makeCommand(target, sparse, join(dir, "build"));
  const hashSources = () =>
    contentHash(sources.map((file) => join(sourceDir, file)), [target.release, ...makeArguments]);
  const hash = hashSources();
  const stampFile = join(dir, "stamp");
  if (!sparse && exists(stampFile) && exists(module)) {
    // The stamp covers the result as well: a module that something else overwrote is built again.
    if (await Deno.readTextFile(stampFile) === `${hash} ${contentHash([module])}`) return module;
  }
  if (exists(dir)) await Deno.remove(dir, { recursive: true });
  for (const file of sources) {
    const copy = join(dir, "build", file);
    await Deno.mkdir(dirname(copy), { recursive: true });
    await Deno.copyFile(join(sourceDir, file), copy);
  }
  if (hashSources() !== hash) {
    throw new UserError(`Cannot build ${name}: a source changed while it was copied; try again`);
  }
  console.error(`${sparse ? "checking" : "building"} ${name}.ko for ${target.release}`);
  const logFile = join(dir, "make.log");
  // 2>&1 keeps messages in their order in the log.
  await run(["bash", "-c", '"$@" 2>&1', "bash", ...makeArguments], { logFile });
  if (target.strict) await refuseWarnings(logFile);
  if (sparse) return logFile;
  await Deno.rename(join(dir, "build", `${name}.ko`), module);
  await Deno.writeTextFile(stampFile, `${hash} ${contentHash([module])}`);
  return module;
}

function makeCommand(target: Target, sparse: boolean, moduleDir: string): string[] {
  const check = sparse ? ["C=2", "CHECK=sparse"] : [];
  const command = (headersDir: string, dir: string) => [
    "make",
    "-C",
    headersDir,
    `M=${dir}`,
    `-j${navigator.hardwareConcurrency}`,
    ...(target.strict ? ["W=1"] : []),
    ...target.makeArguments,
    ...check,
    "modules",
  ];
  if (target.chrootDir === undefined) {
    return command(target.headersDir, moduleDir);
  }
  const headersDir = target.headersDir.slice(target.chrootDir.length);
  const script =
    'mkdir -p "$1/build" "$1/dev" "$1/proc" && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && ' +
    'mount --bind "$2" "$1/build" && cd "$1" && shift 2 && exec chroot . "$@"';
  const inside = ["/usr/bin/env", "PATH=/usr/sbin:/usr/bin", ...command(headersDir, "/build")];
  const unshare = ["unshare", "--mount", ...(Deno.uid() === 0 ? [] : ["--map-root-user"])];
  return [...unshare, "bash", "-ec", script, "bash", target.chrootDir, moduleDir, ...inside];
}

/** Fails if the build's log has a warning about our own files. */
async function refuseWarnings(logFile: string): Promise<void> {
  const lines = (await Deno.readTextFile(logFile)).split("\n");
  const warnings = lines.filter((line) => {
    if (!/\b(warning|error):|^WARNING:/i.test(line)) return false;
    // Debian's headers warn by themselves at W=1 and under sparse; "the compiler differs" is true and harmless.
    return !/\/linux-headers-[^:]*:\d+|the compiler differs|^\.\/(arch|include)\//.test(line);
  });
  if (warnings.length === 0) return;
  await Deno.writeTextFile(logFile, lines.join("\n"));
  throw new UserError(
    `${warnings.length} warnings, all of them errors here:\n${warnings.map((line) => `    ${line}`).join("\n")}`,
  );
}

/** The headers of the kernel this machine runs, if it has them. */
function runningKernel(): Target | undefined {
  const release = Deno.osRelease();
  const headersDir = `/lib/modules/${release}/build`;
  return exists(headersDir) ? { release, headersDir, makeArguments: [], strict: false } : undefined;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      kernel: { type: "string" },
      sparse: { type: "boolean", default: false },
      source: { type: "string" },
      name: { type: "string" },
    },
  });
  const options: ModuleOptions = { sparse: values.sparse, sourceDir: values.source, name: values.name };
  const running = values.kernel ? undefined : runningKernel();
  const built = running === undefined
    ? await buildModule(await fetchKernel(values.kernel || defaultKernel), options)
    : await buildFor(running, options);
  if (values.sparse) console.log("sparse has nothing to say");
  else console.log(built.replace(`${projectDir}/`, ""));
  if (!values.kernel && !values.sparse && values.name === undefined) {
    await Deno.copyFile(built, join(projectDir, "kmod", "dblock.ko"));
    console.log("kmod/dblock.ko");
  }
  return 0;
}

if (import.meta.main) await runMain(main);
