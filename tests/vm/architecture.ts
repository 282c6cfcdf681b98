/**
 * The machines that QEMU emulates here, and what differs between them: packages, compiler, programs, command lines.
 * Host and amd64 are taken to be the same; for the others everything is built across.
 */
import { basename, join } from "node:path";
import { type Arch, denoFor } from "../../src/build/without_denort/target.ts";
import { buildDir, exists, projectDir, run, UserError } from "./host.ts";

/** What Debian calls a machine of this kind. */
export type Architecture = "amd64" | "arm64" | "armhf";

interface Machine {
  /** What Deno calls it; undefined where there is no Deno: on a machine of 32 bits. */
  readonly arch: Arch | undefined;
  /** Commands and files of the host that only this machine needs, and the packages of Debian that have them. */
  readonly hostTools: Readonly<Record<string, string>>;
  /** The compiler of its programs. */
  readonly compiler: string;
  /** Further words for the make of a kernel module. */
  readonly makeArguments: readonly string[];
  /** QEMU's program, with the words that make it this machine. */
  readonly qemu: readonly string[];
  /** QEMU's name of the processor, unless a kernel wants another. */
  readonly processor: string;
  /** The kernel's name of the serial port. */
  readonly console: string;
}

const machines: Readonly<Record<Architecture, Machine>> = {
  amd64: {
    arch: "x86_64",
    hostTools: {},
    compiler: "gcc",
    // Debian 12's compiler builds for older kernels too; their headers name the one of their time.
    makeArguments: ["CC=gcc-12"],
    qemu: ["qemu-system-x86_64", "-machine", "q35"],
    // TCG emulates `rep movsb` byte by byte and cmpxchg16b by stopping every processor; without them nothing is that slow.
    processor: "max,-cx16,-erms,-fsrm",
    console: "ttyS0",
  },
  arm64: {
    arch: "aarch64",
    hostTools: { "qemu-system-aarch64": "qemu-system-arm", "aarch64-linux-gnu-gcc-12": "gcc-12-aarch64-linux-gnu" },
    compiler: "aarch64-linux-gnu-gcc-12",
    makeArguments: ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc-12"],
    qemu: ["qemu-system-aarch64", "-machine", "virt,gic-version=3"],
    // One of the first kind: what it has, all have. It sets no "accessed" bits: the kernel does, at a fault.
    processor: "cortex-a72",
    console: "ttyAMA0",
  },
  armhf: {
    arch: undefined,
    hostTools: {
      "qemu-system-arm": "qemu-system-arm",
      "arm-linux-gnueabihf-gcc-12": "gcc-12-arm-linux-gnueabihf",
      "/usr/arm-linux-gnueabihf/include/stdio.h": "libc6-dev-armhf-cross",
    },
    compiler: "arm-linux-gnueabihf-gcc-12",
    makeArguments: ["ARCH=arm", "CROSS_COMPILE=arm-linux-gnueabihf-", "CC=arm-linux-gnueabihf-gcc-12"],
    // Its kernel sees no devices above 4 GiB.
    qemu: ["qemu-system-arm", "-machine", "virt,highmem=off"],
    processor: "cortex-a15",
    console: "ttyAMA0",
  },
};

/** The facts about a machine; fails in one line where the host has not what it needs. */
export async function machineOf(architecture: Architecture): Promise<Machine> {
  const machine = machines[architecture];
  for (const [command, packageName] of Object.entries(machine.hostTools)) {
    const isFile = command.startsWith("/");
    const look = isFile ? `test -e ${command}` : `command -v ${command} >/dev/null`;
    const { success } = await new Deno.Command("sh", { args: ["-c", look] }).output();
    if (!success) {
      throw new UserError(`Cannot test on ${architecture}: no ${command} here (apt-get install ${packageName})`);
    }
  }
  return machine;
}

/** Whether Deno, and with it dblock-ramdisk and the device tests, runs on that machine. */
export function hasDeno(architecture: Architecture): boolean {
  return machines[architecture].arch !== undefined;
}

/** Deno for that machine, of the version that runs here. */
export async function denoOf(architecture: Architecture): Promise<string> {
  return await denoFor(archOf(architecture));
}

function archOf(architecture: Architecture): Arch {
  const { arch } = machines[architecture];
  if (arch === undefined) {
    throw new UserError(`Cannot run a program of Deno's on ${architecture}: there is no Deno for it`);
  }
  return arch;
}

/**
 * Builds dblock-ramdisk for that machine, of this checkout or of another one, unless it is there already. Returns its path:
 * ./dblock-ramdisk where both are this one.
 */
export async function buildProgram(architecture: Architecture, sourceDir = projectDir): Promise<string> {
  await machineOf(architecture);
  const arch = archOf(architecture);
  const isForeign = sourceDir === projectDir && arch !== Deno.build.arch;
  const program = isForeign ? join(buildDir, `dblock-ramdisk-${arch}`) : join(sourceDir, "dblock-ramdisk");
  // Where it is, and where it was before there was a command with subcommands, and rooms.
  const main = ["src/command/program.ts", "src/command/ramdisk.ts", "src/ramdisk.ts"].map((file) =>
    join(sourceDir, file)
  ).find(exists);
  if (main === undefined) {
    throw new UserError(`Cannot build dblock-ramdisk: ${sourceDir} has no src/command/program.ts`);
  }
  const also = main.endsWith("program.ts") ? ["--also", basename(program).replace("-ramdisk", "")] : [];
  const options = ["--arch", arch, "--output", program, ...also, main];
  await run([
    join(projectDir, "src/build/deno.sh"),
    "run",
    "-A",
    join(projectDir, "src/build/executable.ts"),
    ...options,
  ]);
  return program;
}
