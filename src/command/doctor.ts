// SPDX-License-Identifier: MIT
/** `dblock doctor`: what stands in the way of a disk on this machine, each with the command that mends it. It changes nothing. */
import { DBLOCK_ABI_VERSION, DBLOCK_CONTROL_PATH } from "../module/abi.ts";

import { DblockError, describe } from "../disk/errors.ts";
import { AbiError } from "../module/control.ts";
import { type DeviceInfo, list, moduleVersion } from "../module/info.ts";
import { type Command, readTyped } from "./command.ts";
import { earlyDisks, earlyMaker } from "./early_disks.ts";
import { type KernelDisk, kernelDisks } from "./kernel_disk.ts";
import { type ModuleOrigin, moduleOrigin } from "./module_origin.ts";
import { exists } from "../system/path.ts";
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

/** The key that DKMS signs modules with, as mokutil reads it. */
export const DKMS_KEY = "/var/lib/dkms/mok.pub";

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

/**
 * Looks at everything.
 *
 * @param root where the files are, for tests
 * @param release the kernel's, for tests
 * @param program the path of this program, for tests
 */
export async function examine(
  root = "",
  release: string = Deno.osRelease(),
  program: string = Deno.execPath(),
): Promise<Finding[]> {
  const isRoot = Deno.uid() === 0;
  const origin = moduleOrigin(root, release, program);
  return [
    isRoot ? { what: "user: root" } : { what: "user: not root, who alone may make disks", mend: "sudo dblock doctor" },
    ...await examineModule(root, release, isRoot, origin),
    ...examineRules(root, origin),
    ...examineInitrd(root),
    ...await examineLeftovers(),
  ];
}

/** The kernel's own module is the distribution's, and signed. */
const KERNEL_NBD: Finding = {
  what: "without the module: sudo modprobe nbd; sudo dblock serve SPEC --name NAME --transport nbd",
};

/** The oldest kernel that the module can be built for; compat.h refuses an older one. */
const KERNEL_OLDEST = [5, 10] as const;

/** Whether a kernel with that release ("5.4.0-12-generic") is older than {@linkcode KERNEL_OLDEST}. */
function isTooOld(release: string): boolean {
  const [major = 0, minor = 0] = release.split(".").map((part) => parseInt(part, 10));
  return major < KERNEL_OLDEST[0] || major === KERNEL_OLDEST[0] && minor < KERNEL_OLDEST[1];
}

async function examineModule(
  root: string,
  release: string,
  isRoot: boolean,
  origin: ModuleOrigin,
): Promise<Finding[]> {
  if (!exists(`${root}/proc/modules`)) {
    const what = `module: this kernel (${release}) can load none`;
    return [{
      what,
      mend: "make demo (a virtual machine), or serve to NBD: dblock serve SPEC --nbd unix:/tmp/disk.sock",
    }];
  }
  if (isTooOld(release)) {
    const what = `module: this kernel (${release}) is too old for it`;
    return [{ what, mend: `boot Linux ${KERNEL_OLDEST.join(".")} or newer` }, KERNEL_NBD];
  }
  if (!exists(`${root}${DBLOCK_CONTROL_PATH}`)) {
    const lockdown = lockdownOf(root);
    const what = `module: not loaded (kernel ${release})`;
    if (lockdown === "none") return [{ what, mend: origin.load }, KERNEL_NBD];
    const cause = isSecureBoot(root) ? "Secure Boot is on" : `lockdown: ${lockdown}`;
    return [
      { what: `${cause}: the kernel loads only modules that are signed`, mend: howToSign(root) },
      { what, mend: `if it is signed: ${origin.load}` },
      KERNEL_NBD,
    ];
  }
  if (!isRoot) return [{ what: `module: loaded (kernel ${release})` }];
  try {
    const { abi, queueCountMax, deviceCountMax } = await moduleVersion();
    const limits = `up to ${deviceCountMax} disks, ${queueCountMax} queues each`;
    return [{ what: `module: loaded, ABI ${abi}, as this program; ${limits} (kernel ${release})` }];
  } catch (error) {
    if (!(error instanceof AbiError)) return [{ what: `module: ${describe(error)}`, mend: origin.replace }];
    const what = `module: ${error.wrong}`;
    if (error.moduleAbi > DBLOCK_ABI_VERSION) return [{ what, mend: origin.updateProgram }];
    // This program can end no disk of that module: their servers, which speak its ABI, have to.
    const names = moduleDisks(root);
    if (names.length === 0) return [{ what, mend: origin.replace }];
    const disks = `unmount and stop these disks first: ${names.join(" ")}`;
    return [{ what, mend: `${origin.replace} (${disks}; or reboot)` }];
  }
}

/** The module's disks by sysfs, which can be read whatever ABI the module speaks. */
function moduleDisks(root: string): string[] {
  try {
    const names = [...Deno.readDirSync(`${root}/sys/block`)].map(({ name }) => name);
    return names.filter((name) => exists(`${root}/sys/block/${name}/dblock`)).sort();
  } catch {
    return [];
  }
}

/**
 * The key that DKMS signs with, if it does, has to be one that the machine trusts. Lockdown without Secure Boot is a word of the
 * kernel's command line, and no key of the firmware counts.
 */
function howToSign(root: string): string {
  if (!isSecureBoot(root)) {
    return `boot without the kernel's parameter lockdown=${lockdownOf(root)}, or sign dblock.ko`;
  }
  if (!exists(root + DKMS_KEY)) {
    return "sign dblock.ko with a key that mokutil --import has enrolled, or turn Secure Boot off";
  }
  return `sudo mokutil --import ${DKMS_KEY}, then reboot, and enroll the key when the firmware asks`;
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

function examineRules(root: string, origin: ModuleOrigin): Finding[] {
  const folders = ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];
  const found = folders.map((folder) => `${folder}/60-dblock.rules`).find((path) => exists(root + path));
  if (found !== undefined) return [{ what: `udev rules: ${found}` }];
  if (!exists(`${root}/run/udev`)) return [{ what: "udev rules: none, and no udev that would read them" }];
  const what = "udev rules: 60-dblock.rules is not installed, so disks have no links in /dev/disk/";
  return [{ what, mend: origin.rules }];
}

/** Where / or /usr is on a disk of dblock, by fstab, the initial ramdisk has to serve it. */
function examineInitrd(root: string): Finding[] {
  const disks = earlyDisks(root);
  if (disks.length === 0) return [];
  const { missing, other } = earlyMaker(root);
  return disks.map(({ name, place }) => {
    const which = `/dev/${name}, which ${place} is on`;
    if (missing === undefined) {
      return { what: `initial ramdisk: update-initramfs puts the server of ${which}, into it` };
    }
    const what = `initial ramdisk: ${other ?? "what makes it"} does not serve ${which}`;
    return {
      what,
      mend: missing === "hook"
        ? "sudo apt-get install ./dblock_*.deb, whose hook of initramfs-tools does that"
        : "sudo apt-get install initramfs-tools, or have it start the server: man dblock, THE ROOT FILE SYSTEM",
    };
  });
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
