// SPDX-License-Identifier: MIT
/** `dblock doctor`: what stands in the way of a disk on this machine, each with the command that mends it. It changes nothing. */
import { DBLOCK_ABI_VERSION, DBLOCK_CONTROL_PATH } from "../module/abi.ts";

import { DblockError, describe } from "../disk/errors.ts";
import { type DeviceInfo, list, moduleVersion } from "../module/info.ts";
import { type Command, readTyped } from "./command.ts";
import { type KernelDisk, kernelDisks } from "./kernel_disk.ts";
import { exists } from "./path.ts";
import { readStarted, RUN_FOLDER, startedNames } from "./run_folder.ts";

/** The subcommand. */
export const DOCTOR: Command = {
  name: "doctor",
  summary: "what this machine lacks for disks, and what to type",
  usage: "",
  options: [],
  examples: [{ words: "doctor", text: "exit status 1 if something is in the way" }],
  parse(words) {
    readTyped(words, this, 0);
    return async () => {
      const findings = await examine();
      for (const finding of findings) console.log(formatFinding(finding));
      const wrong = findings.filter(({ mend }) => mend !== undefined).length;
      if (wrong === 0) return console.log("nothing is in the way: dblock serve memory:1GiB --name scratch");
      throw new DblockError("ENOTCONN", "Cannot call this machine ready", `${wrong} of these are to be mended`);
    };
  },
};

/** Something that was looked at. */
export interface Finding {
  readonly what: string;
  /** What to type; undefined if nothing is wrong. */
  readonly mend?: string | undefined;
}

/** A finding as a line, or two. */
export function formatFinding({ what, mend }: Finding): string {
  return mend === undefined ? `ok     ${what}` : `WRONG  ${what}\n       ${mend}`;
}

/** Looks at everything. Where the files are can be another place than "/", for tests. */
export async function examine(root = ""): Promise<Finding[]> {
  const isRoot = Deno.uid() === 0;
  return [
    isRoot ? { what: "user: root" } : { what: "user: not root, who alone may make disks", mend: "sudo dblock doctor" },
    ...await examineModule(root, isRoot),
    ...examineRules(root),
    ...await examineLeftovers(),
  ];
}

/** The kernel's own module is the distribution's, and signed. */
const KERNEL_NBD: Finding = {
  what: "without the module: sudo modprobe nbd; sudo dblock serve SPEC --name NAME --transport nbd",
};

async function examineModule(root: string, isRoot: boolean): Promise<Finding[]> {
  const release = Deno.osRelease();
  if (!exists(`${root}/proc/modules`)) {
    const what = `module: this kernel (${release}) can load none`;
    return [{
      what,
      mend: "make demo (a virtual machine), or serve to NBD: dblock serve SPEC --nbd unix:/tmp/disk.sock",
    }];
  }
  if (!exists(`${root}${DBLOCK_CONTROL_PATH}`)) {
    const lockdown = lockdownOf(root);
    const load: Finding = { what: `module: not loaded (kernel ${release})`, mend: howToLoad(root, release) };
    if (lockdown === "none") return [load, KERNEL_NBD];
    const cause = isSecureBoot(root) ? "Secure Boot is on" : `lockdown: ${lockdown}`;
    return [
      load,
      { what: `${cause}: the kernel loads only modules that are signed`, mend: howToSign(root) },
      KERNEL_NBD,
    ];
  }
  if (!isRoot) return [{ what: `module: loaded (kernel ${release})` }];
  try {
    const { abi, queueCountMax, deviceCountMax } = await moduleVersion();
    const limits = `up to ${deviceCountMax} disks, ${queueCountMax} queues each`;
    return [{ what: `module: loaded, ABI ${abi}, as this program; ${limits} (kernel ${release})` }];
  } catch (error) {
    const what = `module: ${describe(error)}; this program speaks ABI ${DBLOCK_ABI_VERSION}`;
    return [{ what, mend: "sudo make unload load, in the sources of this program" }];
  }
}

/** Where the module is installed, it is loaded from there; where DKMS has its sources, it lacks the kernel's headers. */
function howToLoad(root: string, release: string): string {
  const places = ["updates/dkms", "updates", "extra"].map((folder) =>
    `${root}/lib/modules/${release}/${folder}/dblock.ko`
  );
  if (places.some((path) => ["", ".xz", ".zst", ".gz"].some((end) => exists(path + end)))) {
    return "sudo modprobe dblock";
  }
  if (!exists(`${root}/var/lib/dkms/dblock`)) return "sudo make load";
  return `sudo apt-get install linux-headers-${release} && sudo dkms autoinstall && sudo modprobe dblock`;
}

/** The key that DKMS signs with, if it does, has to be one that the machine trusts. */
function howToSign(root: string): string {
  const key = "/var/lib/dkms/mok.pub";
  if (!exists(root + key)) {
    return "sign dblock.ko with a key that mokutil --import has enrolled, or turn Secure Boot off";
  }
  return `sudo mokutil --import ${key}, then reboot, and enroll the key when the firmware asks`;
}

/** What the firmware says: four bytes of attributes, and a 1 behind them. */
function isSecureBoot(root: string): boolean {
  try {
    const name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    return Deno.readFileSync(`${root}/sys/firmware/efi/efivars/${name}`)[4] === 1;
  } catch {
    return false;
  }
}

/** "none", "integrity" or "confidentiality". */
function lockdownOf(root: string): string {
  return /\[(\w+)\]/.exec(readText(`${root}/sys/kernel/security/lockdown`) ?? "")?.[1] ?? "none";
}

function examineRules(root: string): Finding[] {
  const folders = ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];
  const found = folders.map((folder) => `${folder}/60-dblock.rules`).find((path) => exists(root + path));
  if (found !== undefined) return [{ what: `udev rules: ${found}` }];
  if (!exists(`${root}/run/udev`)) return [{ what: "udev rules: none, and no udev that would read them" }];
  const mend = "sudo cp kmod/60-dblock.rules /etc/udev/rules.d/ && sudo udevadm control --reload";
  return [{ what: "udev rules: 60-dblock.rules is not installed, so disks have no links in /dev/disk/", mend }];
}

async function examineLeftovers(): Promise<Finding[]> {
  let devices: DeviceInfo[] | undefined;
  try {
    devices = await list();
  } catch {
    // What is wrong with the module has been said.
  }
  return leftovers(devices, kernelDisks(), startedNames());
}

/**
 * Disks without a server, and words without a disk.
 *
 * @param devices undefined: the module does not say
 * @param started the names of which /run/dblock/ has something
 */
export function leftovers(
  devices: readonly Pick<DeviceInfo, "name" | "path" | "state" | "onDeath">[] | undefined,
  others: readonly KernelDisk[],
  started: readonly string[],
): Finding[] {
  const findings: Finding[] = [];
  for (const { name, path, state, onDeath } of devices ?? []) {
    if (state !== "held" && state !== "failed") continue;
    const how = readStarted(name) === undefined ? `dblock serve SPEC --name ${name}` : `dblock recover ${name}`;
    const mend = `${how}, or: dblock destroy ${name}`;
    findings.push({
      what: `disk: ${path} has lost its server, and its I/O ${onDeath === "hold" ? "waits" : "fails"}`,
      mend,
    });
  }
  for (const { name, path, state } of others) {
    if (state === "live") continue;
    const what = `disk: ${path} (${name}) has lost its server, and its I/O fails`;
    findings.push({ what, mend: `sudo dblock destroy ${name}` });
  }
  if (devices === undefined) return findings; // a name without a disk may be a device's
  const names = new Set([...devices, ...others].map(({ name }) => name));
  for (const name of started.filter((name) => !names.has(name))) {
    const path = `${RUN_FOLDER}/${name}`;
    findings.push({
      what: `left over: ${path}.*, of a server that was killed`,
      mend: `sudo rm -f ${path}.json ${path}.sock`,
    });
  }
  return findings.length === 0 ? [{ what: `disks: ${names.size}, none of them without a server` }] : findings;
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}
