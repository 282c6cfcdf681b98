// SPDX-License-Identifier: MIT
/** One disk of a server under its name: what clients are told of it, and what their requests are checked against. */
import type { Backend } from "../disk/backend.ts";
import type { Geometry } from "../disk/dispatch.ts";
import { checkedLimits, type DecidedLimits } from "../disk/limits.ts";
import { profileOf } from "../disk/profile.ts";
import type { ExportDescription } from "./handshake.ts";
import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  PAYLOAD_BYTES_MAX,
} from "./protocol.ts";

/** One disk under a name. */
export interface Export {
  readonly name: string;
  readonly backend: Backend;
  readonly limits: DecidedLimits;
  readonly readOnly: boolean;
  sizeBytes: number;
  connections: number;
}

/**
 * A backend under a name.
 *
 * @throws {DblockError} EINVAL: a limit of the backend is none.
 */
export function exportOf(name: string, backend: Backend, readOnly: boolean): Export {
  const attempted = name === "" ? "Cannot serve the disk over NBD" : `Cannot serve the export "${name}"`;
  const profile = profileOf(backend);
  const limits = checkedLimits(attempted, profile);
  return {
    name,
    backend,
    limits,
    readOnly: readOnly || profile.readOnly,
    sizeBytes: backend.sizeBytes,
    connections: 0,
  };
}

/** What requests of a connection are checked against: the size is the one its client was told. */
export function geometryOf({ limits, readOnly }: Export, sizeBytes: number): Geometry {
  const { blockBytes, maxIoBytes, maxDiscardBytes, maxWriteZeroesBytes } = limits;
  return { sizeBytes, blockBytes, maxIoBytes, maxDiscardBytes, maxWriteZeroesBytes, readOnly, timeoutMs: 0 };
}

/** What a client is told of an export now. */
export function describeExport({ name, backend, limits, readOnly, sizeBytes }: Export): ExportDescription {
  const writable = !readOnly;
  return {
    name,
    description: "",
    sizeBytes,
    flags: NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_CACHE |
      // One backend is behind all connections: what one of them flushes is flushed for all.
      NBD_FLAG_CAN_MULTI_CONN |
      (limits.rotational ? NBD_FLAG_ROTATIONAL : 0) |
      (readOnly ? NBD_FLAG_READ_ONLY : NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO) |
      (writable && backend.discard !== undefined ? NBD_FLAG_SEND_TRIM : 0),
    minBlockBytes: limits.blockBytes,
    preferredBlockBytes: Math.max(4096, limits.blockBytes, limits.physicalBlockBytes),
    maxPayloadBytes: PAYLOAD_BYTES_MAX,
  };
}
