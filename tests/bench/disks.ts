/** The disks that are compared: what they are called and what they are. How they start is in foreign.ts and own.ts. */

/** Disks of others, and of the kernel itself. */
export const foreignKinds = ["brd", "null_blk", "loop", "nbdkit", "ublk", "loop-disk"] as const;

/** Ours: the ways to serve a disk. */
export const ownKinds = ["direct", "file", "delivered", "sync", "async", "mapped-disk", "file-disk"] as const;

export type ForeignKind = typeof foreignKinds[number];
export type OwnKind = typeof ownKinds[number];

/** A disk to measure. */
export interface DiskSpec {
  /** Its key in results.json and DISKS=. */
  readonly name: string;
  readonly kind: ForeignKind | OwnKind;
  readonly sizeMiB: number;
  /** @default what serve() takes; for others, a queue per processor */
  readonly queues?: number;
  /** That many disks of this kind at once, used by one fio; not for files, nor for most of others. @default 1 */
  readonly count?: number;
}

/** What all others are compared with: no server, no copy between processes. */
export const reference = "brd";

/** What the goals are set against: the fastest of the others that has a server. */
export const rival = "ublk";

const sizeMiB = 512;

/** The disks of the first table, in its order. */
export const disks: readonly DiskSpec[] = [...foreignKinds, ...ownKinds].map((kind) => ({ name: kind, kind, sizeMiB }));

/** What they are, for people. */
export const descriptions: Readonly<Record<ForeignKind | OwnKind, string>> = {
  brd: "the kernel's ramdisk",
  null_blk: "the kernel's null_blk, memory_backed",
  loop: "the kernel's loop device on a file on tmpfs",
  nbdkit: "nbdkit memory (C) over a unix socket and the kernel's nbd",
  ublk: "ublk with a server in C",
  "loop-disk": "the kernel's loop device, direct I/O, on a file on a disk",
  direct: "./dblock-ramdisk: memory, copied by the kernel",
  file: "./dblock-ramdisk --store, a file on tmpfs",
  delivered: "a Backend in TypeScript, a Worker per queue",
  sync: "a Backend in TypeScript that answers at once, one event loop",
  async: "an async Backend in TypeScript, one event loop",
  "mapped-disk": "dblock serve file:…, a file on a disk, mapped: through the page cache",
  "file-disk": "dblock serve file:…?direct, a file on a disk",
};

/** True for a disk that dblock serves. */
export function isOwn(kind: ForeignKind | OwnKind): kind is OwnKind {
  return (ownKinds as readonly string[]).includes(kind);
}
