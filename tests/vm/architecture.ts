/**
 * The machines that QEMU emulates here, and what differs between them: packages, compiler, programs, command lines.
 * Host and amd64 are taken to be the same; for arm64 everything is built across.
 */
import { join } from "node:path";
import { buildDir, exists, makeDirOnce, projectDir, run, UserError } from "./host.ts";

/** What Debian calls a machine of this kind. */
export type Architecture = "amd64" | "arm64";

interface Machine {
  /** Commands of the host that only this machine needs, and the packages of Debian that have them. */
  readonly hostTools: Readonly<Record<string, string>>;
  /** Further words for the make of a kernel module. */
  readonly makeArguments: readonly string[];
  /** QEMU's program, with the words that make it this machine. */
  readonly qemu: readonly string[];
  /** The kernel's name of the serial port. */
  readonly console: string;
}

const machines: Readonly<Record<Architecture, Machine>> = {
  amd64: {
    hostTools: {},
    // Debian 12's compiler builds for older kernels too; their headers name the one of their time.
    makeArguments: ["CC=gcc-12"],
    // TCG emulates `rep movsb` byte by byte and cmpxchg16b by stopping every processor; without them nothing is that slow.
    qemu: ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max,-cx16,-erms,-fsrm"],
    console: "ttyS0",
  },
  arm64: {
    hostTools: { "qemu-system-aarch64": "qemu-system-arm", "aarch64-linux-gnu-gcc-12": "gcc-12-aarch64-linux-gnu" },
    makeArguments: ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc-12"],
    // A processor of the first kind: what it has, all have. It sets no "accessed" bits: the kernel does, at a fault.
    qemu: ["qemu-system-aarch64", "-machine", "virt,gic-version=3", "-cpu", "cortex-a72"],
    console: "ttyAMA0",
  },
};

/** The facts about a machine; fails in one line where the host has not what it needs. */
export async function machineOf(architecture: Architecture): Promise<Machine> {
  const machine = machines[architecture];
  for (const [command, packageName] of Object.entries(machine.hostTools)) {
    const { success } = await new Deno.Command("sh", { args: ["-c", `command -v ${command} >/dev/null`] }).output();
    if (!success) {
      throw new UserError(`Cannot test on ${architecture}: no ${command} here (apt-get install ${packageName})`);
    }
  }
  return machine;
}

/** Deno for that machine, of the version that runs here. */
export async function denoOf(architecture: Architecture): Promise<string> {
  if (architecture === "amd64") return Deno.realPathSync(Deno.execPath());
  const name = `@deno/linux-arm64-glibc@${Deno.version.deno}`;
  const dir = join(buildDir, "toolchain", `deno-arm64-${Deno.version.deno}`);
  await makeDirOnce(dir, async (temporaryDir) => {
    console.error(`unpacking ${name}`);
    await run(["npm", "pack", "--silent", "--pack-destination", temporaryDir, name], { cwd: temporaryDir });
    await run(["bash", "-c", 'tar -xzf "$1"/*.tgz -C "$1" && rm "$1"/*.tgz', "bash", temporaryDir]);
  });
  return join(dir, "package", "deno");
}

/** What is ./dblock-ramdisk in that machine: there is a single file for the host's kind alone, and the source for others. */
export function programOf(architecture: Architecture): string {
  const program = join(projectDir, architecture === "amd64" ? "dblock-ramdisk" : "tests/vm/dblock-ramdisk.sh");
  if (!exists(program)) throw new UserError(`Cannot find ${program}: "make" builds it`);
  return program;
}
