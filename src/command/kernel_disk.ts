// SPDX-License-Identifier: MIT
/**
 * What other commands know of disks of `dblock serve --transport nbd`: the kernel's NBD client has them as /dev/nbdN. The
 * name is ours alone, and /run/dblock/ says which number it is.
 */
import { DblockError } from "../disk/errors.ts";
import { disconnectKernelDevice, kernelDeviceOwner, kernelDevicePath } from "../system/kernel_nbd.ts";
import { formatSize } from "./cli.ts";
import { exists } from "../system/path.ts";
import { forgetStarted, readStarted, type Started, startedNames } from "./run_folder.ts";

const SECTOR_BYTES = 512;

/**
 * Takes a disk from the kernel; its server, if it lives, ends with it.
 *
 * @throws {DblockError} EBUSY (in use), ENOENT (there is none any more).
 */
export async function destroyKernelDisk(started: Started, options: { readonly force: boolean }): Promise<void> {
  const { name, kernelNbd } = started;
  if (kernelNbd === undefined || !isOurs(started)) {
    forgetStarted(name);
    throw new DblockError("ENOENT", `Cannot destroy ${name}`, "it has ended already");
  }
  await disconnectKernelDevice(kernelNbd, options);
}

/** A disk of the kernel's NBD client, as `--json` has it. */
export interface KernelDisk {
  readonly name: string;
  readonly path: string;
  readonly transport: "nbd";
  /** A killed server leaves a disk whose I/O fails. */
  readonly state: "live" | "failed";
  readonly sizeBytes: number;
  readonly server: { readonly pid: number } | undefined;
  readonly spec: string;
}

/** Those that there are. */
export function kernelDisks(): KernelDisk[] {
  return startedNames().flatMap((name) => readStarted(name) ?? []).filter(isOurs).map(kernelDiskOf);
}

/** What `dblock info` says. */
export function describeKernelDisk({ name, path, sizeBytes, server, spec }: KernelDisk): string {
  return [
    `${path} (${name}): ${formatSize(sizeBytes)}`,
    "  the kernel's NBD client has it; " +
    (server === undefined ? "its server is dead: I/O fails" : `process ${server.pid} serves it`),
    `  content: ${spec}`,
  ].join("\n");
}

function kernelDiskOf(started: Started): KernelDisk {
  const { name, pid, words: [spec = ""] } = started;
  const isLive = isServed(started);
  return {
    name,
    path: kernelDevicePath(started.kernelNbd!),
    transport: "nbd",
    state: isLive ? "live" : "failed",
    sizeBytes: sizeOf(started),
    server: isLive ? { pid } : undefined,
    spec,
  };
}

/** The kernel still has what that server gave it. */
function isOurs({ kernelNbd, pid }: Started): boolean {
  return kernelNbd !== undefined && kernelDeviceOwner(kernelNbd) === pid;
}

function isServed({ pid }: Started): boolean {
  return exists(`/proc/${pid}`);
}

/** The name of a disk whose server was killed is free; that of another one is not. @throws {DblockError} EEXIST */
export async function replaceDead(started: Started): Promise<void> {
  if (!isOurs(started)) return;
  if (isServed(started)) {
    const hint = `end that one with dblock destroy ${started.name}, or take another name: --name NAME`;
    throw new DblockError("EEXIST", `Cannot create ${started.name}`, "the name is in use", { hint });
  }
  await destroyKernelDisk(started, { force: false });
  forgetStarted(started.name);
}

function sizeOf({ kernelNbd }: Started): number {
  try {
    return Number(Deno.readTextFileSync(`/sys/block/nbd${kernelNbd}/size`)) * SECTOR_BYTES;
  } catch {
    return 0;
  }
}
