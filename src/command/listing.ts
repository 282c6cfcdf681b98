// SPDX-License-Identifier: MIT
/** What the commands print of each device: for people as text, for programs as JSON. */
import { formatSize } from "./cli.ts";
import type { DeviceInfo } from "../module/info.ts";
import type { KernelDisk } from "./kernel_disk.ts";

const OPERATIONS = [
  ["read", "read"],
  ["write", "write"],
  ["flush", "flush"],
  ["discard", "discard"],
  ["writeZeroes", "write zeroes"],
] as const;

/** "1 queue", "2 queues". */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** Requests handed out per EXCHANGE that handed out any; 0 before the first. */
export function averageBatch({ counts }: Pick<DeviceInfo, "counts">): number {
  return counts.batches === 0 ? 0 : counts.handedOut / counts.batches;
}

/** A device as four lines of text: what it is, what happens when, what was done, what is going on. */
export function formatDevice(info: DeviceInfo): string {
  const { queues, counts, inFlight } = info;
  const server = info.server === undefined ? "no server" : `served by process ${info.server.pid}`;
  const timeout = info.timeoutMs === 0 ? "no timeout" : `timeout ${info.timeoutMs / 1000} s`;
  const done = OPERATIONS.map(([key, name]) => {
    const { count, bytes } = info.requests[key];
    return `${name} ${count}${bytes === 0 ? "" : ` (${formatSize(bytes)})`}`;
  });
  return [
    `${info.path}: ${info.state}, ${formatSize(info.sizeBytes)}, ` +
    `${counted(queues.count, "queue")} of ${queues.depth}, ${server}, open ${info.openCount}`,
    `  on death ${info.onDeath}, ${timeout}; ` +
    `${counts.deaths} dead, ${counts.leaves} left, ${counts.replayed} replayed, ${counts.timeouts} timed out, ` +
    `${counts.stale} stale, ${counts.refused} refused, ${counted(counts.errors, "error")}`,
    `  done: ${done.join(", ")}`,
    `  now: ${inFlight.waiting + inFlight.handedOut + inFlight.passed} in flight (${inFlight.waiting} waiting, ` +
    `${inFlight.handedOut} handed out, ${inFlight.passed} at its file), ${inFlight.quarantined} quarantined; ` +
    `average batch ${averageBatch(info).toFixed(1)}`,
  ].join("\n");
}

/** Everything that there is to know of the disks; those of the module have the names of `DeviceInfo`. */
export function jsonOf(infos: readonly (DeviceInfo | KernelDisk)[]): string {
  return JSON.stringify(infos, undefined, 2);
}
