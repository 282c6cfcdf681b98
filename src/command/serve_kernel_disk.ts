// SPDX-License-Identifier: MIT
/** `dblock serve --transport nbd`: disks are given to the kernel's NBD client, and taken back at a signal. */
import { describe } from "../disk/errors.ts";
import type { Meter } from "../disk/meter.ts";
import { type KernelDevice, serveKernelDevice } from "../nbd/kernel_device.ts";
import { formatSize } from "./cli.ts";
import { replaceDead } from "./kernel_disk.ts";
import { logOptionsOf } from "./log.ts";
import { keepStarted, readStarted } from "./run_folder.ts";
import type { ServedDisk } from "./served_disk.ts";

/** A disk that the kernel's NBD client has, under its name. */
export interface ServedKernelDisk {
  readonly name: string;
  readonly disk: ServedDisk;
  readonly device: KernelDevice;
  /** Counts its requests. */
  readonly meter: Meter;
  /** Resolves when the kernel has let it go, and nothing of it is in /run/dblock. */
  readonly ended: Promise<void>;
}

/**
 * Gives the disks to the kernel: all of them, or none.
 *
 * @throws {DblockError} why one cannot be.
 */
export async function startKernelDisks(disks: readonly ServedDisk[]): Promise<ServedKernelDisk[]> {
  const started: ServedKernelDisk[] = [];
  const parts = disks.flatMap((disk) => disk.kernelParts.map((part) => ({ disk, ...part })));
  for (const [i, { disk, name, backend, meter }] of parts.entries()) {
    try {
      const before = readStarted(name);
      if (before !== undefined) await replaceDead(before);
      const { timeoutMs, words } = disk.plan;
      const device = await serveKernelDevice(backend, { timeoutMs, ...logOptionsOf(name) });
      const kept = keepStarted({ name, pid: Deno.pid, cwd: Deno.cwd(), words, kernelNbd: device.index });
      started.push({ name, disk, device, meter, ended: device.closed.then(() => kept[Symbol.dispose]()) });
    } catch (error) {
      for (const { device } of started) await device.close({ force: true });
      for (const rest of parts.slice(i + 1)) await rest.backend.close?.("unused");
      throw error;
    }
  }
  return started;
}

/** The line that says that it is there. */
export function greetingOfKernelDisk({ name, disk, device }: ServedKernelDisk): string {
  return `${device.path} (${name}) is ready: ${formatSize(device.sizeBytes)}, the kernel's NBD client, ` +
    disk.plan.source.text;
}

/** Ctrl-C and SIGTERM end the disks; if somebody uses one, the second time. */
export function endAtSignals(
  disks: readonly ServedKernelDisk[],
  complain: (line: string, disk: string) => void,
): Disposable {
  const asked = new Set<ServedKernelDisk>();
  const end = () => {
    for (const one of disks) {
      const force = asked.has(one);
      asked.add(one);
      one.device.close({ force }).catch((error) =>
        complain(`${describe(error)}; once more ends it all the same`, one.name)
      );
    }
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  if (disks.length > 0) { for (const name of signals) Deno.addSignalListener(name, end); }
  return {
    [Symbol.dispose]: () => {
      if (disks.length > 0) { for (const name of signals) Deno.removeSignalListener(name, end); }
    },
  };
}
