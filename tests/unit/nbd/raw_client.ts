// SPDX-License-Identifier: MIT
/** The other end of a connection, for tests: it says what it is told, right or wrong, and shows what comes back. */
import { assertEquals } from "@std/assert";
import * as p from "../../../src/nbd/protocol.ts";
import { ConnWire, type Wire } from "../../../src/nbd/wire.ts";

/** A reply of the transmission phase: all of its chunks. */
export interface RawReply {
  readonly cookie: number;
  /** An error of the protocol's, 0 if there is none. */
  readonly error: number;
  readonly chunks: readonly RawChunk[];
}

/** A chunk of a reply; a simple reply is one of type -1. */
export interface RawChunk {
  readonly type: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A reply to an option. */
export interface RawOptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** What a request says. */
export interface RawRequest {
  readonly flags?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly payload?: Uint8Array;
  readonly cookie?: number;
  readonly magic?: number;
}

/** How a client begins. */
export interface RawStart {
  readonly name?: string;
  readonly structured?: boolean;
  readonly extended?: boolean;
  readonly allocation?: boolean;
}

const HANDSHAKE_FLAGS = Uint8Array.of(0, 0, 0, p.NBD_FLAG_C_FIXED_NEWSTYLE | p.NBD_FLAG_C_NO_ZEROES);

/** A connection to an NBD server. */
export class RawClient implements Disposable {
  wire: Wire;
  sizeBytes = 0;
  /** NBD_FLAG_* of the export. */
  flags = 0;
  extended = false;
  #cookie = 1;

  constructor(wire: Wire) {
    this.wire = wire;
  }

  static async connect(path: string): Promise<RawClient> {
    const client = new RawClient(new ConnWire(await Deno.connect({ transport: "unix", path })));
    await client.read(18);
    await client.wire.write(HANDSHAKE_FLAGS);
    return client;
  }

  /** A connection that is ready for requests. */
  static async open(path: string, start: RawStart = {}): Promise<RawClient> {
    const client = await RawClient.connect(path);
    await client.start(start);
    return client;
  }

  async start({ name = "", structured = false, extended = false, allocation = false }: RawStart): Promise<void> {
    if (structured) assertEquals((await this.option(p.NBD_OPT_STRUCTURED_REPLY))[0]!.type, p.NBD_REP_ACK);
    if (extended) assertEquals((await this.option(p.NBD_OPT_EXTENDED_HEADERS))[0]!.type, p.NBD_REP_ACK);
    this.extended = extended;
    if (allocation) {
      const query = new TextEncoder().encode(p.BASE_ALLOCATION);
      const data = [...text32(name), ...u32(1), ...u32(query.length), ...query];
      const replies = await this.option(p.NBD_OPT_SET_META_CONTEXT, Uint8Array.from(data));
      assertEquals(replies.map(({ type }) => type), [p.NBD_REP_META_CONTEXT, p.NBD_REP_ACK]);
    }
    const replies = await this.option(p.NBD_OPT_GO, Uint8Array.from([...text32(name), 0, 0]));
    assertEquals(replies.at(-1)!.type, p.NBD_REP_ACK);
    const view = new DataView(replies[0]!.data.buffer);
    this.sizeBytes = Number(view.getBigUint64(2));
    this.flags = view.getUint16(10);
  }

  async read(count: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(count);
    for (let done = 0; done < count;) {
      const some = await this.wire.read(bytes.subarray(done));
      if (some === 0) throw new Error(`the server ended after ${done} of ${count} bytes`);
      done += some;
    }
    return bytes;
  }

  /** True if the server has closed the connection and has sent nothing before. */
  async isAtEnd(): Promise<boolean> {
    try {
      return await this.wire.read(new Uint8Array(1)) === 0;
    } catch {
      return true;
    }
  }

  /** Sends an option and reads its replies, up to the last one. */
  async option(option: number, data: Uint8Array = new Uint8Array(0)): Promise<RawOptionReply[]> {
    const bytes = new Uint8Array(16 + data.length);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, p.IHAVEOPT);
    view.setUint32(8, option);
    view.setUint32(12, data.length);
    bytes.set(data, 16);
    await this.wire.write(bytes);
    const replies: RawOptionReply[] = [];
    for (;;) {
      const head = new DataView((await this.read(20)).buffer);
      assertEquals([head.getBigUint64(0), head.getUint32(8)], [p.NBD_REP_MAGIC, option]);
      const type = head.getUint32(12);
      replies.push({ option, type, data: await this.read(head.getUint32(16)) });
      if (type === p.NBD_REP_ACK || type >= p.NBD_REP_FLAG_ERROR) return replies;
    }
  }

  /** The bytes of a request, with what it carries. */
  bytesOf(command: number, request: RawRequest = {}): Uint8Array<ArrayBuffer> {
    const { flags = 0, offset = 0, payload = new Uint8Array(0), cookie = this.#cookie++ } = request;
    const length = request.length ?? payload.length;
    const headBytes = this.extended ? 32 : 28;
    const bytes = new Uint8Array(headBytes + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, request.magic ?? (this.extended ? p.NBD_EXTENDED_REQUEST_MAGIC : p.NBD_REQUEST_MAGIC));
    const hasPayload = this.extended && command === p.NBD_CMD_WRITE;
    view.setUint16(4, flags | (hasPayload ? p.NBD_CMD_FLAG_PAYLOAD_LEN : 0));
    view.setUint16(6, command);
    view.setBigUint64(8, BigInt(cookie));
    view.setBigUint64(16, BigInt(offset));
    if (this.extended) view.setBigUint64(24, BigInt(length));
    else view.setUint32(24, length);
    bytes.set(payload, headBytes);
    return bytes;
  }

  async send(command: number, request: RawRequest = {}): Promise<void> {
    await this.wire.write(this.bytesOf(command, request));
  }

  /** The next reply. @param readBytes what a simple reply to a READ carries, if it is no error */
  async reply(readBytes = 0): Promise<RawReply> {
    const chunks: RawChunk[] = [];
    for (;;) {
      const magic = new DataView((await this.read(4)).buffer).getUint32(0);
      if (magic === p.NBD_SIMPLE_REPLY_MAGIC) {
        const head = new DataView((await this.read(12)).buffer);
        const error = head.getUint32(0);
        const data = await this.read(error === 0 ? readBytes : 0);
        return { cookie: Number(head.getBigUint64(4)), error, chunks: [{ type: -1, data }] };
      }
      const isExtended = magic === p.NBD_EXTENDED_REPLY_MAGIC;
      assertEquals(isExtended || magic === p.NBD_STRUCTURED_REPLY_MAGIC, true, magic.toString(16));
      const head = new DataView((await this.read(isExtended ? 28 : 16)).buffer);
      const [flags, type, cookie] = [head.getUint16(0), head.getUint16(2), Number(head.getBigUint64(4))];
      const lengthBytes = isExtended ? Number(head.getBigUint64(20)) : head.getUint32(12);
      const data = await this.read(lengthBytes);
      chunks.push({ type, data });
      if ((flags & p.NBD_REPLY_FLAG_DONE) === 0) continue;
      const failed = chunks.find((chunk) => (chunk.type & p.NBD_REPLY_TYPE_FLAG_ERROR) !== 0);
      const error = failed === undefined ? 0 : new DataView(failed.data.buffer).getUint32(0);
      return { cookie, error, chunks };
    }
  }

  /** One request, and the error of its reply. */
  async ask(command: number, request: RawRequest = {}): Promise<number> {
    await this.send(command, request);
    return (await this.reply(command === p.NBD_CMD_READ ? request.length ?? 0 : 0)).error;
  }

  /** What a READ returns. */
  async content(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    await this.send(p.NBD_CMD_READ, { offset, length });
    const { error, chunks } = await this.reply(length);
    assertEquals([error, chunks.length], [0, 1]);
    const { type, data } = chunks[0]!;
    return type === -1 ? data : data.slice(8);
  }

  [Symbol.dispose](): void {
    this.wire.close();
  }
}

/** 32 bits as they are on the wire. */
export function u32(value: number): number[] {
  return [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
}

/** A string after its length. */
export function text32(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...u32(bytes.length), ...bytes];
}
