// SPDX-License-Identifier: MIT
/**
 * Who has a disk open: what /proc and /sys know of its mounts, swap, stacked devices and open files. For people to read;
 * whether a device may go is the kernel's to decide.
 */

const SYS_BLOCK = "/sys/class/block";
const HOLDERS_MAX = 5;

/** "8:0" and the like. */
type DeviceNumber = string;

/** The numbers and names of a disk and its partitions. */
function partsOf(name: string): Map<DeviceNumber, string> {
  const parts = new Map<DeviceNumber, string>();
  const add = (folder: string, part: string) => {
    const number = readText(`${folder}/dev`).trim();
    if (number !== "") parts.set(number, part);
  };
  add(`${SYS_BLOCK}/${name}`, name);
  for (const entry of namesIn(`${SYS_BLOCK}/${name}`)) {
    if (entry.startsWith(name)) add(`${SYS_BLOCK}/${name}/${entry}`, entry);
  }
  return parts;
}

/**
 * Says who has the disk or a partition of it open, at most five of them:
 * `["mounted on /mnt", "open in fio (pid 42)"]`. Empty if nobody can be found, which an ordinary user should expect.
 */
export function holdersOf(name: string): string[] {
  const parts = partsOf(name);
  const found = [...mountsOf(parts), ...swapsOf(parts), ...stackedOn(parts), ...openersOf(parts)];
  const rest = found.length - HOLDERS_MAX;
  return rest > 0 ? [...found.slice(0, HOLDERS_MAX), `and ${rest} more`] : found;
}

function mountsOf(parts: Map<DeviceNumber, string>): string[] {
  const found = new Set<string>();
  // A mount in another namespace (a container's) holds the disk just as well.
  for (const pid of ["self", ...processes()]) {
    for (const mount of parseMountInfo(readText(`/proc/${pid}/mountinfo`))) {
      const part = parts.get(mount.device);
      if (part !== undefined) found.add(`mounted on ${mount.target}`);
    }
  }
  return [...found];
}

/** Device number and mount point of each line of a mountinfo file (proc(5)). */
export function parseMountInfo(text: string): { device: DeviceNumber; target: string }[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const [, , device = "", , target = ""] = line.split(" ");
    const plain = target.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
    return { device, target: plain };
  });
}

function swapsOf(parts: Map<DeviceNumber, string>): string[] {
  const names = [...parts.values()];
  return readText("/proc/swaps").split("\n")
    .map((line) => line.split(/\s+/)[0] ?? "")
    .filter((path) => names.some((name) => path === `/dev/${name}`))
    .map((path) => `${path} is swap`);
}

function stackedOn(parts: Map<DeviceNumber, string>): string[] {
  return [...parts.values()].flatMap((part) =>
    namesIn(`${SYS_BLOCK}/${part}/holders`).map((holder) => `part of /dev/${holder}`)
  );
}

function openersOf(parts: Map<DeviceNumber, string>): string[] {
  const found: string[] = [];
  for (const pid of processes()) {
    const opens = namesIn(`/proc/${pid}/fd`).some((fd) => {
      const number = deviceNumberAt(`/proc/${pid}/fd/${fd}`);
      return number !== undefined && parts.has(number);
    });
    if (opens) found.push(`open in ${readText(`/proc/${pid}/comm`).trim()} (pid ${pid})`);
  }
  return found;
}

function deviceNumberAt(path: string): DeviceNumber | undefined {
  try {
    const stat = Deno.statSync(path);
    if (!stat.isBlockDevice || stat.rdev === null) return undefined;
    // Linux's dev_t as stat(2) gives it: 12 bits of major between 20 bits of minor, both with more above.
    const rdev = BigInt(stat.rdev);
    const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
    const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
    return `${major}:${minor & 0xffffffffn}`;
  } catch {
    return undefined; // closed meanwhile, or not ours to see
  }
}

function processes(): string[] {
  return namesIn("/proc").filter((name) => /^[0-9]+$/.test(name));
}

function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map((entry) => entry.name);
  } catch {
    return []; // no such folder, or not ours to see
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
