// SPDX-License-Identifier: MIT
/** A request of the transmission phase: from the bytes of its header to numbers, and what is wrong with it. Pure. */
import { ERRNO } from "../disk/errors.ts";
import {
  EXTENDED_REQUEST_BYTES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_REQUEST_MAGIC,
  PAYLOAD_BYTES_MAX,
  REQUEST_BYTES,
} from "./protocol.ts";

const WORD = 2 ** 32;
/** A larger payload than `PAYLOAD_BYTES_MAX` is skipped and refused; beyond this, the client is cut off. */
export const SKIPPED_PAYLOAD_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX;

/** The numbers of one request. The same object takes every request of a connection, one after the other. */
export class WireRequest {
  flags = 0;
  /** NBD_CMD_*, or a number that is none. */
  command = 0;
  /** 64 bits that the client wants back. */
  cookieHigh = 0;
  cookieLow = 0;
  /** Not exact beyond 2^53, where no disk is. */
  offsetBytes = 0;
  /** Of the range that is meant. */
  lengthBytes = 0;
  /** What follows the header. */
  payloadBytes = 0;

  /** @returns false if this is no request: the connection cannot go on. */
  parse(view: DataView, at: number, extended: boolean): boolean {
    if (view.getUint32(at) !== (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) return false;
    this.flags = view.getUint16(at + 4);
    this.command = view.getUint16(at + 6);
    this.cookieHigh = view.getUint32(at + 8);
    this.cookieLow = view.getUint32(at + 12);
    this.offsetBytes = view.getUint32(at + 16) * WORD + view.getUint32(at + 20);
    if (extended) {
      this.lengthBytes = view.getUint32(at + 24) * WORD + view.getUint32(at + 28);
      this.payloadBytes = (this.flags & NBD_CMD_FLAG_PAYLOAD_LEN) === 0 ? 0 : this.lengthBytes;
    } else {
      this.lengthBytes = view.getUint32(at + 24);
      this.payloadBytes = this.command === NBD_CMD_WRITE ? this.lengthBytes : 0;
    }
    return this.payloadBytes <= SKIPPED_PAYLOAD_BYTES_MAX;
  }
}

/** Bytes of a request's header. */
export function requestBytes(extended: boolean): number {
  return extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
}

/** What a request is judged by. */
export interface Rules {
  /** NBD_FLAG_* as the client was told. */
  readonly flags: number;
  readonly sizeBytes: number;
  /** Replies come in chunks: structured or extended. */
  readonly chunked: boolean;
  readonly extended: boolean;
  readonly hasAllocation: boolean;
}

/**
 * What the protocol says of a request, before the disk is asked: 0 or an errno. What the disk says of its range (blocks,
 * lengths) is dispatch's to find.
 */
export function judge(request: WireRequest, rules: Rules): number {
  const { command, flags } = request;
  if ((flags & ~knownFlags(command, rules)) !== 0) return ERRNO.EINVAL;
  if (request.payloadBytes > PAYLOAD_BYTES_MAX) return ERRNO.EINVAL;
  switch (command) {
    case NBD_CMD_READ:
      // Whole replies are kept in memory until they are sent.
      if (request.lengthBytes > PAYLOAD_BYTES_MAX) return rules.chunked ? ERRNO.EOVERFLOW : ERRNO.EINVAL;
      return inside(request, rules, ERRNO.EINVAL);
    case NBD_CMD_WRITE:
      if (rules.extended && (flags & NBD_CMD_FLAG_PAYLOAD_LEN) === 0) return ERRNO.EINVAL;
      return writable(rules) || inside(request, rules, ERRNO.ENOSPC);
    case NBD_CMD_FLUSH:
      return offered(rules, NBD_FLAG_SEND_FLUSH);
    case NBD_CMD_TRIM:
      return writable(rules) || offered(rules, NBD_FLAG_SEND_TRIM) || inside(request, rules, ERRNO.EINVAL);
    case NBD_CMD_CACHE:
      return offered(rules, NBD_FLAG_SEND_CACHE) || inside(request, rules, ERRNO.EINVAL);
    case NBD_CMD_WRITE_ZEROES:
      return writable(rules) || offered(rules, NBD_FLAG_SEND_WRITE_ZEROES) || inside(request, rules, ERRNO.ENOSPC);
    case NBD_CMD_BLOCK_STATUS:
      return rules.hasAllocation ? inside(request, rules, ERRNO.EINVAL) : ERRNO.EINVAL;
    default:
      return ERRNO.EINVAL;
  }
}

/** NBD_CMD_FLAG_* that a command may have. Some clients set FUA on everything. */
function knownFlags(command: number, rules: Rules): number {
  const always = (rules.flags & NBD_FLAG_SEND_FUA) !== 0 ? NBD_CMD_FLAG_FUA : 0;
  switch (command) {
    case NBD_CMD_READ:
      return always | (rules.chunked ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE:
      return always | (rules.extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
    case NBD_CMD_WRITE_ZEROES:
      return always | NBD_CMD_FLAG_NO_HOLE |
        ((rules.flags & NBD_FLAG_SEND_FAST_ZERO) !== 0 ? NBD_CMD_FLAG_FAST_ZERO : 0);
    case NBD_CMD_BLOCK_STATUS:
      return always | NBD_CMD_FLAG_REQ_ONE;
    default:
      return always;
  }
}

function writable(rules: Rules): number {
  return (rules.flags & NBD_FLAG_READ_ONLY) === 0 ? 0 : ERRNO.EPERM;
}

function offered(rules: Rules, flag: number): number {
  return (rules.flags & flag) === 0 ? ERRNO.EINVAL : 0;
}

function inside({ offsetBytes, lengthBytes }: WireRequest, { sizeBytes }: Rules, pastTheEnd: number): number {
  return offsetBytes + lengthBytes > sizeBytes ? pastTheEnd : 0;
}
