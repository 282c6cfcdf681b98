// SPDX-License-Identifier: MIT
/**
 * Disks of dblock that the initial ramdisk has to serve, as fstab has / or /usr on them: whether what makes it on this machine
 * sees to that. The hook of initramfs-tools (src/build/initramfs/) finds the same disks by itself.
 */
import { basename, exists } from "../system/path.ts";

/** A disk of dblock, and what is on it. */
export interface EarlyDisk {
  readonly name: string;
  readonly place: "/" | "/usr";
}

/** What puts their servers into the initial ramdisk: `missing` is what to say is not there. */
export interface EarlyMaker {
  readonly missing: "hook" | "initramfs-tools" | undefined;
  /** "dracut", if that is what makes it. */
  readonly other: string | undefined;
}

const HOOK = "/usr/share/initramfs-tools/hooks/dblock";
const LINKS: Readonly<Record<string, string>> = {
  UUID: "by-uuid",
  LABEL: "by-label",
  PARTUUID: "by-partuuid",
  PARTLABEL: "by-partlabel",
};

/** Looks for them. @param root where the files are: "", or a folder in tests */
export function earlyDisks(root: string): EarlyDisk[] {
  const found: EarlyDisk[] = [];
  for (const line of readText(`${root}/etc/fstab`).split("\n")) {
    const [source = "", place] = line.trim().split(/\s+/);
    if (source.startsWith("#") || place !== "/" && place !== "/usr") continue;
    const device = kernelName(root, source);
    for (const name of device === undefined ? [] : disksBelow(root, device)) found.push({ name, place });
  }
  return found;
}

/** What there is to serve them. */
export function earlyMaker(root: string): EarlyMaker {
  const has = (path: string) => exists(root + path);
  const other = ["dracut", "mkinitcpio", "booster"].find((name) => has(`/usr/bin/${name}`) || has(`/usr/sbin/${name}`));
  if (!has("/usr/sbin/update-initramfs")) return { missing: "initramfs-tools", other };
  return { missing: has(HOOK) ? undefined : "hook", other };
}

/** "vda1", of /dev/vda1, or of a link to it. */
function kernelName(root: string, source: string): string | undefined {
  const [, tag, value] = /^([A-Z]+)="?(.*?)"?$/.exec(source) ?? [];
  const link = tag === undefined ? undefined : LINKS[tag];
  const path = link === undefined ? source : `/dev/disk/${link}/${value}`;
  if (!path.startsWith("/dev/")) return undefined;
  try {
    return basename(Deno.realPathSync(root + path));
  } catch {
    return undefined; // it is not there, so nobody knows what it is on
  }
}

/** By way of partitions, volumes and whatever else lies between. */
function disksBelow(root: string, device: string): string[] {
  const folder = `${root}/sys/class/block/${device}`;
  if (exists(`${folder}/dblock`)) return [device];
  if (exists(`${folder}/partition`)) return disksBelow(root, Deno.realPathSync(folder).split("/").at(-2)!);
  try {
    return [...Deno.readDirSync(`${folder}/slaves`)].flatMap(({ name }) => disksBelow(root, name)).sort();
  } catch {
    return [];
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
