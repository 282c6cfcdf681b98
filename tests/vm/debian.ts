/**
 * Packages from Debian's archive, downloaded and unpacked without touching the system's own package state.
 * The mirror, proxies and keys are the machine's: they come from its apt configuration, never from here.
 */
import { dirname, join } from "node:path";
import type { Architecture } from "./architecture.ts";
import { buildDir, exists, makeDirOnce, run, UserError } from "./host.ts";

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** An apt configuration of our own: sources, lists, cache and (empty) package status in one folder. */
export class Apt {
  readonly #dir: string;
  readonly #suites: readonly string[];
  readonly #architecture: Architecture;
  #updated = false;

  /**
   * @param name names the folder under `.build/apt/`
   * @param suites suites of the archive, such as `bookworm`; those that end in `-security` come from the security archive
   */
  constructor(name: string, suites: readonly string[], architecture: Architecture = "amd64") {
    this.#dir = join(buildDir, "apt", name);
    this.#suites = suites;
    this.#architecture = architecture;
  }

  /** Names of all packages that match. */
  async search(pattern: RegExp): Promise<string[]> {
    const names = (await this.#apt(["apt-cache", "pkgnames", "linux-"])).split("\n");
    return names.filter((name) => pattern.test(name));
  }

  /** The names in a package's Depends field, first alternatives only. */
  async depends(packageName: string): Promise<string[]> {
    const text = await this.#apt(["apt-cache", "show", "--no-all-versions", packageName]);
    const line = /^Depends: (.*)$/m.exec(text)?.[1] ?? "";
    return line.split(",").map((item) => item.trim().split(/[ |]/)[0]!).filter((name) => name !== "");
  }

  /** Downloads exactly these packages into a folder. */
  async download(packages: readonly string[], dir: string): Promise<void> {
    await this.#apt(["apt-get", "download", ...packages], dir);
  }

  /** Unpacks exactly these packages, without what they depend on. */
  async unpack(packages: readonly string[], rootDir: string): Promise<void> {
    await Deno.mkdir(this.#dir, { recursive: true });
    const debs = await Deno.makeTempDir({ dir: this.#dir, prefix: "debs-" });
    try {
      await this.download(packages, debs);
      await unpackDebs(debs, rootDir);
    } finally {
      await Deno.remove(debs, { recursive: true });
    }
  }

  /** Unpacks these packages and everything they depend on: a tree in which their programs run. */
  async unpackClosure(packages: readonly string[], rootDir: string): Promise<void> {
    const options = ["--yes", "--no-install-recommends", "--download-only"];
    await this.#apt(["apt-get", ...options, "install", ...packages]);
    const debs = join(this.#dir, "cache", "archives");
    await unpackDebs(debs, rootDir);
    await Deno.remove(debs, { recursive: true });
  }

  async #apt(command: readonly string[], cwd?: string): Promise<string> {
    if (!this.#updated) await this.#update();
    return await run(command, { cwd, env: { APT_CONFIG: join(this.#dir, "apt.conf") } });
  }

  async #update(): Promise<void> {
    const dir = this.#dir;
    for (const folder of ["state/lists/partial", "cache/archives/partial"]) {
      await Deno.mkdir(join(dir, folder), { recursive: true });
    }
    await Deno.writeTextFile(join(dir, "sources.list"), `${(await sourcesOf(this.#suites)).join("\n")}\n`);
    await Deno.writeTextFile(join(dir, "status"), "");
    // The system's apt.conf.d is still read before this file, so that proxies and the like hold here too.
    const settings: Readonly<Record<string, string>> = {
      "Dir::Etc::sourcelist": join(dir, "sources.list"),
      "Dir::Etc::sourceparts": "/dev/null",
      "Dir::Etc::preferences": "/dev/null",
      "Dir::Etc::preferencesparts": "/dev/null",
      "Dir::State": join(dir, "state"),
      "Dir::State::status": join(dir, "status"),
      "Dir::Cache": join(dir, "cache"),
      "APT::Sandbox::User": "",
      "APT::Architecture": this.#architecture,
      "APT::Architectures": this.#architecture,
      "Acquire::Languages": "none",
      "Acquire::Retries": "3",
      "APT::Get::List-Cleanup": "true",
    };
    const text = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`).join("");
    await Deno.writeTextFile(join(dir, "apt.conf"), text);
    await run(["apt-get", "update", "--error-on=any"], {
      env: { APT_CONFIG: join(dir, "apt.conf") },
      hint:
        `Needed for Debian's ${
          this.#suites.join(", ")
        }. A missing signature key means an old debian-archive-keyring: ` +
        `"apt-get install debian-archive-keyring" brings the present one.`,
    });
    this.#updated = true;
  }
}

/** Unpacks every .deb of a folder into a tree with one /usr (bin, sbin, lib are links into it). */
async function unpackDebs(debsDir: string, rootDir: string): Promise<void> {
  for (const name of ["bin", "sbin", "lib", "lib64"]) {
    if (exists(join(rootDir, name))) continue;
    await Deno.mkdir(join(rootDir, "usr", name), { recursive: true });
    await Deno.symlink(`usr/${name}`, join(rootDir, name));
  }
  for (const entry of Deno.readDirSync(debsDir)) {
    if (!entry.name.endsWith(".deb")) continue;
    const extract = 'set -o pipefail; dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"';
    await run(["bash", "-c", extract, "bash", join(debsDir, entry.name), rootDir]);
  }
}

/** The lines of an apt configuration that has these suites. */
async function sourcesOf(suites: readonly string[]): Promise<string[]> {
  const mirrors = await findMirrors();
  const signedBy = exists(keyring) ? `[signed-by=${keyring}] ` : "";
  return suites.map((suite) => {
    const mirror = suite.endsWith("-security") ? mirrors.security : mirrors.main;
    return `deb ${signedBy}${mirror} ${suite} main`;
  });
}

/** The addresses of Debian's archives, as the machine's own apt sources have them. */
async function findMirrors(): Promise<{ readonly main: string; readonly security: string }> {
  const lists = await Deno.makeTempDir({ prefix: "dblock-apt-" });
  try {
    // With an empty state folder apt prints the address of every source's release file and downloads nothing.
    const uris = await run(["apt-get", "-o", `Dir::State::lists=${lists}`, "update", "--print-uris"]);
    let main: string | undefined;
    let security: string | undefined;
    for (const [, base, suite] of uris.matchAll(/^'(.*)\/dists\/([^/]+)\/(?:In)?Release'/gm)) {
      const codename =
        /^(stable|testing|oldstable|oldoldstable|sid|unstable|bullseye|bookworm|trixie|forky)(-security)?$/.exec(
          suite!,
        );
      if (codename === null) continue;
      if (codename[2] === "-security") security ??= base!;
      else main ??= base!;
    }
    if (main === undefined) {
      throw new UserError(
        "Cannot find Debian's archive in this machine's apt sources: kernels for the tests come from there",
      );
    }
    return { main, security: security ?? join(dirname(main), "debian-security").replace(/^(\w+):\/(?!\/)/, "$1://") };
  } finally {
    await Deno.remove(lists, { recursive: true });
  }
}

/** A tree of packages with all they depend on, made once per list of packages. Returns its folder. */
export async function debianTree(
  name: string,
  suites: readonly string[],
  packages: readonly string[],
  architecture: Architecture,
): Promise<string> {
  const dir = join(buildDir, "trees", name);
  const stamp = `${suites.join(" ")}\n${packages.join(" ")}\n`;
  const stampFile = join(dir, ".packages");
  if (exists(stampFile) && await Deno.readTextFile(stampFile) !== stamp) await Deno.remove(dir, { recursive: true });
  await makeDirOnce(dir, async (temporaryDir) => {
    console.error(`unpacking Debian packages: ${packages.join(" ")}`);
    await new Apt(name, suites, architecture).unpackClosure(packages, temporaryDir);
    await Deno.writeTextFile(join(temporaryDir, ".packages"), stamp);
  });
  return dir;
}

/** Writes a file system, ext2, with an installed Debian: these packages and all that every Debian has, configured. */
export async function debianSystem(
  suites: readonly string[],
  packages: readonly string[],
  file: string,
): Promise<void> {
  console.error(`installing Debian in an image, a minute or two: ${packages.join(" ")}`);
  const withoutTexts = ["doc", "locale", "man"].map((folder) => `--dpkgopt=path-exclude=/usr/share/${folder}/*`);
  await run([
    ...["mmdebstrap", "--quiet", "--variant=minbase", "--format=ext2", ...withoutTexts],
    ...[`--include=${packages.join(",")}`, suites[0]!, file, ...await sourcesOf(suites)],
  ], {
    // A kernel's package leaves its initial ramdisk out, which nobody boots by.
    env: { INITRD: "No" },
    hint: "Needed for the tests on a whole Debian. It wants to be root, or a user with lines in /etc/subuid.",
  });
}
