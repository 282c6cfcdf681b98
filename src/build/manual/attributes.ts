// SPDX-License-Identifier: MIT
/** The files of /sys/block/NAME/dblock/, for the manual: what each means. `struct dblock_info` of kmod/uapi/dblock.h has the same values. */

const OPERATIONS = {
  read: "READs",
  write: "WRITEs",
  flush: "FLUSHes",
  discard: "DISCARDs",
  write_zeroes: "requests for WRITE_ZEROES",
} as const;

/** What a file has, by its name. */
export const ATTRIBUTES: Readonly<Record<string, string>> = {
  state: "what the device is at: see States",
  on_death: "what becomes of the disk when its server dies: remove, fail or hold",
  id: "the number of this device, which no later one of its name has",
  queue_count: "its queues",
  queue_depth: "how many requests a queue can have at its server at once",
  max_io_bytes: "the largest READ or WRITE that its server is handed",
  timeout_ms: "after how long a request without an answer fails; 0: never",
  server_pid: "the process that attached last; 0 without a server",
  attached_count: "queues that have a server: requests of the other ones wait for one",
  open_count: "how many have the disk open, mounts included",
  death_count: "servers that died since the device was made",
  leave_count: "servers that ended on purpose since then, and left the disk to the next one",
  waiting_count: "requests that no server has seen yet, now",
  handed_count: "requests that a server works on, now",
  passed_count: "requests that the server has passed on to its file, now",
  quarantined_count: "requests that timed out while a server may still answer them, now",
  ...Object.fromEntries(
    Object.entries(OPERATIONS).flatMap(([name, requests]) => [
      [`${name}_requests`, `${requests} that were answered`],
      [`${name}_bytes`, `the bytes of those`],
    ]),
  ),
  error_count: "requests that ended with an error",
  timeout_count: "requests that the timeout ended",
  stale_count: "answers that were refused as they came too late",
  refused_count: "answers that were refused, for whatever reason",
  replayed_count: "requests that were handed out again, as the server before had not answered",
  batch_count: "calls of a server that brought it at least one request",
  handed_total: "requests that were handed out, replays included; divided by batch_count: the average batch",
  queue_waits:
    'a line a queue: its number; "polls" where its server looks for the next request for a while before it sleeps, ' +
    'which poll_us allows, or "sleeps"; and why: nanoseconds from request to request in the last trial of sleeping and in that ' +
    "of polling, 0 where it was not tried",
};
