// SPDX-License-Identifier: MIT
/**
 * The objects of the fake kernel: its devices, the files that are open, and the structures of its ioctls. What happens to
 * them is in fake_kernel.ts.
 */
import { type dblock_create, type dblock_info, DBLOCK_STATE_FAILED, DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { type Decoded, encode, type Struct } from "../../src/system/struct.ts";
import type { FakeEvent } from "./fake_event.ts";
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
  /** Its server has said that all is durable. */
  isFlushed: boolean;
  /** Its server has said that it leaves. */
  isLeft: boolean;
}

/** An open file of one, or of the control node. */
export interface FakeFile {
  readonly device: FakeDevice | undefined;
  nonblocking: boolean;
  queue: FakeQueue | undefined;
  /** Its own; the queue's is that of the file that serves it now. */
  registration: Registration | undefined;
  /** What it was attached with, to be rung. */
  event: FakeEvent | undefined;
  /** It has been rung, and no EXCHANGE was made since. */
  isRung: boolean;
}

/** Whether it is this file that serves its queue now. */
export function serves(file: FakeFile): boolean {
  return file.queue !== undefined && file.queue.registration === file.registration;
}

/** Whether EXCHANGE on it has something to say. */
export function isReady(file: FakeFile): boolean {
  return file.queue !== undefined && (file.queue.ready || !serves(file));
}

/** Whether poll() says so: whoever was woken finds out for what. */
export function isReadable(file: FakeFile): boolean {
  return file.isRung || isReady(file);
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

/** Whether a caller who says this id, or 0 for any, means this device. */
export function isDevice(device: FakeDevice, id: number): boolean {
  return id === 0 || id === device.params.id;
}

/** Whether there is a disk: START has made it, and nobody has removed it. */
export function hasDisk(device: FakeDevice | undefined): device is FakeDevice {
  return device !== undefined && device.state >= DBLOCK_STATE_LIVE && device.state <= DBLOCK_STATE_FAILED;
}

/** Says how an ioctl went in its structure, as all of them do in their first field. Returns the call's result. */
export function answer(structure: Uint8Array, errno: number): number {
  new DataView(structure.buffer, structure.byteOffset).setUint32(0, errno, true);
  return errno === 0 ? 0 : -1;
}

/** The structure of an ioctl that went well. Returns the call's result. */
export function write<S extends Struct>(layout: S, structure: Uint8Array, values: Partial<Decoded<S>>): number {
  structure.set(encode(layout, values));
  return 0;
}
