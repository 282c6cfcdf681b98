/**
 * What a VM boots from: read-only disk images that are made once per content, and a small initramfs made for each run.
 *
 * The userland (Debian programs and deno) and the kernel's modules are ext4 images, so that their pages are read on demand
 * and can be dropped again: a VM with 256 MB of memory runs the same programs as one with 4 GiB. The initramfs has the
 * init script, the drivers for those disks, and the project's own files, which change with every edit.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { type Architecture, denoOf, hasDeno } from "./architecture.ts";
import { buildDir, contentHash, exists, listFiles, makeDirOnce, projectDir, run } from "./host.ts";
import { Cpio } from "./cpio.ts";
import { debianSystem, debianTree } from "./debian.ts";
import type { Kernel } from "./kernels.ts";

/** Programs the VM has; what they depend on comes with them. */
const guestPackages = [
  "?essential",
  "busybox-static",
  "e2fsprogs",
  "fdisk",
  "fio",
  "kmod",
  "mount",
  "nbd-client",
  "nbdkit",
  "procps",
  "psmisc",
  "rbd-nbd",
  "strace",
  "udev",
  "util-linux-extra",
  "xfsprogs",
];

/** What the machine that is a whole Debian has beside what every Debian has. */
const systemPackages = [
  "btrfs-progs",
  "e2fsprogs",
  "fdisk",
  "fio",
  "kmod",
  "lvm2",
  "mdadm",
  "procps",
  "systemd-sysv",
  "udev",
];

/**
 * What a machine that gets dblock from its packages has beside its kernel, and what every Debian has. The headers of later kernels
 * depend on pahole.
 */
const machinePackages = ["dkms", "e2fsprogs", "fio", "kmod", "openssl", "pahole", "procps", "systemd-sysv", "udev"];
/** So much of it is used where something is written. */
const machineDiskSize = "8G";

/** A disk image for the VM, found there by its name. */
export interface DiskImage {
  readonly name: string;
  readonly file: string;
}

/** The folder's name of the tree that the userland is made from. */
function guestTreeName(architecture: Architecture): string {
  return architecture === "amd64" ? "guest" : `guest-${architecture}`;
}

/** The folder of a Debian tree with the VM's programs, as they are unpacked: no script of theirs has run. Not to be written to. */
export async function guestTree(architecture: Architecture): Promise<string> {
  // The module is what is tested there, and the security archive's mirrors may lack the smaller architectures for a while.
  const suites = architecture === "armhf" ? ["bookworm"] : ["bookworm", "bookworm-security"];
  return await debianTree(guestTreeName(architecture), suites, guestPackages, architecture);
}

/** The userland: that tree with deno in /usr/local/bin, where there is one. */
export async function userlandImage(architecture: Architecture): Promise<DiskImage> {
  const tree = await guestTree(architecture);
  const deno = hasDeno(architecture) ? [await denoOf(architecture)] : [];
  const key = contentHash([join(tree, ".packages"), ...deno]);
  return await makeImage("userland", key, async (dir) => {
    // Hard links: the image is made from them at once, and they cost nothing.
    await run(["cp", "--archive", "--link", `${tree}/.`, dir]);
    for (const folder of ["usr/lib/modules", "usr/local/bin"]) await Deno.mkdir(join(dir, folder), { recursive: true });
    for (const program of deno) await Deno.copyFile(program, join(dir, "usr/local/bin/deno"));
    // What the packages' maintainer scripts would have done, as far as the tests need it.
    await Deno.symlink("mawk", join(dir, "usr/bin/awk"));
    for (const name of ["passwd", "group"]) {
      await Deno.copyFile(join(dir, `usr/share/base-passwd/${name}.master`), join(dir, "etc", name));
    }
  });
}

/** All modules of a kernel. */
export async function modulesImage(kernel: Kernel): Promise<DiskImage> {
  return await makeImage("modules", kernel.release, async (dir) => {
    await run(["cp", "--archive", "--link", kernel.modulesDir, dir]);
  });
}

/** A single program, too big for the initramfs of a small VM. */
export async function programImage(program: string): Promise<DiskImage> {
  // Read once: the bytes that name the image are the bytes in it, whoever builds the program anew meanwhile.
  const bytes = await Deno.readFile(program);
  const key = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  return await makeImage("program", key, async (dir) => {
    await Deno.writeFile(join(dir, "dblock-ramdisk"), bytes, { mode: 0o755 });
    await Deno.symlink("dblock-ramdisk", join(dir, "dblock"));
  });
}

/** A whole Debian, installed as on a disk: systemd, udev with all its rules. */
export async function systemImage(): Promise<DiskImage> {
  const suites = ["bookworm", "bookworm-security"];
  const key = contentHash([], [...suites, ...systemPackages]);
  return await imageOnce("system", key, (file) => debianSystem(suites, systemPackages, file));
}

/** The disk of a machine with an installed Debian: ext4 with room; that kernel, its headers, and DKMS. To be copied, not written. */
export async function machineImage(kernel: Kernel): Promise<string> {
  const suites = ["bookworm", "bookworm-security"];
  const packages = [...machinePackages, `linux-image-${kernel.release}`, `linux-headers-${kernel.release}`];
  const key = contentHash([], [...suites, ...packages, machineDiskSize]);
  const { file } = await imageOnce("machine", key, async (file) => {
    await debianSystem(suites, packages, file);
    await run(["tune2fs", "-O", "extents,dir_index,has_journal", file]);
    await run(["truncate", `--size=${machineDiskSize}`, file]);
    // It ends with 1 where it has mended something, such as an index that folders do not have yet.
    await run(["bash", "-c", 'e2fsck -f -y -D "$1" || [ $? = 1 ]', "bash", file]);
    await run(["resize2fs", file]);
  });
  return file;
}

/** An image of a folder's content. */
async function makeImage(name: string, key: string, fill: (dir: string) => Promise<void>): Promise<DiskImage> {
  return await imageOnce(name, key, async (file) => {
    const staging = `${file}.staging`;
    await Deno.mkdir(staging);
    await fill(staging);
    const [kibibytes, inodes] = (await run(["bash", "-c", 'du -sk "$1" | cut -f1; find "$1" | wc -l', "bash", staging]))
      .trim().split("\n").map(Number) as [number, number];
    await run([
      ...[
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "root_owner=0:0",
        "-N",
        // What is asked for is rounded down in each block group.
        String(inodes + 1_000),
      ],
      ...["-d", staging, file, `${Math.ceil(kibibytes * 1.15) + 8192}k`],
    ]);
    await Deno.remove(staging, { recursive: true });
  });
}

/** The image of that content, which is made unless it is there. Images of earlier content go. */
async function imageOnce(name: string, key: string, make: (file: string) => Promise<void>): Promise<DiskImage> {
  const imagesDir = join(buildDir, "images");
  const dir = join(imagesDir, `${name}-${key}`);
  await makeDirOnce(dir, (temporaryDir) => make(join(temporaryDir, "image")));
  await removeOld(imagesDir, name, `${name}-${key}`);
  return { name, file: join(dir, "image") };
}

/** How long an image of earlier content is kept: another run in this checkout may be about to use it. */
const oldImageMs = 15 * 60_000;

/** Images of earlier content are large and not needed again. Those of modules are few. */
async function removeOld(imagesDir: string, name: string, keep: string): Promise<void> {
  if (name === "modules") return;
  for (const entry of Deno.readDirSync(imagesDir)) {
    if (!entry.isDirectory || !entry.name.startsWith(`${name}-`) || entry.name === keep) continue;
    const dir = join(imagesDir, entry.name);
    try {
      if (Date.now() - Deno.statSync(dir).mtime!.getTime() < oldImageMs) continue;
      await Deno.remove(dir, { recursive: true });
      await Deno.remove(`${dir}.lock`);
    } catch (error) {
      // Another VM that starts now removes it, too.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** What the VM needs to see its disks, what is on them, and its report channel. Many kernels have some of it built in. */
const bootModules = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/** What an initramfs is made of, besides what every run has. */
export interface InitramfsContent {
  readonly kernel: Kernel;
  /** Where the project's files are. @default this checkout */
  readonly sourceDir?: string | undefined;
  /** The dblock module to put at kmod/dblock.ko of the project. */
  readonly moduleFile?: string | undefined;
  /** Shell commands the VM runs. */
  readonly command: string;
  /** Modules that it needs to boot, beside those that each VM needs. @default none */
  readonly bootModules?: readonly string[] | undefined;
  /** Further files: path in the VM to content. */
  readonly files?: Readonly<Record<string, Uint8Array | string>> | undefined;
}

/** Writes the initramfs of one run. */
export async function writeInitramfs(content: InitramfsContent, file: string): Promise<void> {
  const cpio = new Cpio();
  cpio.file("init", await Deno.readTextFile(join(projectDir, "tests/vm/init.sh")), 0o755);
  await addModules(cpio, content.kernel, [...bootModules, ...content.bootModules ?? []]);
  await addContent(cpio, content);
  await cpio.write(file);
}

/**
 * Writes an initramfs that is a machine's own, with what a run needs in it: the kernel unpacks one archive after the other. Scripts
 * of initramfs-tools for that moment are the run's alone, as a Debian of few packages has none.
 */
export async function appendInitramfs(content: InitramfsContent, initrdFile: string, file: string): Promise<void> {
  const cpio = new Cpio();
  cpio.file("scripts/local-bottom/tests", await Deno.readTextFile(join(projectDir, "tests/vm/initrd.sh")), 0o755);
  cpio.file("scripts/local-bottom/ORDER", "/scripts/local-bottom/tests\n");
  // The command's output goes through ports, which udev's first look at the machine might be too late for.
  await addModules(cpio, content.kernel, ["virtio_console"]);
  await addContent(cpio, content);
  await cpio.write(file);
  // An archive that is not compressed begins at a whole word; what lies between is zeroes.
  const append = 'cp "$1" "$2.both" && truncate --size=%512 "$2.both" && cat "$2" >>"$2.both" && mv "$2.both" "$2"';
  await run(["bash", "-c", append, "bash", initrdFile, file]);
}

/** Modules, and those that they depend on, in the order in which the VM loads them. */
async function addModules(cpio: Cpio, kernel: Kernel, names: readonly string[]): Promise<void> {
  cpio.directory("boot-modules");
  for (const [i, module] of (await resolveModules(kernel, names)).entries()) {
    cpio.file(`boot-modules/${String(i).padStart(2, "0")}.ko`, await readModule(module));
  }
}

/** What each run has in memory. */
async function addContent(cpio: Cpio, content: InitramfsContent): Promise<void> {
  const { sourceDir = projectDir } = content;
  const guestTree = join(buildDir, "trees", guestTreeName(content.kernel.architecture));
  cpio.file("busybox", await Deno.readFile(join(guestTree, "usr/bin/busybox")), 0o755);
  for (
    const name of ["deno.json", "README.md", "src", "tests", "kmod/uapi", "kmod/README.md", "kmod/60-dblock.rules"]
  ) {
    const path = join(sourceDir, name);
    if (!exists(path)) continue;
    const files = Deno.lstatSync(path).isDirectory ? listFiles(path).map((entry) => `${name}/${entry}`) : [name];
    for (const entry of files) {
      const source = join(sourceDir, entry);
      cpio.file(`project/${entry}`, await Deno.readFile(source), Deno.statSync(source).mode! & 0o777);
    }
  }
  if (content.moduleFile !== undefined) {
    cpio.file("project/kmod/dblock.ko", await Deno.readFile(content.moduleFile));
  }
  cpio.file("command", content.command);
  for (const [path, bytes] of Object.entries(content.files ?? {})) cpio.file(path.replace(/^\//, ""), bytes);
}

/** The files of these modules and all they depend on, in the order they are to be loaded. Built-in ones have none. */
async function resolveModules(kernel: Kernel, names: readonly string[]): Promise<string[]> {
  const resolved = await run([
    "modprobe",
    "--dirname",
    kernel.rootDir,
    "--set-version",
    kernel.release,
    "--show-depends",
    "--all",
    ...names,
  ]);
  const files = [...resolved.matchAll(/^insmod (\S+)/gm)].map((match) => match[1]!);
  return [...new Set(files)];
}

async function readModule(file: string): Promise<Uint8Array> {
  if (!file.endsWith(".xz")) return await Deno.readFile(file);
  const output = await new Deno.Command("xz", { args: ["--decompress", "--stdout", file] }).output();
  return output.stdout;
}
