// SPDX-License-Identifier: MIT
/** The objects of the fake kernel: its devices and the files that are open. What happens to them is in fake_kernel.ts. */
import type { dblock_create, dblock_info } from "../../src/abi.ts";
import type { Decoded } from "../../src/struct.ts";
import type { FakeQueue, Registration } from "./fake_queue.ts";

/** Not an errno: ATTACH waits for the server before. */
export const IN_PROGRESS = -2;

/** A device between CREATE and its end. */
export interface FakeDevice {
  readonly params: Decoded<typeof dblock_create>;
  readonly queues: FakeQueue[];
  state: number;
  openCount: number;
  /** The process that attached last. */
  serverPid: number;
}

/** An open file of one, or of the control node. */
export interface FakeFile {
  readonly device: FakeDevice | undefined;
  nonblocking: boolean;
  queue: FakeQueue | undefined;
  /** Its own; the queue's is that of the file that serves it now. */
  registration: Registration | undefined;
}

/** Whether it is this file that serves its queue now. */
export function serves(file: FakeFile): boolean {
  return file.queue !== undefined && file.queue.registration === file.registration;
}

/** Whether EXCHANGE on it has something to say. */
export function isReady(file: FakeFile): boolean {
  return file.queue !== undefined && (file.queue.ready || !serves(file));
}

/** What INFO and LIST tell. */
export function describe(
  { params, queues, state, openCount, serverPid }: FakeDevice,
): Partial<Decoded<typeof dblock_info>> {
  const { error: _error, reserved: _reserved, ...values } = params;
  const attached_count = queues.filter((queue) => queue.registration !== undefined).length;
  const server_pid = attached_count === 0 ? 0 : serverPid;
  return { ...values, state, open_count: openCount, attached_count, server_pid };
}
