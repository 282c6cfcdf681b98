/**
 * A machine for rpm packages that is a folder: the programs of the VM's Debian, with rpm's own database, in which packages are
 * installed and removed, and their scripts run. It has a kernel, but no disk of ours, and no systemd unless a test says so.
 */
import { join } from "node:path";
import { buildDir, listFiles, run } from "../vm/host.ts";
import { guestTree } from "../vm/image.ts";

/** Folders that a distribution with rpm has of its own: of the packages filesystem, systemd and akmods. */
const FOLDERS = [
  "usr/lib/modules-load.d",
  "usr/lib/systemd/system-generators",
  "usr/lib/udev/rules.d",
  "usr/share/bash-completion/completions",
  "usr/share/doc",
  "usr/share/fish/vendor_completions.d",
  "usr/share/licenses",
  "usr/share/man/man1",
  "usr/share/man/man4",
  "usr/share/man/man5",
  "usr/share/zsh/site-functions",
  "usr/src/akmods",
];
const DATABASE = "var/lib/rpm";

/** See above. It is removed at its end. */
export class RpmTree implements AsyncDisposable {
  /** Where it is. */
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  /** Hard links to a tree that others use: scripts of a package may replace a file there, and not write to it. */
  static async make(): Promise<RpmTree> {
    const source = await guestTree("amd64");
    const root = await Deno.makeTempDir({ dir: buildDir, prefix: "rpm-tree-" });
    await run(["cp", "--archive", "--link", `${source}/.`, root]);
    await Deno.chmod(root, 0o755);
    for (const folder of [...FOLDERS, DATABASE, "dev", "proc", "tmp", "run"]) {
      await Deno.mkdir(join(root, folder), { recursive: true });
    }
    return new RpmTree(root);
  }

  /** Why there can be none here; undefined: there can. */
  static async whyNot(): Promise<string | undefined> {
    const { success, stderr } = await new Deno.Command("unshare", {
      args: [...NAMESPACES, "mount", "--bind", "/proc", "/proc"],
    }).output();
    return success ? undefined : `no mounts of its own: ${new TextDecoder().decode(stderr).trim()}`;
  }

  /** Runs a command whose `$1` is the tree, with the host's programs. @returns what it printed. Throws if it fails */
  async outside(command: string): Promise<string> {
    const mount = 'for one in proc dev; do mount --rbind "/$one" "$1/$one"; done';
    return await run(["unshare", ...NAMESPACES, "sh", "-euc", `${mount}\n${command}`, "sh", this.root]);
  }

  /** The same in the tree, with the tree's programs. */
  async inside(command: string): Promise<string> {
    return await this.outside(`exec chroot "$1" /bin/sh -euc '${command}'`);
  }

  /** Debian's rpm is for other machines than its own: it wants to be told that this is meant. */
  async rpm(words: string): Promise<string> {
    return await this.outside(`exec rpm --force-debian --root "$1" --dbpath /${DATABASE} --nodeps ${words}`);
  }

  /** Writes a file. */
  async write(path: string, text: string, mode = 0o644): Promise<void> {
    const file = join(this.root, path);
    await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(file, text);
    await Deno.chmod(file, mode);
  }

  /** All that is there, folders included, but for rpm's own. */
  async content(): Promise<string[]> {
    const found = await run(["find", this.root, "-path", join(this.root, DATABASE), "-prune", "-o", "-printf", "%P\n"]);
    return found.split("\n").filter((line) => line !== "").sort();
  }

  /** The files below a folder. */
  files(folder: string): string[] {
    return listFiles(join(this.root, folder));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }
}

/** Mounts of its own, and for who is not root the right to make them. */
const NAMESPACES = ["--mount", ...(Deno.uid() === 0 ? [] : ["--map-root-user"])];
