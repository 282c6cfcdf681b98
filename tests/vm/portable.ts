/**
 * The server in C (tests/portable/): building it for a machine, and running its smoke test where there is no Deno to run
 * the device tests with.
 */
import { join } from "node:path";
import { type Architecture, machineOf } from "./architecture.ts";
import type { FileResult } from "./device.ts";
import { badKernelLines } from "./dmesg.ts";
import { buildDir, contentHash, exists, projectDir, run, withLock } from "./host.ts";
import type { Kernel } from "./kernels.ts";
import { runVm } from "./vm.ts";

const sourceDir = join(projectDir, "tests/portable");
const limitMs = 300_000;
/** Begins the part of the kernel's log that is judged. */
const logMark = "dblock-test: portable";
/** More than a 32-bit kernel sees at once, and not more than its machine has addresses for. */
const memoryMiB = 2048;

/** Where the server is in the VM. */
export const portableServerPath = "/project/tests/portable/server";

/** Builds the server for a kind of machine, unless it is there. Returns its path. */
export async function buildPortableServer(architecture: Architecture): Promise<string> {
  const { compiler } = await machineOf(architecture);
  const source = join(sourceDir, "server.c");
  const header = join(projectDir, "kmod/uapi/dblock.h");
  const file = join(buildDir, "portable", `server-${architecture}-${contentHash([source, header], [compiler])}`);
  return await withLock(join(buildDir, `portable-${architecture}.lock`), async () => {
    if (exists(file)) return file;
    await Deno.mkdir(join(buildDir, "portable"), { recursive: true });
    // Static: the VM's C library may be of another release than the compiler's.
    const options = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-D_FILE_OFFSET_BITS=64"];
    await run([compiler, ...options, "-o", `${file}.new`, source]);
    await Deno.rename(`${file}.new`, file);
    return file;
  });
}

/** Options of {@linkcode runPortable}. */
export interface PortableOptions {
  readonly kernel: Kernel;
  readonly moduleFile: string;
  readonly memoryMiB?: number | undefined;
  readonly smp?: number | undefined;
  readonly onOutput?: ((text: string) => void) | undefined;
}

/** Boots the kernel, loads the module, and takes disks through smoke.sh. */
export async function runPortable(options: PortableOptions): Promise<FileResult> {
  const { kernel } = options;
  const vm = await runVm({
    kernel,
    moduleFile: options.moduleFile,
    files: { [portableServerPath]: await Deno.readFile(await buildPortableServer(kernel.architecture)) },
    command: `echo "${logMark}" >/dev/kmsg; insmod kmod/dblock.ko && bash tests/portable/smoke.sh && rmmod dblock`,
    timeoutMs: limitMs * kernel.slowness,
    memoryMiB: options.memoryMiB ?? memoryMiB,
    smp: options.smp,
    onOutput: options.onOutput,
  });
  const count = (start: string) => vm.output.split("\n").filter((line) => line.startsWith(start)).length;
  const source = Deno.readTextFileSync(join(projectDir, "tests/device/portable_test.ts"));
  const problems = badKernelLines(vm.consoleLog.slice(vm.consoleLog.indexOf(logMark)).split("\n"), source);
  if (vm.verdict === "lost") problems.push(`the VM was lost: ${vm.reason}`);
  const counts = { passed: count("ok - "), failed: count("not ok - "), skipped: 0 };
  if (vm.verdict === "fail" && counts.failed === 0) problems.push(vm.reason);
  if (problems.length > 0) counts.failed++;
  return {
    path: "tests/portable/smoke.sh",
    kernel: kernel.version,
    verdict: vm.verdict === "lost" ? "lost" : counts.failed > 0 ? "fail" : "pass",
    counts,
    seconds: vm.seconds,
    pacedSeconds: vm.seconds,
    problems,
    output: vm.output,
    runDir: vm.runDir,
  };
}
