/**
 * The kernels the module is built for and tested on: which they are, where they come from, and how one is fetched.
 * A kernel is a tree of unpacked Debian packages under `.build/kernels/`; nothing is installed on the system.
 */
import { join } from "node:path";
import type { Architecture } from "./architecture.ts";
import { Apt } from "./debian.ts";
import { debugKernelNames, fetchDebugKernel } from "./debug_kernel.ts";
import { buildDir, exists, makeDirOnce, run, UserError } from "./host.ts";

interface KernelSource {
  /** What people type: `KERNEL=6.12`. */
  readonly version: string;
  /** Debian's suites that have it. */
  readonly suites: readonly string[];
  /** @default "amd64" */
  readonly architecture?: Architecture;
  /** As {@linkcode Kernel.processor}. */
  readonly processor?: string;
  /** Names of its image packages; the newest that matches is taken. */
  readonly image: RegExp;
  /** Packages of the compiler it wants, where the compiler of Debian 12 will not do. The build then runs inside the kernel's tree. */
  readonly toolchain?: readonly string[];
}

const kernelSources: readonly KernelSource[] = [
  {
    version: "5.10",
    suites: ["bullseye", "bullseye-security"],
    image: /^linux-image-5\.10\.0-\d+-cloud-amd64$/,
  },
  {
    version: "6.1",
    suites: ["bookworm", "bookworm-security"],
    image: /^linux-image-6\.1\.0-\d+-cloud-amd64$/,
  },
  {
    version: "6.12",
    suites: ["bookworm-backports", "bookworm", "bookworm-security"],
    image: /^linux-image-6\.12\.\d+\+deb12(\.\d+)?-cloud-amd64$/,
  },
  {
    version: "7.2",
    suites: ["sid"],
    image: /^linux-image-7\.2\.\d+\+deb\d+(\.\d+)?-cloud-amd64$/,
    toolchain: ["?essential", "gcc-16", "make", "pahole", "sparse", "dpkg-dev"],
  },
];

/** Kernels of another kind: for another machine, with larger pages, or with locks that sleep (PREEMPT_RT). */
const otherSources: readonly KernelSource[] = [
  {
    version: "6.12-rt",
    suites: ["bookworm-backports", "bookworm", "bookworm-security"],
    image: /^linux-image-6\.12\.\d+\+deb12(\.\d+)?-rt-amd64$/,
  },
  {
    version: "6.12-arm64",
    architecture: "arm64",
    suites: ["bookworm-backports", "bookworm", "bookworm-security"],
    image: /^linux-image-6\.12\.\d+\+deb12(\.\d+)?-cloud-arm64$/,
  },
  {
    version: "6.12-arm64-16k",
    architecture: "arm64",
    // The first of its family that knows pages of 16 KiB.
    processor: "cortex-a76",
    suites: ["bookworm-backports", "bookworm", "bookworm-security"],
    image: /^linux-image-6\.12\.\d+\+deb12(\.\d+)?-arm64-16k$/,
  },
  {
    // 32 bits, and more memory than the kernel can see at once. No Deno there: tests/portable is what runs on it.
    version: "6.1-armhf",
    architecture: "armhf",
    suites: ["bookworm"],
    image: /^linux-image-6\.1\.0-\d+-armmp$/,
  },
];

/** The kernel taken where none is named. */
export const defaultKernel = "6.12";

/** Versions of the kernels that the project is for, oldest first. */
export const kernelVersions: readonly string[] = kernelSources.map((source) => source.version);

/** Names of kernels of another kind. */
export const otherKernelNames: readonly string[] = otherSources.map((source) => source.version);

/** Whether that is what `uname -r` may say in the kernel of that name. */
export function isReleaseOf(name: string, release: string): boolean {
  const source = [...kernelSources, ...otherSources].find(({ version }) => version === name);
  return source?.image.test(`linux-image-${release}`) ?? false;
}

/** A kernel that is unpacked and ready to be built for and booted. */
export interface Kernel {
  readonly version: string;
  readonly architecture: Architecture;
  /** The processor it wants; undefined: that of its architecture. */
  readonly processor?: string | undefined;
  /** What `uname -r` says in it. */
  readonly release: string;
  /** The tree its packages are unpacked in. */
  readonly rootDir: string;
  /** True if modules are built inside that tree, with the compiler in it. */
  readonly hasToolchain: boolean;
  readonly headersDir: string;
  readonly modulesDir: string;
  readonly imageFile: string;
  /** All time limits are multiplied by this: 1, but for a kernel that checks everything it does. */
  readonly slowness: number;
}

/** Makes a kernel ready: downloads and unpacks it unless that was done before. */
export async function fetchKernel(version: string): Promise<Kernel> {
  if (debugKernelNames.includes(version)) return await fetchDebugKernel(version);
  const sources = [...kernelSources, ...otherSources];
  const source = sources.find((candidate) => candidate.version === version);
  if (source === undefined) {
    const known = [...sources.map((candidate) => candidate.version), ...debugKernelNames].join(", ");
    throw new UserError(`Cannot use kernel "${version}": known are ${known}`);
  }
  const rootDir = join(buildDir, "kernels", version);
  await makeDirOnce(rootDir, (temporaryDir) => unpackKernel(source, temporaryDir));
  const release = await Deno.readTextFile(join(rootDir, "release"));
  const modulesDir = join(rootDir, "usr/lib/modules", release);
  const images = [join(rootDir, "boot", `vmlinuz-${release}`), join(modulesDir, "vmlinuz")];
  return {
    version,
    architecture: source.architecture ?? "amd64",
    processor: source.processor,
    release,
    rootDir,
    hasToolchain: source.toolchain !== undefined,
    headersDir: join(rootDir, "usr/src", `linux-headers-${release}`),
    modulesDir,
    imageFile: images.find(exists)!,
    slowness: 1,
  };
}

async function unpackKernel(source: KernelSource, rootDir: string): Promise<void> {
  const apt = new Apt(`kernel-${source.version}`, source.suites, source.architecture);
  const images = (await apt.search(source.image)).sort(compareNumbers);
  const image = images.at(-1);
  if (image === undefined) {
    throw new UserError(
      `Cannot find kernel ${source.version}: no package in ${source.suites.join(", ")} matches ${source.image} ` +
        `(Debian has moved on; tests/vm/kernels.ts names the packages)`,
    );
  }
  const release = image.replace("linux-image-", "");
  console.error(`unpacking Debian's kernel ${release}`);
  const packages = await packagesOfKernel(apt, release);
  // The programs that build modules run here, whatever the modules are for.
  const isForeign = source.architecture !== undefined;
  const tools = isForeign ? packages.filter((name) => name.startsWith("linux-kbuild-")) : [];
  await apt.unpack(packages.filter((name) => !tools.includes(name)), rootDir);
  if (isForeign) await new Apt(`kernel-${source.version}-tools`, source.suites).unpack(tools, rootDir);
  if (source.toolchain === undefined) {
    await relocateHeaders(rootDir, release);
  } else {
    await apt.unpackClosure(source.toolchain, rootDir);
    // Packages' maintainer scripts do not run here; this is the one alternative that builds ask for.
    await run(["ln", "-sf", "mawk", join(rootDir, "usr/bin/awk")]);
  }
  await run(["depmod", "--basedir", rootDir, release]);
  await Deno.writeTextFile(join(rootDir, "release"), release);
}

/** A kernel, its headers, and what of the same sources they depend on. */
async function packagesOfKernel(apt: Apt, release: string): Promise<string[]> {
  const packages = new Set<string>();
  const pending = [`linux-image-${release}`, `linux-headers-${release}`];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (packages.has(name)) continue;
    packages.add(name);
    const wanted = /^linux-(headers|kbuild|binary|modules|base-\d)/;
    pending.push(...(await apt.depends(name)).filter((dependency) => wanted.test(dependency)));
  }
  return [...packages];
}

/** Downloads the packages of one of the kernels that are tested on Debian, its headers included, into a folder. */
export async function downloadKernel({ version, release }: Kernel, dir: string): Promise<void> {
  const apt = new Apt(`kernel-${version}`, kernelSources.find((source) => source.version === version)!.suites);
  await apt.download(await packagesOfKernel(apt, release), dir);
}

/** Makes the headers' makefile find its other half relative to itself instead of in the system's /usr/src. */
async function relocateHeaders(rootDir: string, release: string): Promise<void> {
  const makefile = join(rootDir, "usr/src", `linux-headers-${release}`, "Makefile");
  const text = await Deno.readTextFile(makefile);
  const relocated = text.replaceAll("/usr/src/", "$(dir $(abspath $(lastword $(MAKEFILE_LIST))))../");
  await Deno.writeTextFile(makefile, relocated);
}

/** Orders names by the numbers in them, as versions are ordered. */
function compareNumbers(a: string, b: string): number {
  const numbers = (text: string) => (text.match(/\d+/g) ?? []).map(Number);
  const [left, right] = [numbers(a), numbers(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? -1) - (right[i] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}
