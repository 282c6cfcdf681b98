// SPDX-License-Identifier: MIT
/** From a command of NBD to what is asked of the disk, and the memory that takes. */
import type { Backend } from "../disk/backend.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import { REQUEST_FUA, REQUEST_KEEP_ALLOCATED, REQUEST_READ_AHEAD } from "../disk/operation.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  PAYLOAD_BYTES_MAX,
} from "./protocol.ts";
import { statusBytes } from "./reply.ts";
import { isMapped } from "../disk/servable.ts";
import type { WireRequest } from "./request.ts";
import type { Slot } from "./slot.ts";

/** A structured reply with more extents than this is worth nobody's memory. */
export const EXTENTS_MAX = 8_192;

/** Where the content of a disk that is memory begins; 0 if payloads cannot go there by themselves. */
export function contentAddressOf(backend: Backend, { sizeBytes }: Geometry): number {
  // A file has no room for a page, perhaps, and says so only to a call of its own. Zeroes are written where nobody can zero.
  if (!isMapped(backend) || backend.mapping.kind !== "anonymous" || backend.writeZeroes === undefined) return 0;
  return backend.mapping.sizeBytes >= sizeBytes ? backend.mapping.address : 0;
}

/**
 * Where in a disk's memory the payload of a request belongs that the protocol has nothing against; 0 if nowhere: only whole
 * blocks may reach it, and dispatch, which says so, is asked when the payload is there.
 *
 * @param beginAddress what `contentAddressOf()` has said
 */
export function placeOf(
  { command, offsetBytes, lengthBytes }: WireRequest,
  { blockBytes }: Geometry,
  beginAddress: number,
): number {
  if (beginAddress === 0 || command !== NBD_CMD_READ && command !== NBD_CMD_WRITE) return 0;
  const isWhole = lengthBytes > 0 && ((offsetBytes | lengthBytes) & (blockBytes - 1)) === 0;
  return isWhole ? beginAddress + offsetBytes : 0;
}

/** How much of the pool a request takes, in bytes. */
export function memoryOf(
  { command, lengthBytes }: WireRequest,
  { maxIoBytes }: Geometry,
  backend: Backend,
  extended: boolean,
): number {
  switch (command) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
      return lengthBytes;
    case NBD_CMD_CACHE:
      return Math.min(lengthBytes, maxIoBytes);
    case NBD_CMD_WRITE_ZEROES:
      return backend.writeZeroes === undefined ? Math.min(lengthBytes, maxIoBytes) : 0;
    case NBD_CMD_BLOCK_STATUS:
      return statusBytes(EXTENTS_MAX, extended);
    default:
      return 0;
  }
}

/**
 * Puts into a slot what its command asks of the disk. Not for BLOCK_STATUS, which is no operation of a disk.
 *
 * @returns 0 or an errno if the disk is asked nothing, and this is the answer
 */
export function translate(slot: Slot, geometry: Geometry, backend: Backend): number | undefined {
  const fua = (slot.wireFlags & NBD_CMD_FLAG_FUA) !== 0 ? REQUEST_FUA : 0;
  slot.flags = 0;
  slot.pieceBytesMax = geometry.maxIoBytes;
  switch (slot.command) {
    case NBD_CMD_READ:
      slot.operation = "read";
      return undefined;
    case NBD_CMD_WRITE:
      slot.operation = "write";
      slot.flags = fua;
      return undefined;
    case NBD_CMD_FLUSH:
      slot.operation = "flush";
      return undefined;
    case NBD_CMD_TRIM:
      slot.operation = "discard";
      slot.flags = fua;
      slot.pieceBytesMax = geometry.maxDiscardBytes;
      return undefined;
    case NBD_CMD_CACHE:
      if (slot.lengthBytes > PAYLOAD_BYTES_MAX) return 0; // only a hint
      slot.operation = "read";
      slot.flags = REQUEST_READ_AHEAD;
      return undefined;
    case NBD_CMD_WRITE_ZEROES:
      if ((slot.wireFlags & NBD_CMD_FLAG_FAST_ZERO) !== 0 && backend.writeZeroes === undefined) return ERRNO.EOPNOTSUPP;
      slot.operation = "writeZeroes";
      slot.flags = fua | ((slot.wireFlags & NBD_CMD_FLAG_NO_HOLE) !== 0 ? REQUEST_KEEP_ALLOCATED : 0);
      slot.pieceBytesMax = geometry.maxWriteZeroesBytes;
      return undefined;
    default:
      return ERRNO.EINVAL;
  }
}
