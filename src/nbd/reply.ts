// SPDX-License-Identifier: MIT
/** Replies of the transmission phase: what stands before a payload, extents as numbers, errors as the protocol knows them. Pure. */
import type { Extent } from "../disk/backend.ts";
import { ERRNO } from "../disk/errors.ts";
import { BASE_ALLOCATION_ID } from "./handshake.ts";
import {
  EXTENDED_REPLY_BYTES,
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  NBD_STRUCTURED_REPLY_MAGIC,
  SIMPLE_REPLY_BYTES,
  STRUCTURED_REPLY_BYTES,
} from "./protocol.ts";

const WORD = 2 ** 32;
/** The longest thing before data: an extended header and the offset of a data chunk. */
export const HEAD_BYTES_MAX = EXTENDED_REPLY_BYTES + 8;
/** An extent's length has 32 bits in a structured reply; this is the largest multiple of every block size. */
const EXTENT_BYTES_MAX = WORD - 2 ** 16;

/** The fields of a request that its reply repeats. */
export interface Answered {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetBytes: number;
}

/** Writes a simple reply's header. @returns its bytes */
export function putSimple(view: DataView, at: number, request: Answered, error: number): number {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  return SIMPLE_REPLY_BYTES;
}

/**
 * Writes the header of the last chunk of a reply, structured or extended.
 *
 * @param payloadBytes what comes after it
 * @returns its bytes
 */
export function putChunk(
  view: DataView,
  at: number,
  request: Answered,
  extended: boolean,
  type: number,
  payloadBytes: number,
): number {
  view.setUint32(at, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, NBD_REPLY_FLAG_DONE);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  if (!extended) {
    view.setUint32(at + 16, payloadBytes);
    return STRUCTURED_REPLY_BYTES;
  }
  putU64(view, at + 16, request.offsetBytes);
  putU64(view, at + 24, payloadBytes);
  return EXTENDED_REPLY_BYTES;
}

/** Writes a number of up to 53 bits. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / WORD));
  view.setUint32(at + 4, value % WORD);
}

/** The protocol's error for an errno. */
export function nbdError(errno: number): number {
  switch (errno) {
    case 0:
      return 0;
    case ERRNO.EPERM:
    case ERRNO.EACCES:
    case ERRNO.EROFS:
      return NBD_EPERM;
    case ERRNO.ENOMEM:
      return NBD_ENOMEM;
    case ERRNO.EINVAL:
      return NBD_EINVAL;
    case ERRNO.ENOSPC:
    case ERRNO.EDQUOT:
    case ERRNO.EFBIG:
      return NBD_ENOSPC;
    case ERRNO.EOVERFLOW:
      return NBD_EOVERFLOW;
    case ERRNO.EOPNOTSUPP:
      return NBD_ENOTSUP;
    case ERRNO.ENODEV:
    case NBD_ESHUTDOWN:
      return NBD_ESHUTDOWN;
    default:
      return NBD_EIO;
  }
}

/** Bytes of the payload of a block status with so many extents. */
export function statusBytes(extentCount: number, extended: boolean): number {
  return extended ? 8 + 16 * extentCount : 4 + 8 * extentCount;
}

/**
 * Writes the payload of a block status: the context's number, and each extent with its flags.
 *
 * @returns its bytes; an extent beyond what 32 bits can say ends it, as the client asks again from there
 */
export function putStatus(view: DataView, at: number, extents: readonly Extent[], extended: boolean): number {
  view.setUint32(at, BASE_ALLOCATION_ID);
  let count = 0;
  for (const { lengthBytes, kind } of extents) {
    const place = at + statusBytes(count, extended);
    const flags = kind === "data" ? 0 : kind === "zero" ? NBD_STATE_ZERO : NBD_STATE_ZERO | NBD_STATE_HOLE;
    count++;
    if (extended) {
      putU64(view, place, lengthBytes);
      putU64(view, place + 8, flags);
      continue;
    }
    view.setUint32(place, Math.min(lengthBytes, EXTENT_BYTES_MAX));
    view.setUint32(place + 4, flags);
    if (lengthBytes > EXTENT_BYTES_MAX) break;
  }
  if (extended) view.setUint32(at + 4, count);
  return statusBytes(count, extended);
}
