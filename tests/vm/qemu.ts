/** The QEMU of a test VM: its machine, disks and ports, and the kernel's command line. What is done with it is vm.ts. */
import { join } from "node:path";
import { machineOf } from "./architecture.ts";
import type { DiskImage } from "./image.ts";
import { PacePipe } from "./pace_pipe.ts";
import { secureBoot } from "./secure_boot.ts";
import type { VmOptions } from "./vm.ts";

/** What a VM has where nobody asks for less or more. */
export const defaultMemoryMiB = 4096;
const defaultProcessors = 2;

/**
 * A warning is a panic and a panic ends QEMU at once. A task that hangs for a minute is a panic too: far more than anything
 * here should take, even on a machine that does something else beside it.
 *
 * Programs lie at the same addresses each time (norandmaps): QEMU 7.2 keeps translated code by its virtual address too. At
 * random addresses it translates a program anew at each start, 74,000 blocks for an empty program of Deno's, which takes
 * three quarters of the start's time.
 */
const kernelCmdline = [
  "panic=-1",
  "oops=panic",
  "panic_on_warn=1",
  "loglevel=7",
  "nokaslr",
  "norandmaps",
  "mitigations=off",
  "audit=0",
  "tsc=reliable",
  "no_timer_check",
  "rcupdate.rcu_cpu_stall_timeout=60",
  "sysctl.kernel.hung_task_panic=1",
  "sysctl.kernel.hung_task_timeout_secs=60",
  "sysctl.kernel.panic_on_rcu_stall=1",
  "sysctl.kernel.softlockup_panic=1",
  "sysctl.kernel.watchdog_thresh=30",
  "sysctl.kernel.sysrq=1",
  "rdinit=/init",
];

/** What a boot loader would say: the disk {@linkcode VmOptions.diskFile}, by the link that udev makes for it. */
const ownInitrdCmdline = "root=/dev/disk/by-id/virtio-machine rw";

/** The same patience for a kernel that is slower by nature. */
function slowCmdline(slowness: number): string {
  if (slowness === 1) return "";
  return [
    `rcupdate.rcu_cpu_stall_timeout=${Math.min(300, 60 * slowness)}`,
    `sysctl.kernel.hung_task_timeout_secs=${60 * slowness}`,
    "sysctl.kernel.watchdog_thresh=60",
  ].join(" ");
}

/** The program that is the VM, and its arguments. Its logs are in the run's folder. */
export async function qemuCommand(
  options: VmOptions,
  runDir: string,
  initramfs: string,
  images: readonly DiskImage[],
): Promise<string[]> {
  const machine = await machineOf(options.kernel.architecture);
  const secure = options.secureBoot ? await secureBoot(options.kernel, runDir) : undefined;
  const port = (name: string, file: string) => [
    ...["-chardev", `file,id=${name},path=${join(runDir, file)}`],
    ...["-device", `virtserialport,chardev=${name},name=${name}`],
  ];
  const disk = (image: DiskImage, readonly = "on") => [
    ...["-drive", `if=none,id=${image.name},file=${image.file},format=raw,readonly=${readonly},cache=unsafe`],
    ...["-device", `virtio-blk-pci,drive=${image.name},serial=${image.name}`],
  ];
  const cmdline = [
    `console=${machine.console}`,
    ...kernelCmdline,
    slowCmdline(options.kernel.slowness),
    options.initrdFile === undefined ? "" : ownInitrdCmdline,
    options.extraCmdline ?? "",
    options.interactive ? "loglevel=4" : "",
  ].join(" ").trim();
  return [
    ...machine.qemu,
    ...secure?.qemu ?? [],
    ...["-cpu", options.kernel.processor ?? machine.processor],
    ...(options.counted
      ? ["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"]
      : ["-accel", "tcg,thread=multi"]),
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-smp", String(options.smp ?? defaultProcessors)],
    ...["-m", String(options.memoryMiB ?? defaultMemoryMiB)],
    ...["-kernel", secure?.imageFile ?? options.kernel.imageFile, "-initrd", initramfs, "-append", cmdline],
    ...["-serial", options.interactive ? "mon:stdio" : `file:${join(runDir, "console.log")}`],
    ...["-device", "virtio-serial-pci"],
    ...port("output", "output.log"),
    ...port("report", "report.jsonl"),
    ...port("exit", "exit"),
    ...(options.tellsPace ? PacePipe.qemuArgs(runDir) : []),
    ...(options.network ? ["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network"] : []),
    ...images.flatMap((image) => disk(image)),
    ...(options.diskFile === undefined ? [] : disk({ name: "machine", file: options.diskFile }, "off")),
    ...(options.furtherDisks ?? []).flatMap((further) => disk(further, "off")),
  ];
}
