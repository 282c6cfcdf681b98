// SPDX-License-Identifier: MIT
/** The client's half of the handshake, on a wire: what the server offers, and the export that was asked for. */
import type { ConnectionOptions } from "node:tls";
import { DblockError, ERRNO } from "../disk/errors.ts";
import { bytesOf, Fields, message } from "./fields.ts";
import {
  BASE_ALLOCATION,
  IHAVEOPT,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_META_CONTEXT,
  NBDMAGIC,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
} from "./protocol.ts";
import { TlsWire, type Wire } from "./wire.ts";

/** Longer replies to an option, and more of them, are no server's. */
const REPLY_BYTES_MAX = 64 * 1024;
const REPLIES_MAX = 1024;
const ZEROES_BYTES = 124;

/** What a client asks for. */
export interface Wanted {
  readonly exportName: string;
  /** How to encrypt; undefined: the connection stays plain. */
  readonly tls: ConnectionOptions | undefined;
}

/** What both sides have agreed on. */
export interface Agreed {
  /** The connection, encrypted or not. */
  readonly wire: Wire;
  readonly sizeBytes: number;
  /** NBD_FLAG_* of the export. */
  readonly flags: number;
  readonly structured: boolean;
  readonly extended: boolean;
  /** The number of base:allocation; undefined: the server does not have it. */
  readonly allocationId: number | undefined;
  /** Every offset and length is a multiple of this. */
  readonly minBlockBytes: number;
  readonly preferredBlockBytes: number;
  /** The largest payload of a READ or WRITE. */
  readonly maxPayloadBytes: number;
}

/**
 * Shakes hands with a server.
 *
 * @throws {DblockError} ENOENT (no such export), EACCES (the server does not want this client), EPROTO (it is no NBD server,
 * or too old a one), ECONNRESET (it has ended the connection), and what TLS and the wire fail with.
 */
export async function negotiate(plain: Wire, wanted: Wanted): Promise<Agreed> {
  const { exportName, tls } = wanted;
  const options = new Options(plain);
  const serverFlags = await options.greet();
  if (tls !== undefined) {
    const refused = (await options.ask(NBD_OPT_STARTTLS)).at(-1)!;
    if (refused.type !== NBD_REP_ACK) {
      throw new DblockError("EACCES", "", "the server has no TLS", { hint: "nbd:// is plain" });
    }
    options.wire = await TlsWire.connect(plain, tls);
  }
  const extended = await options.isGranted(NBD_OPT_EXTENDED_HEADERS);
  const structured = !extended && await options.isGranted(NBD_OPT_STRUCTURED_REPLY);
  const allocationId = extended || structured ? await allocationOf(options, exportName) : undefined;
  const agreed = await go(options, exportName) ??
    await oldGo(options, exportName, (serverFlags & NBD_FLAG_NO_ZEROES) !== 0);
  return { wire: options.wire, structured, extended, allocationId, ...agreed };
}

type ExportInfo = Pick<Agreed, "sizeBytes" | "flags" | "minBlockBytes" | "preferredBlockBytes" | "maxPayloadBytes">;

/** What holds where the server says nothing of block sizes: what every server must take. */
const UNKNOWN_SIZES = { minBlockBytes: 1, preferredBlockBytes: 4096, maxPayloadBytes: PAYLOAD_BYTES_MAX };

async function go(options: Options, exportName: string): Promise<ExportInfo | undefined> {
  const name = bytesOf(exportName);
  const { bytes, view } = message(4 + name.length + 4);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  view.setUint16(4 + name.length, 1);
  view.setUint16(6 + name.length, NBD_INFO_BLOCK_SIZE);
  const replies = await options.ask(NBD_OPT_GO, bytes);
  const last = replies.at(-1)!.type;
  if (last === NBD_REP_ERR_UNSUP) return undefined;
  if (last !== NBD_REP_ACK) throw refusal(last, exportName, replies.at(-1)!.data);
  let found: { sizeBytes: number; flags: number } | undefined;
  let sizes = UNKNOWN_SIZES;
  for (const { type, data } of replies) {
    if (type !== NBD_REP_INFO || data.length < 2) continue;
    const info = new DataView(data.buffer);
    const kind = info.getUint16(0);
    if (kind === NBD_INFO_EXPORT && data.length === 12) {
      found = { sizeBytes: sizeOf(info.getBigUint64(2)), flags: info.getUint16(10) };
    }
    if (kind === NBD_INFO_BLOCK_SIZE && data.length === 14) {
      const [minBlockBytes, preferredBlockBytes, maxPayloadBytes] = [2, 6, 10].map((at) => info.getUint32(at));
      sizes = {
        minBlockBytes: minBlockBytes!,
        preferredBlockBytes: preferredBlockBytes!,
        // All ones: there is no maximum.
        maxPayloadBytes: Math.min(maxPayloadBytes!, PAYLOAD_BYTES_MAX),
      };
    }
  }
  if (found === undefined) throw new DblockError("EPROTO", "", "the server does not say how large the export is");
  return { ...found, ...sizes };
}

/** The way of servers that do not know NBD_OPT_GO. */
async function oldGo(options: Options, exportName: string, noZeroes: boolean): Promise<ExportInfo> {
  await options.send(NBD_OPT_EXPORT_NAME, bytesOf(exportName));
  const answer = new DataView((await options.read(noZeroes ? 10 : 10 + ZEROES_BYTES)).buffer);
  return { sizeBytes: sizeOf(answer.getBigUint64(0)), flags: answer.getUint16(8), ...UNKNOWN_SIZES };
}

async function allocationOf(options: Options, exportName: string): Promise<number | undefined> {
  const [name, query] = [bytesOf(exportName), bytesOf(BASE_ALLOCATION)];
  const { bytes, view } = message(12 + name.length + query.length);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  view.setUint32(4 + name.length, 1);
  view.setUint32(8 + name.length, query.length);
  bytes.set(query, 12 + name.length);
  for (const { type, data } of await options.ask(NBD_OPT_SET_META_CONTEXT, bytes)) {
    if (type !== NBD_REP_META_CONTEXT) continue;
    const fields = new Fields(data);
    const id = fields.u32();
    if (new TextDecoder().decode(data.subarray(4)) === BASE_ALLOCATION) return id;
  }
  return undefined;
}

function sizeOf(bytes: bigint): number {
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw new DblockError("EFBIG", "", `the export has ${bytes} bytes`);
  return Number(bytes);
}

function refusal(type: number, exportName: string, said: Uint8Array): DblockError {
  const words = new TextDecoder().decode(said).replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 200);
  const because = words === "" ? "" : `: ${words}`;
  switch (type) {
    case NBD_REP_ERR_UNKNOWN:
      return new DblockError("ENOENT", "", `the server has no export "${exportName}"${because}`, {
        hint: "nbdinfo --list tells what it has",
      });
    case NBD_REP_ERR_TLS_REQD:
      return new DblockError("EACCES", "", "the server wants TLS", { hint: "nbds:// instead of nbd://" });
    case NBD_REP_ERR_POLICY:
      return new DblockError("EACCES", "", `the server does not want this client${because}`);
    case NBD_REP_ERR_SHUTDOWN:
      return new DblockError("ECONNRESET", "", "the server is ending");
    case NBD_REP_ERR_INVALID:
      return new DblockError("EINVAL", "", `the server refuses the export "${exportName}"${because}`);
    default:
      return new DblockError("EPROTO", "", `the server refuses with ${type.toString(16)}${because}`);
  }
}

interface OptionReply {
  readonly type: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** Options and their replies, on a wire. */
class Options {
  wire: Wire;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  /** @returns the server's flags */
  async greet(): Promise<number> {
    const view = new DataView((await this.read(18)).buffer);
    if (view.getBigUint64(0) !== NBDMAGIC) throw new DblockError("EPROTO", "", "what answers there is no NBD server");
    const flags = view.getUint16(16);
    if (view.getBigUint64(8) !== IHAVEOPT || (flags & NBD_FLAG_FIXED_NEWSTYLE) === 0) {
      throw new DblockError("EPROTO", "", "the server speaks only an older form of NBD");
    }
    const answer = message(4);
    answer.view.setUint32(
      0,
      NBD_FLAG_C_FIXED_NEWSTYLE | ((flags & NBD_FLAG_NO_ZEROES) !== 0 ? NBD_FLAG_C_NO_ZEROES : 0),
    );
    await this.wire.write(answer.bytes);
    return flags;
  }

  async read(count: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count;) {
      const some = await this.wire.read(bytes.subarray(done));
      if (some === 0) throw new DblockError(ERRNO.ECONNRESET, "", "the server has ended the connection");
      done += some;
    }
    return bytes;
  }

  async send(option: number, data: Uint8Array): Promise<void> {
    const { bytes, view } = message(OPTION_HEADER_BYTES + data.length);
    view.setBigUint64(0, IHAVEOPT);
    view.setUint32(8, option);
    view.setUint32(12, data.length);
    bytes.set(data, OPTION_HEADER_BYTES);
    await this.wire.write(bytes);
  }

  /** Sends an option. @returns its replies, the last one is an ACK or an error */
  async ask(option: number, data: Uint8Array = new Uint8Array(0)): Promise<OptionReply[]> {
    await this.send(option, data);
    const replies: OptionReply[] = [];
    while (replies.length < REPLIES_MAX) {
      const head = new DataView((await this.read(OPTION_REPLY_HEADER_BYTES)).buffer);
      const [type, lengthBytes] = [head.getUint32(12), head.getUint32(16)];
      if (head.getBigUint64(0) !== NBD_REP_MAGIC || head.getUint32(8) !== option || lengthBytes > REPLY_BYTES_MAX) {
        break;
      }
      replies.push({ type, data: await this.read(lengthBytes) });
      if (type === NBD_REP_ACK || type >= NBD_REP_FLAG_ERROR) return replies;
    }
    throw new DblockError("EPROTO", "", `the server's reply to option ${option} is none`);
  }

  /** An option without data that a server may not know. */
  async isGranted(option: number): Promise<boolean> {
    const { type } = (await this.ask(option)).at(-1)!;
    if (type === NBD_REP_ERR_TLS_REQD) throw refusal(type, "", new Uint8Array(0));
    return type === NBD_REP_ACK;
  }
}
