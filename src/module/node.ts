// SPDX-License-Identifier: MIT
/** A device's node for its server, /dev/NAME-ctl: opened for a queue, or for what is asked of the whole device. */
import { DBLOCK_IOC_RESIZE, DBLOCK_IOC_START, dblock_resize, dblock_start } from "./abi.ts";
import { devicePath, ioctlError, openNode } from "./control.ts";
import { DblockError, ERRNO } from "../disk/errors.ts";
import { type Kernel, linux, O_RDWR } from "../system/libc.ts";
import { decode, encode } from "../system/struct.ts";
import { blockingTurn } from "../system/waiting.ts";

/**
 * Opens a file that can serve a queue; it does from ATTACH on.
 *
 * @throws {DblockError} ENOENT, EACCES.
 */
export function openQueue(
  name: string,
  queue: number,
  options: { readonly kernel: Kernel; readonly flags?: number },
): number {
  const { kernel, flags = 0 } = options;
  const path = devicePath(name);
  return openNode(kernel, `${path}-ctl`, O_RDWR | flags, `Cannot serve queue ${queue} of ${path}`);
}

/**
 * START: makes the disk appear. Every queue has to be attached and served
 * meanwhile, as the kernel reads the partition table.
 *
 * @param options.existing the disk is there: START sets I/O going if it waits
 * @param options.id only this device
 * @throws {DblockError} ENODEV (it was destroyed), ESTALE, ENOTCONN, EEXIST, ENOMEM.
 */
export async function start(
  name: string,
  kernel: Kernel = linux,
  options: { readonly existing?: boolean; readonly id?: number } = {},
): Promise<void> {
  const attempted = `Cannot start ${devicePath(name)}`;
  using _turn = await blockingTurn();
  const fd = openNode(kernel, `${devicePath(name)}-ctl`, O_RDWR, attempted);
  try {
    for (let mayBeLive = options.existing ?? false;;) {
      const bytes = encode(dblock_start, { id: options.id ?? 0 });
      if (await kernel.ioctlAsync(fd, DBLOCK_IOC_START, bytes) >= 0) return;
      const { error } = decode(dblock_start, bytes);
      if (error === ERRNO.EALREADY && mayBeLive) return;
      if (error === ERRNO.ENODEV) {
        throw new DblockError(error, attempted, "it was destroyed meanwhile");
      }
      if (error !== ERRNO.EINTR) throw ioctlError(error, attempted);
      mayBeLive = true;
    }
  } finally {
    kernel.close(fd);
  }
}

/**
 * RESIZE: the disk, and everybody who has it open, has another size from now on.
 *
 * @param id only this device; 0: whatever has the name
 * @throws {DblockError} EINVAL, ENODEV (it is not live), ESTALE (another device has the name), EPERM.
 */
export async function resize(name: string, sizeBytes: number, kernel: Kernel = linux, id = 0): Promise<void> {
  const attempted = `Cannot resize ${devicePath(name)}`;
  const fd = openNode(kernel, `${devicePath(name)}-ctl`, O_RDWR, attempted);
  try {
    const bytes = encode(dblock_resize, { id, size_bytes: sizeBytes });
    if (await kernel.ioctlAsync(fd, DBLOCK_IOC_RESIZE, bytes) >= 0) return;
    throw ioctlError(decode(dblock_resize, bytes).error, attempted);
  } finally {
    kernel.close(fd);
  }
}
