/**
 * The kernel named "debug": Debian's source of 6.12, built with every checker that finds mistakes of a block driver and little
 * else (debug.config). The first build takes a while; after that it is a kernel like the others of kernels.ts.
 *
 * What the checkers find is not decided here: dmesg.ts knows their words, and guest.ts looks after each test file.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Apt } from "./debian.ts";
import { buildDir, contentHash, exists, makeDirOnce, run, runMain, UserError, withLock } from "./host.ts";
import type { Kernel } from "./kernels.ts";

const configFile = fileURLToPath(new URL("debug.config", import.meta.url));
const sourcePackage = "linux-source-6.12";
const suites = ["bookworm-backports", "bookworm", "bookworm-security"];
/** The one that module.ts builds modules with. */
const compiler = "gcc-12";
/** What a kernel's build needs and a module's build does not: a file and Debian's package that brings it. */
const buildTools: Readonly<Record<string, string>> = {
  "/usr/bin/flex": "flex",
  "/usr/bin/bison": "bison",
  "/usr/bin/bc": "bc",
  "/usr/include/libelf.h": "libelf-dev",
};

/** Makes the debug kernel ready: downloads its source and builds it unless that was done before. */
export async function fetchDebugKernel(): Promise<Kernel> {
  const sourceDir = await fetchSource();
  const source = (await run(["make", "--silent", "-C", sourceDir, "kernelversion"])).trim();
  const compilerVersion = await run([compiler, "--version"]);
  const hash = contentHash([configFile], [source, compilerVersion]);
  // The release has the hash in it, so that modules and their images of another configuration are never taken for ours.
  const release = `${source}-debug-${hash.slice(0, 8)}`;
  const rootDir = join(buildDir, "kernels", `debug-${hash}`);
  const outputDir = join(rootDir, "build");
  const stampFile = join(rootDir, "release");
  if (!exists(stampFile)) {
    await withLock(`${rootDir}.lock`, async () => {
      if (exists(stampFile)) return;
      await build(sourceDir, rootDir, release);
      await Deno.writeTextFile(stampFile, release);
    });
    await removeOld(rootDir);
  }
  return {
    version: "debug",
    release,
    rootDir,
    hasToolchain: false,
    headersDir: outputDir,
    modulesDir: join(rootDir, "usr/lib/modules", release),
    imageFile: join(outputDir, "arch/x86/boot/bzImage"),
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

/** Builds kernel and modules. An interrupted build goes on where it was. */
async function build(sourceDir: string, rootDir: string, release: string): Promise<void> {
  const missing = Object.entries(buildTools).filter(([file]) => !exists(file)).map(([, name]) => name);
  if (missing.length > 0) {
    throw new UserError(
      `Cannot build the debug kernel without ${missing.join(", ")}: apt-get install ${missing.join(" ")}`,
    );
  }
  const outputDir = join(rootDir, "build");
  await Deno.mkdir(outputDir, { recursive: true });
  const localVersion = release.slice(release.indexOf("-"));
  const make = ["make", "-C", sourceDir, `O=${outputDir}`, `CC=${compiler}`, `LOCALVERSION=${localVersion}`];
  await run([...make, `KCONFIG_ALLCONFIG=${configFile}`, "allnoconfig"], { logFile: join(rootDir, "config.log") });
  await checkConfig(join(outputDir, ".config"));
  const logFile = join(rootDir, "make.log");
  console.error(
    `building kernel ${release}, 10 to 30 minutes (${logFile.slice(buildDir.length - ".build".length)} grows)`,
  );
  // The log is written as the build goes on. The build is long: whatever else the machine does comes first.
  const script = 'log=$1; shift; "$@" >"$log" 2>&1 || { tail --lines=25 "$log" >&2; exit 1; }';
  const processors = navigator.hardwareConcurrency;
  await run(["nice", "bash", "-c", script, "bash", logFile, ...make, `-j${processors}`, "bzImage", "modules"]);
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
async function checkConfig(file: string): Promise<void> {
  const lines = (text: string) => text.split("\n").filter((line) => /^CONFIG_\w+=/.test(line));
  const result = lines(await Deno.readTextFile(file));
  const set = new Set(result);
  const names = new Set(result.map((line) => line.split("=")[0]!));
  const lost = lines(await Deno.readTextFile(configFile)).filter((line) => {
    const [name, value] = line.split("=") as [string, string];
    return value === "n" ? names.has(name) : !set.has(line);
  });
  if (lost.length === 0) return;
  throw new UserError(
    `Cannot build the debug kernel: Kconfig does not take these lines of debug.config: ${lost.join(" ")}`,
  );
}

/** Builds of other configurations are large. */
async function removeOld(keep: string): Promise<void> {
  const kernelsDir = join(buildDir, "kernels");
  for (const { name } of [...Deno.readDirSync(kernelsDir)]) {
    const path = join(kernelsDir, name);
    if (!/^debug-[0-9a-f]{16}(\.lock)?$/.test(name) || path === keep || path === `${keep}.lock`) continue;
    await Deno.remove(path, { recursive: true });
  }
}

if (import.meta.main) {
  await runMain(async () => {
    const started = performance.now();
    const kernel = await fetchDebugKernel();
    console.log(`${kernel.release} (${((performance.now() - started) / 1000).toFixed(0)} s)`);
    return 0;
  });
}
