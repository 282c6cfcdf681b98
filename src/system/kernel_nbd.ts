// SPDX-License-Identifier: MIT
/** The kernel's own NBD client, called by netlink: it takes a socket and makes /dev/nbdN of it, and lets it go again. */
import { DblockError, ERRNO, errnoName } from "../disk/errors.ts";
import { Search } from "./holders.ts";
import { attribute, GenericNetlink } from "./netlink.ts";

// Of linux/nbd-netlink.h.
const FAMILY = "nbd";
const VERSION = 1;
const NBD_CMD_CONNECT = 1;
const NBD_CMD_DISCONNECT = 2;
const NBD_ATTR_INDEX = 1;
const NBD_ATTR_SIZE_BYTES = 2;
const NBD_ATTR_BLOCK_SIZE_BYTES = 3;
const NBD_ATTR_TIMEOUT = 4;
const NBD_ATTR_SERVER_FLAGS = 5;
const NBD_ATTR_SOCKETS = 7;
const NBD_SOCK_ITEM = 1;
const NBD_SOCK_FD = 1;
const GONE_MS = 5_000;
/** A search takes milliseconds, and much longer beside other work. */
const SEARCH_MS = 60_000;

/** Where the kernel has the disk of that number. */
export function kernelDevicePath(index: number): string {
  return `/dev/nbd${index}`;
}

/** What the kernel is told of a disk. */
export interface KernelDeviceSettings {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** NBD_FLAG_* */
  readonly flags: number;
  /** 0: never. */
  readonly timeoutMs: number;
}

/**
 * Gives the kernel a socket whose other end serves a disk, after the handshake or as if after one.
 *
 * @param attempted begins the message of an error
 * @returns the number that it has chosen
 * @throws {DblockError} ENOENT (the nbd module is not there), EPERM (not root), EBUSY (no device is free), EIO.
 */
export function connectKernelDevice(attempted: string, fd: number, settings: KernelDeviceSettings): number {
  using netlink = openFamily(attempted);
  const { errno, attributes } = netlink.call(NBD_CMD_CONNECT, VERSION, [
    attribute(NBD_ATTR_SIZE_BYTES, BigInt(settings.sizeBytes)),
    attribute(NBD_ATTR_BLOCK_SIZE_BYTES, BigInt(settings.blockBytes)),
    attribute(NBD_ATTR_TIMEOUT, BigInt(Math.ceil(settings.timeoutMs / 1000))),
    attribute(NBD_ATTR_SERVER_FLAGS, BigInt(settings.flags)),
    attribute(NBD_ATTR_SOCKETS, [attribute(NBD_SOCK_ITEM, [attribute(NBD_SOCK_FD, fd)])]),
  ]);
  const index = attributes.get(NBD_ATTR_INDEX)?.getUint32(0, true);
  if (errno !== 0 || index === undefined) throw refused(attempted, errno || ERRNO.EIO);
  return index;
}

/**
 * Takes a disk from the kernel's NBD client, whoever serves it, and returns when it is gone.
 *
 * @throws {DblockError} EBUSY (in use: the message says by whom), ENOENT (no module), EPERM (not root).
 */
export async function disconnectKernelDevice(index: number, options: { readonly force?: boolean } = {}): Promise<void> {
  const attempted = `Cannot destroy ${kernelDevicePath(index)}`;
  using netlink = openFamily(attempted);
  if (!options.force) {
    // The kernel would take it from whoever uses it, so nothing may be overlooked here.
    const search = new Search("");
    const holders = await search.holdersOf(`nbd${index}`, SEARCH_MS);
    if (holders.length > 0) throw new DblockError("EBUSY", attempted, `it is in use: ${holders.join(", ")}`);
    if (search.isIncomplete) {
      throw new DblockError("EBUSY", attempted, `${SEARCH_MS / 1000} s did not suffice to find out who uses it`);
    }
  }
  const { errno } = netlink.call(NBD_CMD_DISCONNECT, VERSION, [attribute(NBD_ATTR_INDEX, index)]);
  if (errno !== 0 && errno !== ERRNO.EINVAL) throw refused(attempted, errno); // EINVAL: there is none any more
  const start = performance.now();
  while (kernelDeviceOwner(index) !== undefined && performance.now() - start < GONE_MS) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The process that has given a disk to the kernel, dead or alive; undefined if that number has no disk. */
export function kernelDeviceOwner(index: number): number | undefined {
  try {
    return Number(Deno.readTextFileSync(`/sys/block/nbd${index}/pid`));
  } catch {
    return undefined;
  }
}

function openFamily(attempted: string): GenericNetlink {
  const netlink = GenericNetlink.open(FAMILY);
  if (netlink !== undefined) return netlink;
  throw new DblockError("ENOENT", attempted, "the kernel's module nbd is not loaded", { hint: "sudo modprobe nbd" });
}

function refused(attempted: string, errno: number): DblockError {
  switch (errno) {
    case ERRNO.EPERM:
      return new DblockError("EPERM", attempted, "only root may", { hint: "sudo" });
    case ERRNO.EBUSY:
    case ERRNO.ENOENT:
      return new DblockError("EBUSY", attempted, "no /dev/nbdN is free");
    default:
      return new DblockError("EIO", attempted, `the kernel says ${errnoName(errno)}`);
  }
}
