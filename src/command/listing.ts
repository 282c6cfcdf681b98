// SPDX-License-Identifier: MIT
/** What `dblock-ramdisk --list` prints of each device: for people as text, for programs as JSON. */
import { formatSize } from "./cli.ts";
import { devicePath, type RawInfo as DeviceInfo } from "../module/control.ts";

const STATES = ["created", "starting", "live", "held", "failed", "removing", "gone"];
const ON_DEATH = ["remove", "fail", "hold"];
const OPERATIONS = ["read", "write", "flush", "discard", "write zeroes"];

/** The name of an enum dblock_state. */
export function stateName(state: number): string {
  return STATES[state] ?? `state ${state}`;
}

/** The name of an enum dblock_on_death. */
export function onDeathName(policy: number): string {
  return ON_DEATH[policy] ?? `policy ${policy}`;
}

/** "1 queue", "2 queues". */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** Requests handed out per EXCHANGE that handed out any; 0 before the first. */
export function averageBatch(info: DeviceInfo): number {
  return info.batch_count === 0 ? 0 : info.handed_total / info.batch_count;
}

/** A device as four lines of text: what it is, what happens when, what was done, what is going on. */
export function formatDevice(info: DeviceInfo): string {
  const server = info.server_pid === 0 ? "no server" : `served by process ${info.server_pid}`;
  const timeout = info.timeout_ms === 0 ? "no timeout" : `timeout ${info.timeout_ms / 1000} s`;
  const done = OPERATIONS.map((name, i) => {
    const bytes = info.bytes[i] ?? 0;
    return `${name} ${info.requests[i] ?? 0}${bytes === 0 ? "" : ` (${formatSize(bytes)})`}`;
  });
  return [
    `${devicePath(info.name)}: ${stateName(info.state)}, ${formatSize(info.size_bytes)}, ` +
    `${counted(info.queue_count, "queue")} of ${info.queue_depth}, ${server}, open ${info.open_count}`,
    `  on death ${onDeathName(info.on_death)}, ${timeout}; ` +
    `${info.death_count} dead, ${info.replayed_count} replayed, ${info.timeout_count} timed out, ` +
    `${info.stale_count} stale, ${info.refused_count} refused, ${counted(info.error_count, "error")}`,
    `  done: ${done.join(", ")}`,
    `  now: ${info.waiting_count + info.handed_count} in flight (${info.waiting_count} waiting, ` +
    `${info.handed_count} handed out), ${info.quarantined_count} quarantined; ` +
    `average batch ${averageBatch(info).toFixed(1)}`,
  ].join("\n");
}

/** Everything the kernel tells of the devices, with names for the numbers that have them. */
export function jsonOf(infos: readonly DeviceInfo[]): string {
  return JSON.stringify(
    infos.map(({ error: _error, reserved: _reserved, ...info }) => ({
      ...info,
      path: devicePath(info.name),
      state: stateName(info.state),
      on_death: onDeathName(info.on_death),
    })),
    undefined,
    2,
  );
}
