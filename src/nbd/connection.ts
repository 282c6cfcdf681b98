// SPDX-License-Identifier: MIT
/** One connection of a client: requests go out as they come, replies come in any order. It knows nothing of reconnecting. */
import { DblockError, describe } from "../disk/errors.ts";
import { type Call, errnoOfNbd } from "./call.ts";
import type { Agreed } from "./negotiation.ts";
import {
  EXTENDED_REPLY_BYTES,
  EXTENDED_REQUEST_BYTES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_READ,
  NBD_ESHUTDOWN,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_FLAG_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  NBD_STRUCTURED_REPLY_MAGIC,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
  STRUCTURED_REPLY_BYTES,
} from "./protocol.ts";
import { putU64 } from "./reply.ts";

const WORD = 2 ** 32;
const IN_BYTES = 128 * 1024;
const OUT_BYTES = 128 * 1024;
/** A larger payload is sent by itself, without a copy. */
const COPIED_BYTES_MAX = 16 * 1024;
/** What a chunk without data may carry: the extents of a server that tells all it can, and messages. */
const CHUNK_BYTES_MAX = 2 ** 22;
/** What a server that is ending has for the rest of its answers: as much as ours gives its clients. */
const ENDING_MS = 10_000;
const ENDING = "the server is ending";

/** A connection that is ready for requests. */
export class Connection {
  readonly agreed: Agreed;
  readonly #calls = new Map<number, Call>();
  readonly #in = new Uint8Array(IN_BYTES);
  readonly #inView = new DataView(this.#in.buffer);
  #begin = 0;
  #end = 0;
  readonly #out = new Uint8Array(OUT_BYTES);
  readonly #outView = new DataView(this.#out.buffer);
  #queue: Call[] = [];
  #isWriting = false;
  #isScheduled = false;
  #cookie = 0;
  #answeredCount = 0;
  #why: unknown;
  #isEnded = false;
  /** The server has said that it is ending. */
  #isEnding = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(agreed: Agreed) {
    this.agreed = agreed;
  }

  /** Requests that have no answer yet. */
  get openCount(): number {
    return this.#calls.size;
  }

  /** False: nothing may be sent any more. `run()` has ended, or does so when the server has ended or has answered the rest. */
  get isTaking(): boolean {
    return !this.#isEnded && !this.#isEnding;
  }

  /** Requests that were answered. */
  get answeredCount(): number {
    return this.#answeredCount;
  }

  /**
   * Takes replies until the connection ends.
   *
   * @returns the requests that were not answered, in the order in which they came, and why there will be no more
   */
  async run(): Promise<{ readonly unanswered: readonly Call[]; readonly why: string }> {
    let why = "the server has ended the connection";
    try {
      while (await this.#need(SIMPLE_REPLY_BYTES)) await this.#takeReply();
    } catch (error) {
      why = describe(this.#why ?? error);
    }
    this.#isEnded = true;
    clearTimeout(this.#timer);
    this.agreed.wire.close();
    const unanswered = [...this.#calls.values()].filter((call) => !call.isAnswered);
    for (const call of this.#calls.values()) if (call.isAnswered) call.settle();
    this.#calls.clear();
    this.#queue = [];
    for (const call of unanswered) call.rewind();
    return { unanswered, why };
  }

  /** Sends a request. Its answer settles it, or `run()` returns it. */
  send(call: Call): void {
    this.#cookie = (this.#cookie + 1) % Number.MAX_SAFE_INTEGER;
    call.cookie = this.#cookie;
    this.#calls.set(call.cookie, call);
    this.#queue.push(call);
    if (this.#isScheduled || this.#isWriting) return;
    this.#isScheduled = true;
    // Requests that come together go out together.
    queueMicrotask(() => {
      this.#isScheduled = false;
      void this.#write();
    });
  }

  /** Says farewell and ends. */
  async close(): Promise<void> {
    if (this.#isEnded) return;
    try {
      const bytes = this.#header(0, NBD_CMD_DISC, 0, 0, 0, 0);
      if (!this.#isWriting) await this.agreed.wire.write(this.#out.slice(0, bytes));
    } catch {
      // It has ended by itself.
    }
    this.cut("it was closed");
  }

  /** Ends the connection at once. */
  cut(why: unknown): void {
    this.#why ??= why;
    this.agreed.wire.close();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    try {
      while (this.#queue.length > 0 && !this.#isEnded) await this.#writeSome();
    } catch (error) {
      this.cut(error);
    }
    this.#isWriting = false;
  }

  async #writeSome(): Promise<void> {
    let bytes = 0;
    let taken = 0;
    let alone: Call | undefined;
    for (; taken < this.#queue.length && alone === undefined; taken++) {
      const call = this.#queue[taken]!;
      const { payload } = call;
      const copied = payload !== undefined && payload.length <= COPIED_BYTES_MAX ? payload.length : 0;
      if (bytes + EXTENDED_REQUEST_BYTES + copied > OUT_BYTES) break;
      bytes += this.#header(bytes, call.command, call.flags, call.cookie, call.offsetBytes, call.lengthBytes);
      if (copied > 0) {
        this.#out.set(payload!, bytes);
        bytes += copied;
      } else if (payload !== undefined) alone = call;
    }
    const sent = this.#queue.splice(0, taken);
    // What was copied is as good as sent: the caller may have its memory back.
    for (const call of sent) if (call !== alone) call.isSent = true;
    await this.agreed.wire.write(this.#out.subarray(0, bytes));
    if (alone === undefined) return;
    await this.agreed.wire.write(alone.payload!);
    if (this.#isEnded) return; // another connection has it
    alone.isSent = true;
    if (!alone.isAnswered) return;
    // A server may refuse a WRITE before it has all of it.
    this.#calls.delete(alone.cookie);
    alone.settle();
  }

  #header(
    at: number,
    command: number,
    flags: number,
    cookie: number,
    offsetBytes: number,
    lengthBytes: number,
  ): number {
    const view = this.#outView;
    const { extended } = this.agreed;
    view.setUint32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    view.setUint16(at + 4, flags | (extended && command === 1 ? NBD_CMD_FLAG_PAYLOAD_LEN : 0));
    view.setUint16(at + 6, command);
    putU64(view, at + 8, cookie);
    putU64(view, at + 16, offsetBytes);
    if (extended) putU64(view, at + 24, lengthBytes);
    else view.setUint32(at + 24, lengthBytes);
    return extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
  }

  /** Waits until so many bytes are in the buffer. False: the connection has ended before the first one. */
  async #need(count: number): Promise<boolean> {
    if (this.#end - this.#begin >= count) return true;
    if (this.#begin > 0) this.#in.copyWithin(0, this.#begin, this.#end);
    this.#end -= this.#begin;
    this.#begin = 0;
    while (this.#end < count) {
      const some = await this.agreed.wire.read(this.#in.subarray(this.#end));
      if (some === 0) {
        if (this.#end === 0) return false;
        throw wrong("the server has ended the connection amid a reply");
      }
      this.#end += some;
    }
    return true;
  }

  async #takeReply(): Promise<void> {
    const view = this.#inView;
    const magic = view.getUint32(this.#begin);
    if (magic === NBD_SIMPLE_REPLY_MAGIC && !this.agreed.extended) {
      const error = view.getUint32(this.#begin + 4);
      const call = this.#callOf(view, this.#begin + 8);
      this.#begin += SIMPLE_REPLY_BYTES;
      if (call.command === NBD_CMD_READ && error === 0) {
        if (this.agreed.structured) throw wrong("the server answers a READ without a chunk");
        await this.#takeData(call, 0, call.lengthBytes);
      }
      return this.#finish(call, error);
    }
    const { extended } = this.agreed;
    if (
      magic !== (extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC) ||
      !extended && !this.agreed.structured
    ) {
      throw wrong("the server sends what is no reply");
    }
    const headBytes = extended ? EXTENDED_REPLY_BYTES : STRUCTURED_REPLY_BYTES;
    if (!await this.#need(headBytes)) throw wrong("the server has ended the connection amid a reply");
    const at = this.#begin;
    const [flags, type] = [view.getUint16(at + 4), view.getUint16(at + 6)];
    const call = this.#callOf(view, at + 8);
    const lengthBytes = extended ? u64(view, at + 24) : view.getUint32(at + 16);
    this.#begin += headBytes;
    const error = await this.#takeChunk(call, type, lengthBytes);
    if (error !== 0 && call.error === 0) call.error = errnoOfNbd(error);
    if (error === NBD_ESHUTDOWN) call.error = NBD_ESHUTDOWN;
    if ((flags & NBD_REPLY_FLAG_DONE) !== 0) this.#finish(call, call.error);
  }

  #callOf(view: DataView, at: number): Call {
    const call = this.#calls.get(u64(view, at));
    if (call === undefined || call.isAnswered || call.isRefused) {
      throw wrong("the server answers what nobody has asked");
    }
    return call;
  }

  /** @returns the error that the chunk tells, 0 if it tells none */
  async #takeChunk(call: Call, type: number, lengthBytes: number): Promise<number> {
    if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
      if (call.command !== NBD_CMD_READ || lengthBytes <= 8) throw wrong("the server sends data that nobody wants");
      await this.#need(8);
      const at = u64(this.#inView, this.#begin) - call.offsetBytes;
      this.#begin += 8;
      await this.#takeData(call, at, lengthBytes - 8);
      return 0;
    }
    if (lengthBytes > CHUNK_BYTES_MAX) throw wrong(`the server sends a chunk of ${lengthBytes} bytes`);
    const data = await this.#takeBytes(lengthBytes);
    const view = new DataView(data.buffer);
    if ((type & NBD_REPLY_TYPE_FLAG_ERROR) !== 0) {
      if (lengthBytes < 6) throw wrong("the server sends half an error");
      return view.getUint32(0) || NBD_ESHUTDOWN;
    }
    switch (type) {
      case NBD_REPLY_TYPE_NONE:
        return 0;
      case NBD_REPLY_TYPE_OFFSET_HOLE: {
        if (call.command !== NBD_CMD_READ || lengthBytes !== 12) {
          throw wrong("the server sends a hole that nobody wants");
        }
        const [at, length] = [u64(view, 0) - call.offsetBytes, view.getUint32(8)];
        this.#window(call, at, length).fill(0);
        return 0;
      }
      case NBD_REPLY_TYPE_BLOCK_STATUS:
      case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        if (call.command !== NBD_CMD_BLOCK_STATUS) throw wrong("the server sends extents that nobody wants");
        takeExtents(call, view, type === NBD_REPLY_TYPE_BLOCK_STATUS_EXT, this.agreed.allocationId);
        return 0;
      default:
        throw wrong(`the server sends a chunk of type ${type}`);
    }
  }

  /** A part of a READ's memory, counted as come. */
  #window(call: Call, at: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    if (!(at >= 0 && at + lengthBytes <= call.lengthBytes)) throw wrong("the server sends data from outside the range");
    call.gotBytes += lengthBytes;
    return call.data!.subarray(at, at + lengthBytes);
  }

  async #takeData(call: Call, at: number, lengthBytes: number): Promise<void> {
    const window = this.#window(call, at, lengthBytes);
    const there = Math.min(lengthBytes, this.#end - this.#begin);
    window.set(this.#in.subarray(this.#begin, this.#begin + there));
    this.#begin += there;
    for (let done = there; done < lengthBytes;) {
      const some = await this.agreed.wire.read(window.subarray(done));
      if (some === 0) throw wrong("the server has ended the connection amid a reply");
      done += some;
    }
  }

  async #takeBytes(lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(lengthBytes);
    const there = Math.min(lengthBytes, this.#end - this.#begin);
    bytes.set(this.#in.subarray(this.#begin, this.#begin + there));
    this.#begin += there;
    for (let done = there; done < lengthBytes;) {
      const some = await this.agreed.wire.read(bytes.subarray(done));
      if (some === 0) throw wrong("the server has ended the connection amid a reply");
      done += some;
    }
    return bytes;
  }

  #finish(call: Call, error: number): void {
    if (error === NBD_ESHUTDOWN) return this.#refused(call);
    if (call.command === NBD_CMD_READ && error === 0 && call.gotBytes !== call.lengthBytes) {
      throw wrong(`the server has sent ${call.gotBytes} of ${call.lengthBytes} bytes`);
    }
    call.error = error === 0 ? 0 : errnoOfNbd(error);
    call.isAnswered = true;
    this.#answeredCount++;
    if (call.isSent) {
      this.#calls.delete(call.cookie);
      call.settle();
    }
    if (this.#isEnding) this.#endIfDone();
  }

  /**
   * The server does not do this request any more, and whoever comes next is asked again. It may still do the others: sent to
   * another connection now, one of them could be done a second time after later requests.
   */
  #refused(call: Call): void {
    call.isRefused = true;
    if (!this.#isEnding) {
      this.#isEnding = true;
      this.#timer = setTimeout(() => this.cut(ENDING), ENDING_MS);
      for (const unsent of this.#queue.splice(0)) unsent.isRefused = true;
    }
    this.#endIfDone();
  }

  #endIfDone(): void {
    for (const call of this.#calls.values()) if (!call.isAnswered && !call.isRefused) return;
    throw wrong(ENDING);
  }
}

function takeExtents(call: Call, view: DataView, extended: boolean, allocationId: number | undefined): void {
  const [first, step] = extended ? [8, 16] : [4, 8];
  if (view.byteLength < first + step || (view.byteLength - first) % step !== 0) {
    throw wrong("the server sends half an extent");
  }
  if (view.getUint32(0) !== allocationId) return;
  for (let at = first; at < view.byteLength; at += step) {
    const lengthBytes = extended ? u64(view, at) : view.getUint32(at);
    const flags = extended ? view.getUint32(at + 12) : view.getUint32(at + 4);
    if (lengthBytes === 0) throw wrong("the server sends an extent of nothing");
    // A hole that does not read as zeroes may hold anything: it is data.
    const isZero = (flags & NBD_STATE_ZERO) !== 0;
    call.extents.push({ lengthBytes, kind: !isZero ? "data" : (flags & NBD_STATE_HOLE) !== 0 ? "hole" : "zero" });
  }
}

function u64(view: DataView, at: number): number {
  return view.getUint32(at) * WORD + view.getUint32(at + 4);
}

function wrong(what: string): DblockError {
  return new DblockError("EPROTO", "", what);
}
