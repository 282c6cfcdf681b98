/**
 * Kernels that check themselves: Debian's source of 6.12, built with every checker that finds mistakes of a block driver and
 * little else. The first build takes a while; after that each is a kernel like the others of kernels.ts.
 *
 * What the checkers find is not decided here: dmesg.ts knows their words, and guest.ts looks after each test file.
 */
import { join } from "node:path";
import { Apt } from "./debian.ts";
import { buildDir, contentHash, exists, makeDirOnce, projectDir, run, runMain, UserError, withLock } from "./host.ts";
import type { Kernel } from "./kernels.ts";

interface Variant {
  /** Fragments of a configuration in this folder; together they are all that is on. */
  readonly configs: readonly string[];
  /** Further words for make. */
  readonly makeArguments: readonly string[];
  /** As {@linkcode Kernel.slowness}. Measured with the start of Deno, which takes 0.8 s on other kernels. */
  readonly slowness: number;
}

const variants: Readonly<Record<string, Variant>> = {
  // Memory, locks, leaks, and calls that fail when told to.
  "debug": { configs: ["debug.config", "debug-kasan.config"], makeArguments: [], slowness: 6 },
  // Data races. A word on the command line is stronger than every makefile: only modules of later builds are instrumented.
  "kcsan": { configs: ["debug.config", "debug-kcsan.config"], makeArguments: ["KCSAN_SANITIZE=n"], slowness: 4 },
};

/** Names of these kernels, as fetchKernel() takes them. */
export const debugKernelNames: readonly string[] = Object.keys(variants);

const configDir = join(projectDir, "tests/vm");
const sourcePackage = "linux-source-6.12";
const suites = ["bookworm-backports", "bookworm", "bookworm-security"];
/** The one that module.ts builds modules with. */
const compiler = "gcc-12";
/** Makes one of these kernels ready: downloads its source and builds it unless that was done before. */
export async function fetchDebugKernel(name: string): Promise<Kernel> {
  const variant = variants[name]!;
  const sourceDir = await fetchSource();
  const source = (await run(["make", "--silent", "-C", sourceDir, "kernelversion"])).trim();
  const config = variant.configs.map((file) => Deno.readTextFileSync(join(configDir, file))).join("\n");
  const hash = contentHash([], [source, await run([compiler, "--version"]), config, ...variant.makeArguments]);
  // The release has the hash in it, so that modules and their images of another configuration are never taken for ours.
  const release = `${source}-${name}-${hash.slice(0, 8)}`;
  const rootDir = join(buildDir, "kernels", `${name}-${hash}`);
  const stampFile = join(rootDir, "release");
  if (!exists(stampFile)) {
    await withLock(`${rootDir}.lock`, async () => {
      if (exists(stampFile)) return;
      await build({ sourceDir, rootDir, release, config, makeArguments: variant.makeArguments });
      await Deno.writeTextFile(stampFile, release);
    });
    await removeOld(name, rootDir);
  }
  return {
    version: name,
    architecture: "amd64",
    release,
    rootDir,
    hasToolchain: false,
    headersDir: join(rootDir, "build"),
    modulesDir: join(rootDir, "usr/lib/modules", release),
    imageFile: join(rootDir, "build/arch/x86/boot/bzImage"),
    slowness: variant.slowness,
  };
}

/** Debian's source of the kernel, unpacked. Removing the folder fetches what Debian has by then. */
async function fetchSource(): Promise<string> {
  const dir = join(buildDir, "kernels", "debug-source");
  await makeDirOnce(dir, async (temporaryDir) => {
    console.error(`unpacking ${sourcePackage}`);
    await new Apt("kernel-debug", suites).unpack([sourcePackage], temporaryDir);
    const archive = join(temporaryDir, "usr/src", `${sourcePackage}.tar.xz`);
    await run(["tar", "--extract", "--strip-components=1", "--file", archive, "--directory", temporaryDir]);
    await Deno.remove(archive);
  });
  return dir;
}

interface Build {
  readonly sourceDir: string;
  readonly rootDir: string;
  readonly release: string;
  readonly config: string;
  readonly makeArguments: readonly string[];
}

/** Builds kernel and modules. An interrupted build goes on where it was. */
async function build({ sourceDir, rootDir, release, config, makeArguments }: Build): Promise<void> {
  const outputDir = join(rootDir, "build");
  await Deno.mkdir(outputDir, { recursive: true });
  const configFile = join(rootDir, "config");
  await Deno.writeTextFile(configFile, config);
  const localVersion = release.slice(release.indexOf("-"));
  const make = ["make", "-C", sourceDir, `O=${outputDir}`, `CC=${compiler}`, `LOCALVERSION=${localVersion}`];
  await run([...make, `KCONFIG_ALLCONFIG=${configFile}`, "allnoconfig"], { logFile: join(rootDir, "config.log") });
  await checkConfig(config, join(outputDir, ".config"));
  const logFile = join(rootDir, "make.log");
  console.error(`building kernel ${release}, 15 to 30 minutes (${logFile.replace(`${projectDir}/`, "")} grows)`);
  // The log is written as the build goes on. The build is long: whatever else the machine does comes first.
  const script = 'log=$1; shift; "$@" >"$log" 2>&1 || { tail --lines=25 "$log" >&2; exit 1; }';
  const targets = [...makeArguments, `-j${navigator.hardwareConcurrency}`, "bzImage", "modules"];
  await run(["nice", "bash", "-c", script, "bash", logFile, ...make, ...targets]);
  await installModules(make, rootDir, release);
}

async function installModules(make: readonly string[], rootDir: string, release: string): Promise<void> {
  // The tree looks as Debian's unpacked packages do.
  await Deno.mkdir(join(rootDir, "usr/lib"), { recursive: true });
  if (!exists(join(rootDir, "lib"))) await Deno.symlink("usr/lib", join(rootDir, "lib"));
  await run([...make, `INSTALL_MOD_PATH=${join(rootDir, "usr")}`, "modules_install"]);
  await Deno.remove(join(rootDir, "usr/lib/modules", release, "build"));
}

/** Fails if a line of the fragment did not survive Kconfig: a checker that is silently off finds nothing. */
async function checkConfig(config: string, file: string): Promise<void> {
  const lines = (text: string) => text.split("\n").filter((line) => /^CONFIG_\w+=/.test(line));
  const result = lines(await Deno.readTextFile(file));
  const set = new Set(result);
  const names = new Set(result.map((line) => line.split("=")[0]!));
  const lost = lines(config).filter((line) => {
    const [name, value] = line.split("=") as [string, string];
    return value === "n" ? names.has(name) : !set.has(line);
  });
  if (lost.length === 0) return;
  throw new UserError(
    `Cannot build a debug kernel: Kconfig does not take these lines: ${lost.join(" ")}`,
  );
}

/** Builds of other configurations are large. */
async function removeOld(variant: string, keep: string): Promise<void> {
  const kernelsDir = join(buildDir, "kernels");
  const builds = new RegExp(`^${variant}-[0-9a-f]{16}(\\.lock)?$`);
  for (const { name } of [...Deno.readDirSync(kernelsDir)]) {
    const path = join(kernelsDir, name);
    if (!builds.test(name) || path === keep || path === `${keep}.lock`) continue;
    await Deno.remove(path, { recursive: true });
  }
}

async function main(): Promise<number> {
  const names = Deno.args.length > 0 ? Deno.args : ["debug"];
  const unknown = names.find((name) => !debugKernelNames.includes(name));
  if (unknown !== undefined) {
    throw new UserError(`Cannot build kernel "${unknown}": known are ${debugKernelNames.join(", ")}`);
  }
  for (const name of names) {
    const started = performance.now();
    const { release } = await fetchDebugKernel(name);
    console.log(`${release} is ready (${((performance.now() - started) / 1000).toFixed(0)} s)`);
  }
  return 0;
}

if (import.meta.main) await runMain(main);
