// SPDX-License-Identifier: MIT
/**
 * Who has a disk open: what /proc and /sys know of its mounts, swap, stacked devices and open files. For people to read;
 * whether a device may go is the kernel's to decide.
 *
 * The program that asks may be the one that serves the disk. So its thread never waits here for a file system: of other
 * programs' open files only the name is read, unless it is in /dev; and /proc/PID/mountinfo, for which btrfs may read its
 * disk, is read by another thread.
 */

const HOLDERS_MAX = 5;
/** After this long whoever was found is the answer: a lock of the kernel may be held by somebody who waits for the disk. */
const TIMEOUT_MS = 2_000;

/** "8:0" and the like. */
type DeviceNumber = string;

/** One mount, of a line of a mountinfo file. */
export interface Mount {
  /** Of the file system: of no disk for one that is on several (btrfs). */
  readonly device: DeviceNumber;
  readonly target: string;
  readonly type: string;
  /** What was mounted: "/dev/sda1". */
  readonly source: string;
}

/** A block device, and who is found to use it. */
interface Part {
  readonly name: string;
  readonly number: DeviceNumber;
  /** The device that it is a part of, as "part of /dev/mapper/vg-lv"; undefined for the disk and its partitions. */
  readonly stack: string | undefined;
}

/**
 * Says who has the disk or a partition of it open, at most five of them:
 * `["mounted on /mnt", "open in fio (pid 42)"]`. Empty if nobody can be found, which an ordinary user should expect.
 * Takes 2 s at most.
 *
 * ```ts no-run
 * import { holdersOf } from "../mod.ts";
 *
 * console.log((await holdersOf("scratch")).join(", "));
 * ```
 *
 * @param name of the disk: "scratch"
 */
export async function holdersOf(name: string): Promise<string[]> {
  return await new Search("").holdersOf(name);
}

/** One look at the machine. */
export class Search {
  readonly #root: string;
  readonly #found = new Set<string>();
  /** The last answer is what was found by then; there may be more. */
  isIncomplete = false;

  /** @param root where /proc, /sys and /dev are: "", or a folder that has them */
  constructor(root: string) {
    this.#root = root;
  }

  /** {@linkcode holdersOf} of this machine, within that time. */
  async holdersOf(name: string, timeoutMs = TIMEOUT_MS): Promise<string[]> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, timeoutMs);
    const parts = this.#partsOf(name);
    this.#swaps(parts);
    this.#loops(parts);
    this.isIncomplete = true;
    const complete = this.#mounts(parts).then(() => this.#openers(parts)).then(() => void (this.isIncomplete = false));
    await Promise.race([complete, late.promise]);
    clearTimeout(timer);
    // A stacked device is named by what it is used for, if that was found.
    const said = [...this.#found];
    const idle = parts.flatMap(({ stack }) =>
      stack === undefined || said.some((one) => one.startsWith(`${stack}, `)) ? [] : stack
    );
    const all = [...new Set([...said, ...idle])];
    const rest = all.length - HOLDERS_MAX;
    return rest > 0 ? [...all.slice(0, HOLDERS_MAX), `and ${rest} more`] : all;
  }

  /** The disk, its partitions, and the devices that are made of them: LVM, dm-crypt, MD. */
  #partsOf(name: string): Part[] {
    const parts: Part[] = [];
    const add = (part: string, stack: string | undefined) => {
      if (parts.some((known) => known.name === part)) return;
      const number = this.#text(`/sys/class/block/${part}/dev`).trim();
      if (number === "") return;
      parts.push({ name: part, number, stack });
      for (const holder of this.#names(`/sys/class/block/${part}/holders`)) {
        add(holder, `part of ${this.#nodeOf(holder)}`);
      }
      for (const entry of this.#names(`/sys/class/block/${part}`)) {
        if (entry.startsWith(part) && this.#text(`/sys/class/block/${part}/${entry}/partition`) !== "") {
          add(entry, stack);
        }
      }
    };
    add(name, undefined);
    return parts;
  }

  /** "/dev/mapper/vg-lv" for "dm-0". */
  #nodeOf(name: string): string {
    const mapped = this.#text(`/sys/class/block/${name}/dm/name`).trim();
    return mapped === "" ? `/dev/${name}` : `/dev/mapper/${mapped}`;
  }

  #add(part: Part, use: string): void {
    this.#found.add(part.stack === undefined ? use : `${part.stack}, which is ${use}`);
  }

  async #mounts(parts: readonly Part[]): Promise<void> {
    const byNumber = new Map(parts.map((part) => [part.number, part]));
    const bySource = new Map(parts.flatMap((part) => this.#sourcesOf(part).map((source) => [source, part])));
    const namespaces = new Set<string>();
    // A mount in another namespace (a container's) holds the disk just as well.
    for (const pid of ["self", ...this.#processes()]) {
      const namespace = this.#target(`/proc/${pid}/ns/mnt`) ?? pid;
      if (namespaces.has(namespace)) continue;
      namespaces.add(namespace);
      const text = await Deno.readTextFile(`${this.#root}/proc/${pid}/mountinfo`).catch(() => "");
      for (const mount of parseMountInfo(text)) {
        // bcachefs names all its disks: "/dev/a:/dev/b".
        const sources = mount.source.split(":");
        const part = byNumber.get(mount.device) ??
          sources.map((one) => bySource.get(one)).find((one) => one !== undefined);
        if (part !== undefined) this.#add(part, `mounted on ${mount.target}`);
      }
    }
  }

  /** What a mount of this device, or of a file system that has it among others, may be called. */
  #sourcesOf({ name }: Part): string[] {
    const own = [`/dev/${name}`, this.#nodeOf(name)];
    const siblings = this.#names("/sys/fs/btrfs").map((uuid) => this.#names(`/sys/fs/btrfs/${uuid}/devices`))
      .filter((devices) => devices.includes(name)).flat();
    return [...new Set([...own, ...siblings.flatMap((sibling) => [`/dev/${sibling}`, this.#nodeOf(sibling)])])];
  }

  #swaps(parts: readonly Part[]): void {
    for (const line of this.#text("/proc/swaps").split("\n")) {
      const path = line.split(/\s+/)[0] ?? "";
      const part = parts.find(({ name }) => path === `/dev/${name}` || path === this.#nodeOf(name));
      if (part !== undefined) {
        this.#found.add(part.stack === undefined ? `${path} is swap` : `${part.stack}, which is swap`);
      }
    }
  }

  #loops(parts: readonly Part[]): void {
    for (const loop of this.#names("/sys/class/block").filter((name) => name.startsWith("loop"))) {
      const file = this.#text(`/sys/class/block/${loop}/loop/backing_file`).trim();
      const part = parts.find(({ name }) => file === `/dev/${name}` || file === this.#nodeOf(name));
      if (part !== undefined) this.#add(part, `behind /dev/${loop}`);
    }
  }

  /** Other work of this thread goes on between two processes. */
  async #openers(parts: readonly Part[]): Promise<void> {
    const byNumber = new Map(parts.map((part) => [part.number, part]));
    for (const pid of this.#processes()) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const fd of this.#names(`/proc/${pid}/fd`)) {
        const path = `/proc/${pid}/fd/${fd}`;
        // To look at an open file itself may take its file system's answer; what is in /dev is in memory.
        if (!this.#target(path)?.startsWith("/dev/")) continue;
        const part = byNumber.get(this.#deviceNumberAt(path) ?? "");
        if (part === undefined) continue;
        this.#add(part, `open in ${this.#text(`/proc/${pid}/comm`).trim()} (pid ${pid})`);
        break;
      }
    }
  }

  #processes(): string[] {
    return this.#names("/proc").filter((name) => /^[0-9]+$/.test(name));
  }

  #names(folder: string): string[] {
    try {
      return [...Deno.readDirSync(this.#root + folder)].map((entry) => entry.name);
    } catch {
      return []; // no such folder, or not ours to see
    }
  }

  #text(path: string): string {
    try {
      return Deno.readTextFileSync(this.#root + path);
    } catch {
      return "";
    }
  }

  #target(path: string): string | undefined {
    try {
      return Deno.readLinkSync(this.#root + path);
    } catch {
      return undefined; // closed meanwhile, or not ours to see
    }
  }

  #deviceNumberAt(path: string): DeviceNumber | undefined {
    try {
      const stat = Deno.statSync(this.#root + path);
      return stat.isBlockDevice && stat.rdev !== null ? deviceNumber(stat.rdev) : undefined;
    } catch {
      return undefined;
    }
  }
}

/** Linux's dev_t as stat(2) gives it: 12 bits of major between 20 bits of minor, both with more above. */
export function deviceNumber(rdev: number): DeviceNumber {
  const bits = BigInt(rdev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** The mounts of a mountinfo file (proc(5)). */
export function parseMountInfo(text: string): Mount[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const [before = "", after = ""] = line.split(" - ");
    const [, , device = "", , target = ""] = before.split(" ");
    const [type = "", source = ""] = after.split(" ");
    return { device, target: plain(target), type, source: plain(source) };
  });
}

/** The kernel writes spaces, tabs, newlines and backslashes as octal numbers of three digits. */
function plain(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
