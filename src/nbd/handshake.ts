// SPDX-License-Identifier: MIT
/**
 * The server's half of the handshake: fixed newstyle, as a machine that is given bytes and says what to answer. It knows no
 * socket. What a client may send here is bounded, because anybody may connect.
 */
import { bytesOf, Fields, message, textOf, u16Of } from "./fields.ts";
import {
  BASE_ALLOCATION,
  IHAVEOPT,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_FLAG_SEND_DF,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_EXT_HEADER_REQD,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  NBDMAGIC,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from "./protocol.ts";

/** An option's data: room for the longest name and the longest query, and some more queries. */
export const OPTION_BYTES_MAX = 16 * 1024;
/** A longer option is not even skipped. */
const SKIPPED_BYTES_MAX = 2 ** 20;
/** A client that has asked for so much and has not begun never will. */
const OPTIONS_MAX = 256;
/** The one context there is. Its number is the server's to choose. */
export const BASE_ALLOCATION_ID = 1;
const CLIENT_FLAGS_BYTES = 4;
const ZEROES_BYTES = 124;

/** What a client is told of an export, as it is now. */
export interface ExportDescription {
  readonly name: string;
  /** In words, for people; "" if there are none. */
  readonly description: string;
  readonly sizeBytes: number;
  /** NBD_FLAG_*, without NBD_FLAG_SEND_DF. */
  readonly flags: number;
  readonly minBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly maxPayloadBytes: number;
}

/** What the handshake asks its server. */
export interface ExportDirectory {
  /** Every export, by its name. */
  list(): readonly ExportDescription[];
  /** The export of that name, "" for the default one; undefined if there is none. */
  find(name: string): ExportDescription | undefined;
  /** The server takes no new clients any more. */
  readonly isClosing: boolean;
}

/** Whether clients may, or have to, encrypt. */
export type TlsMode = "off" | "allowed" | "required";

/** How the handshake has ended, or what has to happen before it goes on. */
export type Outcome =
  /** The connection has to be closed, after what is still to be sent. */
  | { readonly kind: "close"; readonly why: string }
  /** The connection becomes a TLS connection; `encrypted()` goes on. */
  | { readonly kind: "starttls" }
  | ({ readonly kind: "transmission" } & Negotiated);

/** What both sides have agreed on. */
export interface Negotiated {
  readonly export: ExportDescription;
  readonly structured: boolean;
  readonly extended: boolean;
  /** The client has chosen base:allocation. */
  readonly hasAllocation: boolean;
}

/** One client's handshake. Give it what comes with `take()`, send what `output()` returns, until there is an `outcome`. */
export class Handshake {
  readonly #directory: ExportDirectory;
  readonly #tls: TlsMode;
  readonly #output: Uint8Array<ArrayBuffer>[] = [];
  #outcome: Outcome | undefined;
  #isEncrypted = false;
  #hasFlags = false;
  #noZeroes = false;
  #structured = false;
  #extended = false;
  /** The export whose base:allocation the client wants. */
  #allocationOf: string | undefined;
  /** Bytes of an option's data that nobody wants. */
  #skip = 0;
  #options = 0;

  constructor(directory: ExportDirectory, tls: TlsMode) {
    this.#directory = directory;
    this.#tls = tls;
    const greeting = message(18);
    greeting.view.setBigUint64(0, NBDMAGIC);
    greeting.view.setBigUint64(8, IHAVEOPT);
    greeting.view.setUint16(16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    this.#output.push(greeting.bytes);
  }

  get outcome(): Outcome | undefined {
    return this.#outcome;
  }

  /** What has to be sent now, in this order; each piece is returned once. */
  output(): Uint8Array<ArrayBuffer>[] {
    return this.#output.splice(0);
  }

  /** After `starttls`: the connection is encrypted now, and nothing that was said before counts. */
  encrypted(): void {
    this.#outcome = undefined;
    this.#isEncrypted = true;
    this.#structured = false;
    this.#extended = false;
    this.#allocationOf = undefined;
  }

  /**
   * Takes what the client has sent, as far as it is complete.
   *
   * @returns how many bytes were taken: the rest has to be given again, with what comes after it. A message has at most
   * `OPTION_HEADER_BYTES + OPTION_BYTES_MAX` bytes. Nothing is taken once there is an outcome.
   */
  take(bytes: Uint8Array): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (this.#outcome === undefined) {
      const rest = bytes.length - at;
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, rest);
        this.#skip -= skipped;
        at += skipped;
        if (this.#skip > 0) break;
      } else if (!this.#hasFlags) {
        if (rest < CLIENT_FLAGS_BYTES) break;
        this.#takeFlags(view.getUint32(at));
        at += CLIENT_FLAGS_BYTES;
      } else {
        if (rest < OPTION_HEADER_BYTES) break;
        if (view.getBigUint64(at) !== IHAVEOPT) {
          this.#close("an option has a wrong magic number");
          break;
        }
        const option = view.getUint32(at + 8);
        const lengthBytes = view.getUint32(at + 12);
        if (lengthBytes > OPTION_BYTES_MAX) {
          this.#tooBig(option, lengthBytes);
          at += OPTION_HEADER_BYTES;
          continue;
        }
        if (rest < OPTION_HEADER_BYTES + lengthBytes) break;
        at += OPTION_HEADER_BYTES;
        this.#takeOption(option, bytes.subarray(at, at + lengthBytes));
        at += lengthBytes;
      }
    }
    return at;
  }

  #takeFlags(flags: number): void {
    this.#hasFlags = true;
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      this.#close("the client has unknown flags");
    }
  }

  #tooBig(option: number, lengthBytes: number): void {
    if (option === NBD_OPT_EXPORT_NAME || lengthBytes > SKIPPED_BYTES_MAX) {
      return this.#close(`option ${option} has ${lengthBytes} bytes`);
    }
    this.#skip = lengthBytes;
    this.#count();
    this.#reply(option, NBD_REP_ERR_TOO_BIG);
  }

  #count(): void {
    if (++this.#options > OPTIONS_MAX) this.#close(`the client has sent more than ${OPTIONS_MAX} options`);
  }

  #takeOption(option: number, data: Uint8Array): void {
    this.#count();
    if (this.#outcome !== undefined) return;
    if (option === NBD_OPT_ABORT) {
      this.#reply(option, NBD_REP_ACK);
      return this.#close("the client wants no more");
    }
    const refused = this.#refusal(option, data);
    if (refused !== 0) {
      // This option has no reply that is an error.
      if (option === NBD_OPT_EXPORT_NAME) return this.#close("the export is not to be had");
      return this.#reply(option, refused);
    }
    switch (option) {
      case NBD_OPT_EXPORT_NAME:
        return this.#exportName(data);
      case NBD_OPT_LIST:
        return this.#list(option);
      case NBD_OPT_STARTTLS:
        this.#reply(option, NBD_REP_ACK);
        this.#outcome = { kind: "starttls" };
        return;
      case NBD_OPT_INFO:
      case NBD_OPT_GO:
        return this.#info(option, data);
      case NBD_OPT_STRUCTURED_REPLY:
        this.#structured = true;
        return this.#reply(option, NBD_REP_ACK);
      case NBD_OPT_EXTENDED_HEADERS:
        this.#extended = true;
        return this.#reply(option, NBD_REP_ACK);
      case NBD_OPT_LIST_META_CONTEXT:
      case NBD_OPT_SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return this.#reply(option, NBD_REP_ERR_UNSUP);
    }
  }

  /** 0, or the error that an option is answered with whatever else it says. */
  #refusal(option: number, data: Uint8Array): number {
    if (this.#directory.isClosing) return NBD_REP_ERR_SHUTDOWN;
    if (option === NBD_OPT_STARTTLS) {
      if (this.#tls === "off") return NBD_REP_ERR_POLICY;
      return this.#isEncrypted || data.length > 0 ? NBD_REP_ERR_INVALID : 0;
    }
    if (this.#tls === "required" && !this.#isEncrypted) return NBD_REP_ERR_TLS_REQD;
    if (option === NBD_OPT_STRUCTURED_REPLY && this.#extended) return NBD_REP_ERR_EXT_HEADER_REQD;
    const isBare = option === NBD_OPT_LIST || option === NBD_OPT_STRUCTURED_REPLY ||
      option === NBD_OPT_EXTENDED_HEADERS;
    return isBare && data.length > 0 ? NBD_REP_ERR_INVALID : 0;
  }

  #exportName(data: Uint8Array): void {
    if (this.#extended) return this.#close("NBD_OPT_EXPORT_NAME does not go with extended headers");
    const name = textOf(data);
    const found = name === undefined ? undefined : this.#directory.find(name);
    if (found === undefined) return this.#close("there is no such export");
    const answer = message(this.#noZeroes ? 10 : 10 + ZEROES_BYTES);
    answer.view.setBigUint64(0, BigInt(found.sizeBytes));
    answer.view.setUint16(8, this.#flagsOf(found));
    this.#output.push(answer.bytes);
    this.#begin(found);
  }

  #list(option: number): void {
    for (const { name, description } of this.#directory.list()) {
      const nameBytes = bytesOf(name);
      const length = message(4);
      length.view.setUint32(0, nameBytes.length);
      this.#reply(option, NBD_REP_SERVER, length.bytes, nameBytes, bytesOf(description));
    }
    this.#reply(option, NBD_REP_ACK);
  }

  #info(option: number, data: Uint8Array): void {
    const fields = new Fields(data);
    const name = fields.text32();
    const asked = new Set<number>();
    for (let count = fields.u16(); count > 0 && fields.isGood; count--) asked.add(fields.u16());
    if (!fields.isComplete || name === undefined) return this.#reply(option, NBD_REP_ERR_INVALID);
    const found = this.#directory.find(name);
    if (found === undefined) return this.#reply(option, NBD_REP_ERR_UNKNOWN);
    const basic = message(12);
    basic.view.setUint16(0, NBD_INFO_EXPORT);
    basic.view.setBigUint64(2, BigInt(found.sizeBytes));
    basic.view.setUint16(10, this.#flagsOf(found));
    this.#reply(option, NBD_REP_INFO, basic.bytes);
    if (asked.has(NBD_INFO_NAME)) this.#reply(option, NBD_REP_INFO, u16Of(NBD_INFO_NAME), bytesOf(found.name));
    if (asked.has(NBD_INFO_DESCRIPTION) && found.description !== "") {
      this.#reply(option, NBD_REP_INFO, u16Of(NBD_INFO_DESCRIPTION), bytesOf(found.description));
    }
    if (asked.has(NBD_INFO_BLOCK_SIZE)) {
      const sizes = message(14);
      sizes.view.setUint16(0, NBD_INFO_BLOCK_SIZE);
      sizes.view.setUint32(2, found.minBlockBytes);
      sizes.view.setUint32(6, found.preferredBlockBytes);
      sizes.view.setUint32(10, found.maxPayloadBytes);
      this.#reply(option, NBD_REP_INFO, sizes.bytes);
    }
    this.#reply(option, NBD_REP_ACK);
    if (option === NBD_OPT_GO) this.#begin(found);
  }

  #metaContext(option: number, data: Uint8Array): void {
    const isSet = option === NBD_OPT_SET_META_CONTEXT;
    if (isSet) this.#allocationOf = undefined; // whatever comes of this one
    const fields = new Fields(data);
    const name = fields.text32();
    const queryCount = fields.u32();
    const queries: string[] = [];
    for (let i = 0; i < queryCount && fields.isGood; i++) queries.push(fields.text32() ?? "");
    const isWrong = !fields.isComplete || name === undefined || queries.some((query) => !query.includes(":"));
    if (isWrong || isSet && !this.#structured && !this.#extended) return this.#reply(option, NBD_REP_ERR_INVALID);
    const found = this.#directory.find(name);
    if (found === undefined) return this.#reply(option, NBD_REP_ERR_UNKNOWN);
    const isWanted = queries.includes(BASE_ALLOCATION) ||
      !isSet && (queries.length === 0 || queries.includes("base:"));
    if (isWanted) {
      const id = message(4);
      id.view.setUint32(0, isSet ? BASE_ALLOCATION_ID : 0);
      this.#reply(option, NBD_REP_META_CONTEXT, id.bytes, bytesOf(BASE_ALLOCATION));
      if (isSet) this.#allocationOf = found.name;
    }
    this.#reply(option, NBD_REP_ACK);
  }

  #flagsOf(found: ExportDescription): number {
    return found.flags | (this.#structured || this.#extended ? NBD_FLAG_SEND_DF : 0);
  }

  #begin(found: ExportDescription): void {
    this.#outcome = {
      kind: "transmission",
      export: found,
      structured: this.#structured,
      extended: this.#extended,
      hasAllocation: this.#allocationOf === found.name,
    };
  }

  #close(why: string): void {
    this.#outcome ??= { kind: "close", why };
  }

  #reply(option: number, type: number, ...data: Uint8Array[]): void {
    const lengthBytes = data.reduce((sum, part) => sum + part.length, 0);
    const { bytes, view } = message(OPTION_REPLY_HEADER_BYTES + lengthBytes);
    view.setBigUint64(0, NBD_REP_MAGIC);
    view.setUint32(8, option);
    view.setUint32(12, type);
    view.setUint32(16, lengthBytes);
    let at = OPTION_REPLY_HEADER_BYTES;
    for (const part of data) {
      bytes.set(part, at);
      at += part.length;
    }
    this.#output.push(bytes);
  }
}
