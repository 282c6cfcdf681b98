// SPDX-License-Identifier: MIT
/** A disk that an NBD server has: nbdkit, qemu-nbd, nbd-server, or another dblock. */
import type { ConnectionOptions } from "node:tls";
import type { Backend, Extent, Limits, RequestOptions } from "../disk/backend.ts";
import { DblockError, quietly } from "../disk/errors.ts";
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  IO_BYTES_MAX,
  IO_BYTES_MIN,
  PHYSICAL_BLOCK_BYTES_MAX,
} from "../disk/limits.ts";
import { type NbdUri, parseNbdUri } from "../nbd/address.ts";
import { Client } from "../nbd/client.ts";
import type { Agreed } from "../nbd/negotiation.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from "../nbd/protocol.ts";

const DEFAULT_CONNECTIONS = 4;
const CONNECTIONS_MAX = 64;
const DEFAULT_RECONNECT_MS = 60_000;
/** Where a server takes less than any backend may be asked for, its disk is asked for no more than this. */
const USUAL_IO_BYTES = 512 * 1024;
/** A structured reply tells of 32 bits at a time. */
const STATUS_BYTES_MAX = 2 ** 31;

/** Certificates of a client, instead of those in the folder that the URI names. */
export interface NbdClientTls {
  /** Who has signed the server's certificate: PEM. @default those that the system trusts */
  readonly authority?: string;
  /** This client's certificate, and its key: PEM. */
  readonly certificate?: string;
  /** The private key of that certificate: PEM. @default none */
  readonly key?: string;
}

/** Options of `NbdBackend.open()`. */
export interface NbdBackendOptions {
  /** Connections at once, 1 to 64; a server that does not allow several gets one. @default 4 */
  readonly connections?: number;
  /**
   * For how long requests wait for a server that has gone, in ms: after this they fail with ENOLINK, until it is back.
   * 0 or `Infinity`: they wait for as long as it takes. A machine that vanishes without a word has gone after so long, too,
   * but after 3 s at least and 20 s at most. @default 60,000
   */
  readonly reconnectTimeoutMs?: number;
  /** Refuse writes. @default what the server says */
  readonly readOnly?: boolean;
  /** For `nbds://`. @default what `tls-certificates` of the URI names */
  readonly tls?: NbdClientTls;
  /** Takes a line when the server goes and when it is back. @default console.error */
  readonly log?: (message: string) => void;
}

/**
 * A disk that an NBD server has. Its requests are pipelined over several connections.
 *
 * When the server goes, requests wait, and go on by themselves when it is back; those that were not answered are sent again.
 * What a server had answered and not flushed before it died is the server's to keep: one whose disk is a file keeps it
 * through its own death, one that has it in its own memory does not.
 *
 * ```ts no-run
 * import { NbdBackend } from "./nbd.ts";
 * import { serve } from "../module/serve.ts";
 *
 * const disk = await NbdBackend.open("nbd+unix:///disk0?socket=/run/nbdkit.sock");
 * await using device = await serve(disk, { name: "disk0", timeoutMs: 0 });
 * await device.closed;
 * ```
 */
export class NbdBackend implements Backend {
  readonly limits: Limits;
  readonly readOnly: boolean;
  readonly fua: boolean;
  /** The server lives on when this process does not. */
  readonly cacheSurvives = true;
  readonly flush?: NonNullable<Backend["flush"]>;
  readonly discard?: NonNullable<Backend["discard"]>;
  readonly writeZeroes?: NonNullable<Backend["writeZeroes"]>;
  readonly extents?: NonNullable<Backend["extents"]>;
  readonly sizeBytes: number;
  readonly #client: Client;

  private constructor(client: Client, readOnly: boolean) {
    const { agreed } = client;
    this.#client = client;
    this.limits = limitsOf(agreed);
    this.sizeBytes = agreed.sizeBytes - agreed.sizeBytes % this.limits.blockBytes!;
    const can = (flag: number) => (agreed.flags & flag) !== 0;
    this.readOnly = readOnly || can(NBD_FLAG_READ_ONLY);
    this.fua = can(NBD_FLAG_SEND_FUA);
    if (can(NBD_FLAG_SEND_FLUSH)) this.flush = () => client.request(NBD_CMD_FLUSH, 0, 0, 0);
    if (can(NBD_FLAG_SEND_TRIM)) {
      this.discard = (offset, length, options) => client.request(NBD_CMD_TRIM, this.#fua(options), offset, length);
    }
    if (can(NBD_FLAG_SEND_WRITE_ZEROES)) {
      this.writeZeroes = (offset, length, options) => {
        const flags = this.#fua(options) | (options.keepAllocated ? NBD_CMD_FLAG_NO_HOLE : 0);
        return client.request(NBD_CMD_WRITE_ZEROES, flags, offset, length);
      };
    }
    if (agreed.allocationId !== undefined) this.extents = (offset, length) => this.#extents(offset, length);
  }

  /**
   * Connects to a server. It has to be there; after that it may come and go.
   *
   * @param uri `nbd://host:port/export`, `nbd+unix:///export?socket=/path`; `nbds` for TLS
   * @throws {DblockError} EINVAL (the URI), ECONNREFUSED, ENOENT (socket or export), EACCES (TLS, policy), EPROTO (no server of
   * NBD), ETIMEDOUT, or what else the system says.
   */
  static async open(uri: string | NbdUri, options: NbdBackendOptions = {}): Promise<NbdBackend> {
    const { connections = DEFAULT_CONNECTIONS, reconnectTimeoutMs = DEFAULT_RECONNECT_MS, readOnly = false } = options;
    if (!(Number.isInteger(connections) && connections >= 1 && connections <= CONNECTIONS_MAX)) {
      throw new RangeError(`connections is 1 to ${CONNECTIONS_MAX}, not ${connections}`);
    }
    if (!(reconnectTimeoutMs >= 0)) throw new RangeError(`reconnectTimeoutMs is 0 or more, not ${reconnectTimeoutMs}`);
    const parsed = typeof uri === "string" ? parseNbdUri(uri) : uri;
    const client = await Client.open({
      address: parsed.address,
      exportName: parsed.exportName,
      tls: parsed.tls ? await tlsOf(parsed, options.tls) : undefined,
      connections,
      reconnectTimeoutMs,
      log: quietly(options.log ?? console.error),
    });
    try {
      return new NbdBackend(client, readOnly);
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  read(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number): Promise<void> {
    return this.#client.request(NBD_CMD_READ, 0, offsetBytes, buffer.length, buffer);
  }

  write(buffer: Uint8Array<ArrayBuffer>, offsetBytes: number, options: Pick<RequestOptions, "fua">): Promise<void> {
    return this.#client.request(NBD_CMD_WRITE, this.#fua(options), offsetBytes, buffer.length, buffer);
  }

  /** Ends the connections. The server keeps the disk. */
  async close(): Promise<void> {
    await this.#client.close();
  }

  #fua({ fua }: Pick<RequestOptions, "fua">): number {
    return fua && this.fua ? NBD_CMD_FLAG_FUA : 0;
  }

  async #extents(offsetBytes: number, lengthBytes: number): Promise<readonly Extent[]> {
    const { extended, minBlockBytes } = this.#client.agreed;
    const asked = extended ? lengthBytes : Math.min(lengthBytes, STATUS_BYTES_MAX);
    const found = await this.#client.extents(offsetBytes, asked);
    return minBlockBytes < BLOCK_BYTES_MIN ? inBlocks(found, this.limits.blockBytes!) : found;
  }
}

/**
 * Extents of whole blocks. A block that has parts of several kinds is data: a server may tell of bytes.
 */
function inBlocks(extents: readonly Extent[], blockBytes: number): readonly Extent[] {
  const found: Extent[] = [];
  let restBytes = 0;
  for (const { lengthBytes, kind } of extents) {
    let left = lengthBytes;
    if (restBytes > 0) {
      const filled = Math.min(left, blockBytes - restBytes);
      restBytes += filled;
      left -= filled;
      if (restBytes < blockBytes) continue;
      found.push({ lengthBytes: blockBytes, kind: "data" });
    }
    restBytes = left % blockBytes;
    if (left > restBytes) found.push({ lengthBytes: left - restBytes, kind });
  }
  // The end of what was asked for, which is a block's end.
  if (restBytes > 0) found.push({ lengthBytes: blockBytes, kind: "data" });
  return found;
}

function limitsOf({ minBlockBytes, preferredBlockBytes, maxPayloadBytes, sizeBytes, flags }: Agreed): Limits {
  const blockBytes = Math.max(BLOCK_BYTES_MIN, minBlockBytes);
  const isPower = (value: number) => value > 0 && Number.isInteger(Math.log2(value));
  if (blockBytes > BLOCK_BYTES_MAX || !isPower(blockBytes)) {
    throw new DblockError("EINVAL", "Cannot use the export", `its blocks have ${minBlockBytes} bytes`, {
      hint: `a disk has blocks of ${BLOCK_BYTES_MIN} to ${BLOCK_BYTES_MAX}; nbdkit's filter blocksize makes such`,
    });
  }
  if (sizeBytes < blockBytes) {
    throw new DblockError("EINVAL", "Cannot use the export", `it has only ${sizeBytes} bytes`);
  }
  const isPhysical = isPower(preferredBlockBytes) && preferredBlockBytes >= blockBytes &&
    preferredBlockBytes <= PHYSICAL_BLOCK_BYTES_MAX;
  const isSmall = maxPayloadBytes < IO_BYTES_MAX;
  return {
    blockBytes,
    ...(isPhysical ? { physicalBlockBytes: preferredBlockBytes } : {}),
    ...(isSmall
      ? {
        maxIoBytes: Math.max(IO_BYTES_MIN, Math.min(USUAL_IO_BYTES, maxPayloadBytes - maxPayloadBytes % IO_BYTES_MIN)),
      }
      : {}),
    rotational: (flags & NBD_FLAG_ROTATIONAL) !== 0,
  };
}

async function tlsOf(uri: NbdUri, given: NbdClientTls | undefined): Promise<ConnectionOptions> {
  const { address, tlsHostname, tlsVerifyPeer = true, tlsCertificates } = uri;
  const read = async (name: string): Promise<string | undefined> => {
    try {
      return await Deno.readTextFile(`${tlsCertificates}/${name}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  };
  const found: NbdClientTls | undefined = given ?? (tlsCertificates === undefined ? undefined : withoutUndefined({
    authority: await read("ca-cert.pem"),
    certificate: await read("client-cert.pem"),
    key: await read("client-key.pem"),
  }));
  return {
    servername: tlsHostname ?? (address.transport === "tcp" ? address.hostname : "localhost"),
    rejectUnauthorized: tlsVerifyPeer,
    minVersion: "TLSv1.2",
    ...(found?.authority === undefined ? {} : { ca: found.authority }),
    ...(found?.certificate === undefined ? {} : { cert: found.certificate }),
    ...(found?.key === undefined ? {} : { key: found.key }),
  };
}

function withoutUndefined(tls: { [Name in keyof NbdClientTls]-?: string | undefined }): NbdClientTls {
  return Object.fromEntries(Object.entries(tls).filter(([, value]) => value !== undefined));
}
