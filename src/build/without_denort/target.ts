// SPDX-License-Identifier: MIT
/**
 * The kinds of machine that an executable can be made for without denort: Deno for each, and the compiler of its stub.
 * This machine's own kind needs nothing; for the other one Deno comes from npm, and the compiler is a cross compiler.
 */
import { existsSync } from "@std/fs";

/** As `Deno.build.arch` says it. */
export type Arch = typeof Deno.build.arch;

const TOOLCHAIN = new URL("../../../.build/toolchain/", import.meta.url).pathname;

/** What makes a stub. */
export interface StubTools {
  readonly gcc: string;
  readonly objcopy: string;
  /** Flags that only the compiler for this kind of machine has. */
  readonly flags: readonly string[];
  /** What to type where one of them is not there. */
  readonly remedy: string;
}

/** No landing pads or signed return addresses: the stub has nothing to protect, and older processors lack them. */
const FLAGS: Readonly<Record<Arch, readonly string[]>> = {
  x86_64: ["-fcf-protection=none"],
  aarch64: ["-mbranch-protection=none"],
};

/** Compiler and objcopy for a kind of machine, as Debian calls them. */
export function stubTools(arch: Arch): StubTools {
  const prefix = arch === Deno.build.arch ? "" : `${arch}-linux-gnu-`;
  // Debian has a cross compiler without its version in its name in another package only.
  const remedy = prefix ? `apt-get install gcc-12-${prefix.replace("_", "-").slice(0, -1)}` : "make toolchain";
  return { gcc: `${prefix}gcc${prefix && "-12"}`, objcopy: `${prefix}objcopy`, flags: FLAGS[arch], remedy };
}

/**
 * The Deno executable for a kind of machine, of the version that runs here; fetched from npm once.
 *
 * @throws {Error} When npm does not have it or does not answer.
 */
export async function denoFor(arch: Arch): Promise<string> {
  if (arch === Deno.build.arch) return Deno.realPathSync(Deno.execPath());
  const npmName = { x86_64: "x64", aarch64: "arm64" }[arch];
  const deno = `${TOOLCHAIN}deno-${arch}-${Deno.version.deno}`;
  if (existsSync(deno)) return deno;
  Deno.mkdirSync(TOOLCHAIN, { recursive: true });
  const temporary = Deno.makeTempDirSync({ dir: TOOLCHAIN, prefix: "fetching-" });
  try {
    const name = `@deno/linux-${npmName}-glibc@${Deno.version.deno}`;
    const script = 'cd "$1" && npm pack --silent "$2" && tar -xzf *.tgz package/deno && chmod 755 package/deno';
    const { success, stderr } = await new Deno.Command("sh", {
      args: ["-c", script, "sh", temporary, name],
      stdout: "null",
      stderr: "piped",
    }).output();
    if (!success) throw new Error(`Cannot get ${name} from npm: ${new TextDecoder().decode(stderr).trim()}`);
    Deno.renameSync(`${temporary}/package/deno`, deno);
  } finally {
    Deno.removeSync(temporary, { recursive: true });
  }
  return deno;
}
