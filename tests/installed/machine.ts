/**
 * A machine with an installed Debian, for the packages: it is booted again and again, and its disk keeps what each boot has done.
 * What is done at a boot is in files of their own, each a device test file that ends with a reboot.
 */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { buildProgram } from "../vm/architecture.ts";
import { type FileResult, runDeviceTests } from "../vm/device.ts";
import { figureTable } from "../vm/summary.ts";
import { buildDir, contentHash, exists, makeDirOnce, projectDir, run } from "../vm/host.ts";
import { type DiskImage, machineImage } from "../vm/image.ts";
import type { Kernel } from "../vm/kernels.ts";
import { checkLate, type LateDisk, lateStore } from "./late.ts";
import { transcriptOf } from "./transcript.ts";

/** Where packages lie on the machine's disk. */
export const packageFolder = "/srv/packages";
/** systemd kills what has not ended after 90 s. An emulated machine with two disks in use ends in 5 s. */
const endLimitSeconds = 40;
const lateStoreBytes = 64 * 2 ** 20;
const installedDir = join(buildDir, "installed");
/** What a person would have typed and seen, boot after boot, of the last run. */
const transcriptFile = join(installedDir, "transcript.txt");

/** How {@linkcode Machine.boot} boots it. */
export interface BootOptions {
  /** By the initial ramdisk that lies in the machine's /boot. @default false: by the VM's own, as other tests */
  readonly byOwnInitrd?: boolean;
}

/** See above. Its disks are removed at its end. */
export class Machine implements AsyncDisposable {
  readonly #disk: string;
  /** Its other disks. */
  readonly #further: DiskImage[] = [];
  readonly #results: FileResult[];
  readonly #kernels: Set<Kernel>;

  private constructor(disk: string, results: FileResult[], kernels: Set<Kernel>) {
    this.#disk = disk;
    this.#results = results;
    this.#kernels = kernels;
  }

  /** A machine with that kernel, its headers, and DKMS. */
  static async make(kernel: Kernel): Promise<Machine> {
    const image = await machineImage(kernel);
    await Deno.mkdir(installedDir, { recursive: true });
    await Deno.writeTextFile(transcriptFile, "");
    const machine = new Machine(await copyOf(image), [], new Set());
    await machine.addDisk(lateStore, lateStoreBytes);
    return machine;
  }

  /** Another machine that is as this one is now; what its boots find is counted with this one's. */
  async copy(): Promise<Machine> {
    const machine = new Machine(await copyOf(this.#disk), this.#results, this.#kernels);
    for (const { name, file } of this.#further) machine.#further.push({ name, file: await copyOf(file) });
    return machine;
  }

  /** Another disk of it, found there by that serial number. */
  async addDisk(name: string, sizeBytes: number): Promise<void> {
    const file = `${this.#disk}.${name}`;
    await run(["truncate", `--size=${sizeBytes}`, file]);
    this.#further.push({ name, file });
  }

  /** Puts files into a new folder below {@linkcode packageFolder}, while the machine is off. */
  async put(folder: string, files: readonly string[]): Promise<void> {
    const place = `${packageFolder}/${folder}`;
    const commands = [`mkdir ${packageFolder}`, `mkdir ${place}`, `cd ${place}`];
    commands.push(...files.map((file) => `write ${file} ${file.slice(file.lastIndexOf("/") + 1)}`));
    const script = `${this.#disk}.commands`;
    await Deno.writeTextFile(script, `${commands.join("\n")}\n`);
    await run(["debugfs", "-w", "-f", script, this.#disk]);
    await Deno.remove(script);
  }

  /** Boots it, does what is in NAME_boot.ts, and reboots. Throws unless all went well, and the disk was left clean. */
  async boot(kernel: Kernel, name: string, options: BootOptions = {}): Promise<void> {
    const path = `tests/installed/${name}_boot.ts`;
    const files = [this.#disk, ...this.#further.map(({ file }) => file)];
    const before = await Promise.all(files.map(copyOf));
    const initrdFile = options.byOwnInitrd ? await this.#takeInitrd(kernel) : undefined;
    const [result] = await runDeviceTests({
      kernel,
      files: [path],
      diskFile: this.#disk,
      initrdFile,
      furtherDisks: this.#further,
      // A suite that says nothing is taken for one that hangs.
      onOutput: (text) => Deno.stdout.writeSync(new TextEncoder().encode(text)),
      // A fault of the emulator is no boot, and what it has done to the disks is no fault of ours.
      onRepeat: async () => {
        console.log(`a fault of the emulator took the machine down (int3); again: ${path}`);
        for (const [i, file] of files.entries()) await copyTo(before[i]!, file);
      },
    });
    for (const file of initrdFile === undefined ? before : [...before, initrdFile]) await Deno.remove(file);
    const { verdict, problems, output, seconds, endSeconds = Infinity } = result!;
    this.#results.push(result!);
    this.#kernels.add(kernel);
    console.log(`${path}: ${verdict}, ${seconds.toFixed(0)} s, and ${endSeconds.toFixed(1)} s to the machine's end`);
    const title = `boot ${this.#results.length}, Linux ${kernel.release}`;
    await Deno.writeTextFile(transcriptFile, `${rule(title)}\n${transcriptOf(output)}\n`, { append: true });
    assertEquals(verdict, "pass", `${problems.join("\n")}\n${output}\nlogs: ${result!.runDir}`);
    if (endSeconds > endLimitSeconds) throw new Error(`the reboot took ${endSeconds} s (logs: ${result!.runDir})`);
    await run(["e2fsck", "-f", "-n", this.#disk]);
    // The initial ramdisk waits for udev before it mounts anything, which may wait for a disk that its server has locked.
    const consoleLog = await Deno.readTextFile(join(result!.runDir, "console.log"));
    assertEquals(/Timed out for waiting the udev queue.*/.exec(consoleLog)?.[0], undefined, result!.runDir);
  }

  /** A file with the initial ramdisk that the machine has made for that kernel. */
  async #takeInitrd({ release }: Kernel): Promise<string> {
    const file = `${this.#disk}.initrd`;
    await run(["debugfs", "-R", `dump /boot/initrd.img-${release} ${file}`, this.#disk]);
    return file;
  }

  /**
   * What is left of a file system that was in use until all processes were killed, at the end of the last boot.
   *
   * @param name of the disk that it is on
   * @param said what is said of it then; else as {@linkcode LateDisk} has it
   */
  async checkLate(name: string, said: LateDisk["said"], mayBeSaid?: LateDisk["mayBeSaid"]): Promise<void> {
    const { path, runDir } = this.#results.at(-1)!;
    const consoleLog = await Deno.readTextFile(join(runDir, "console.log"));
    const store = this.#further.find((disk) => disk.name === name)!.file;
    const { acknowledged } = await checkLate(consoleLog, { store, said, ...(mayBeSaid && { mayBeSaid }) }, run);
    console.log(`${path}: in use until the end, clean; of ${acknowledged} acknowledged writes none lost`);
  }

  /** Prints where the transcript is, and what the boots have counted and measured, as rows of a table. */
  printFigures(): void {
    console.log(`| installed: transcript: ${transcriptFile.slice(projectDir.length + 1)} |`);
    const lines = figureTable([...this.#kernels], this.#results).split("\n");
    for (const line of lines) if (line !== "") console.log(`| installed: ${line.trim()} |`);
    const longest = Math.max(...this.#results.map(({ endSeconds = 0 }) => endSeconds)).toFixed(1);
    console.log(`| installed: ${this.#results.length} reboots, longest from the last test to the end ${longest} s |`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#disk);
    for (const { file } of this.#further) await Deno.remove(file);
  }
}

async function copyOf(file: string): Promise<string> {
  const copy = await Deno.makeTempFile({ dir: installedDir, prefix: "disk-" });
  await copyTo(file, copy);
  return copy;
}

/** A hole stays one. */
async function copyTo(from: string, to: string): Promise<void> {
  await run(["cp", "--sparse=always", "--reflink=auto", from, to]);
}

/** A line with a title in it. */
function rule(title: string): string {
  return `---- ${title} `.padEnd(80, "-");
}

/** What the packages are made of, beside the program. */
const packageSources = [
  "src/build/deb.sh",
  "src/build/package.sh",
  "src/build/stage.sh",
  "src/build/debian",
  "src/build/initramfs",
  "src/build/systemd",
  "src/build/manual",
].concat(
  ["src/build/completion", "kmod", "README.md", "deno.json"],
);

/** The packages of this checkout under that version, as `make deb` makes them but not compressed: their files. */
export async function packagesOf(version: string): Promise<{ readonly dblock: string; readonly dkms: string }> {
  const program = await buildProgram("amd64");
  const key = contentHash([program, ...packageSources.map((path) => join(projectDir, path))]);
  const dir = join(installedDir, `packages-${version}`);
  if (exists(dir) && Deno.readTextFileSync(join(dir, "key")) !== key) await Deno.remove(dir, { recursive: true });
  await makeDirOnce(dir, async (temporaryDir) => {
    console.log(`packing dblock ${version}`);
    const env = { VERSION: version, OUTPUT: temporaryDir, COMPRESSION: "-Znone" };
    await run([join(projectDir, "src/build/deb.sh"), program], { env });
    await Deno.writeTextFile(join(temporaryDir, "key"), key);
  });
  return { dblock: join(dir, `dblock_${version}_amd64.deb`), dkms: join(dir, `dblock-dkms_${version}_all.deb`) };
}
