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
import { machineImage } from "../vm/image.ts";
import type { Kernel } from "../vm/kernels.ts";

/** Where packages lie on the machine's disk. */
export const packageFolder = "/srv/packages";
/** systemd kills what has not ended after 90 s. An emulated machine with two disks in use ends in 5 s. */
const endLimitSeconds = 40;
const installedDir = join(buildDir, "installed");

/** See above. Its disk is removed at its end. */
export class Machine implements AsyncDisposable {
  readonly #disk: string;
  readonly #results: FileResult[] = [];
  readonly #kernels = new Set<Kernel>();
  #longestEndSeconds = 0;

  private constructor(disk: string) {
    this.#disk = disk;
  }

  /** A machine with that kernel, its headers, and DKMS. */
  static async make(kernel: Kernel): Promise<Machine> {
    const image = await machineImage(kernel);
    await Deno.mkdir(installedDir, { recursive: true });
    const disk = await Deno.makeTempFile({ dir: installedDir, prefix: "disk-" });
    await run(["cp", "--sparse=always", "--reflink=auto", image, disk]);
    return new Machine(disk);
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
  async boot(kernel: Kernel, name: string): Promise<void> {
    const path = `tests/installed/${name}_boot.ts`;
    const copy = async (from: string, to: string) =>
      void await run(["cp", "--sparse=always", "--reflink=auto", from, to]);
    const before = `${this.#disk}.before`;
    await copy(this.#disk, before);
    const [result] = await runDeviceTests({
      kernel,
      files: [path],
      diskFile: this.#disk,
      // A suite that says nothing is taken for one that hangs.
      onOutput: (text) => Deno.stdout.writeSync(new TextEncoder().encode(text)),
      // A fault of the emulator is no boot, and what it has done to the disk is no fault of ours.
      onRepeat: async () => {
        console.log(`a fault of the emulator took the machine down (int3); again: ${path}`);
        await copy(before, this.#disk);
      },
    });
    await Deno.remove(before);
    const { verdict, problems, output, seconds, endSeconds = Infinity } = result!;
    this.#results.push(result!);
    this.#kernels.add(kernel);
    this.#longestEndSeconds = Math.max(this.#longestEndSeconds, endSeconds);
    console.log(`${path}: ${verdict}, ${seconds.toFixed(0)} s, and ${endSeconds.toFixed(1)} s to the machine's end`);
    assertEquals(verdict, "pass", `${problems.join("\n")}\n${output}\nlogs: ${result!.runDir}`);
    if (endSeconds > endLimitSeconds) throw new Error(`the reboot took ${endSeconds} s (logs: ${result!.runDir})`);
    await run(["e2fsck", "-f", "-n", this.#disk]);
  }

  /** Prints what the boots have counted and measured, as rows of a table. */
  printFigures(): void {
    const lines = figureTable([...this.#kernels], this.#results).split("\n");
    for (const line of lines) if (line !== "") console.log(`| installed: ${line.trim()} |`);
    console.log(
      `| installed: ${this.#results.length} reboots, longest from the last test to the end ${
        this.#longestEndSeconds.toFixed(1)
      } s |`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#disk);
  }
}

/** What the packages are made of, beside the program. */
const packageSources = [
  "src/build/deb.sh",
  "src/build/package.sh",
  "src/build/stage.sh",
  "src/build/debian",
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
