// SPDX-License-Identifier: MIT
/** A request that is open, from its header until its reply is written: its numbers, its memory, and its reply. */
import type { Extent } from "../disk/backend.ts";
import type { Operation } from "../disk/operation.ts";
import { addressOf } from "../system/memory.ts";
import type { Inbox } from "./inbox.ts";
import { HEADROOM_BYTES, type PooledBuffer } from "./pool.ts";
import {
  EXTENDED_REPLY_BYTES,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  SIMPLE_REPLY_BYTES,
  STRUCTURED_REPLY_BYTES,
} from "./protocol.ts";
import { putChunk, putSimple, putStatus, putU64 } from "./reply.ts";
import type { WireRequest } from "./request.ts";

/** How a connection wants its replies. */
export interface ReplyForm {
  /** Replies come in chunks: structured or extended. */
  readonly chunked: boolean;
  readonly extended: boolean;
}

/** One of a connection's slots. The same object serves one request after the other. */
export class Slot {
  /** Its number for dispatch. */
  readonly index: number;
  /** A buffer that was made as one: V8 moves small arrays about. */
  readonly #head = new Uint8Array(new ArrayBuffer(HEADROOM_BYTES));
  readonly #headView: DataView = new DataView(this.#head.buffer);
  #headAddress = 0;
  /** Memory for a payload, of the server's pool. */
  buffer: PooledBuffer | undefined;
  /** Where the payload belongs in the disk's own memory: it is received to there and sent from there. 0: it is not. */
  contentAddress = 0;
  command = 0;
  wireFlags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  operation: Operation = "read";
  /** REQUEST_* for dispatch. */
  flags = 0;
  /** A request that is larger than what the disk takes at once is done in pieces. */
  pieceBytesMax = 0;
  pieceBytes = 0;
  doneBytes = 0;
  /** What follows the header on the wire, and how much of it has come. */
  payloadBytes = 0;
  payloadDoneBytes = 0;
  /** What is wrong with the request itself; its payload is skipped then. */
  refusedWith = 0;
  /** What is to be sent: `reply[from]` to `reply[to]`, then so many bytes of memory that is known by its address. */
  reply: Uint8Array<ArrayBuffer> = this.#head;
  from = 0;
  to = 0;
  tailAddress = 0;
  tailBytes = 0;

  constructor(index: number) {
    this.index = index;
  }

  /** The next request of the slot. Its payload has a buffer, or is at `contentAddress`, or there is none. */
  begin(
    request: WireRequest,
    buffer: PooledBuffer | undefined,
    contentAddress: number,
    refusedWith: number,
  ): void {
    this.command = request.command;
    this.wireFlags = request.flags;
    this.cookieHigh = request.cookieHigh;
    this.cookieLow = request.cookieLow;
    this.offsetBytes = request.offsetBytes;
    this.lengthBytes = request.lengthBytes;
    this.payloadBytes = request.payloadBytes;
    this.payloadDoneBytes = 0;
    this.refusedWith = refusedWith;
    this.doneBytes = 0;
    this.buffer = buffer;
    this.contentAddress = contentAddress;
    this.tailBytes = 0;
  }

  /** What of a payload has not come and is not skipped. */
  get missingBytes(): number {
    return this.refusedWith !== 0 ? 0 : this.payloadBytes - this.payloadDoneBytes;
  }

  /** Takes so much of its payload. */
  take(inbox: Inbox, count: number): void {
    if (this.contentAddress !== 0) inbox.copyToAddress(this.payloadAddress, count);
    else if (this.refusedWith === 0) inbox.copyTo(this.buffer!.bytes, HEADROOM_BYTES + this.payloadDoneBytes, count);
    inbox.skip(count);
    this.payloadDoneBytes += count;
  }

  /** Where the next byte of a payload that comes belongs. */
  get payloadAddress(): number {
    return (this.contentAddress || this.buffer!.address + HEADROOM_BYTES) + this.payloadDoneBytes;
  }

  /** What is to be sent still. */
  get replyBytes(): number {
    return this.to - this.from + this.tailBytes;
  }

  /** So much of the reply has been sent. */
  advance(bytes: number): void {
    const inReply = Math.min(bytes, this.to - this.from);
    this.from += inReply;
    this.tailAddress += bytes - inReply;
    this.tailBytes -= bytes - inReply;
  }

  /** Where `reply` is, for calls of the system. */
  get replyAddress(): number {
    return this.reply === this.#head ? this.#headAddress ||= addressOf(this.#head) : this.buffer!.address;
  }

  /** The reply to a READ: what is in the buffer or on the disk itself, and before it a header. */
  replyData({ chunked, extended }: ReplyForm): void {
    const { buffer } = this;
    const view = buffer?.view ?? this.#headView;
    this.reply = buffer?.bytes ?? this.#head;
    this.to = HEADROOM_BYTES + (buffer === undefined ? 0 : this.lengthBytes);
    if (buffer === undefined) {
      this.tailAddress = this.contentAddress;
      this.tailBytes = this.lengthBytes;
    }
    if (!chunked) {
      this.from = HEADROOM_BYTES - SIMPLE_REPLY_BYTES;
      putSimple(view, this.from, this, 0);
      return;
    }
    const headBytes = extended ? EXTENDED_REPLY_BYTES : STRUCTURED_REPLY_BYTES;
    this.from = HEADROOM_BYTES - headBytes - 8;
    putChunk(view, this.from, this, extended, NBD_REPLY_TYPE_OFFSET_DATA, this.lengthBytes + 8);
    putU64(view, HEADROOM_BYTES - 8, this.offsetBytes);
  }

  /** The reply to a BLOCK_STATUS. */
  replyStatus(extents: readonly Extent[], { extended }: ReplyForm): void {
    const { view, bytes } = this.buffer!;
    const payloadBytes = putStatus(view, HEADROOM_BYTES, extents, extended);
    const type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
    this.from = HEADROOM_BYTES - (extended ? EXTENDED_REPLY_BYTES : STRUCTURED_REPLY_BYTES);
    putChunk(view, this.from, this, extended, type, payloadBytes);
    this.reply = bytes;
    this.to = HEADROOM_BYTES + payloadBytes;
  }

  /** A reply without data: an error of the protocol's, or 0. */
  replyBare(error: number, { chunked, extended }: ReplyForm): void {
    this.reply = this.#head;
    this.from = 0;
    const view = this.#headView;
    // A reply without data may be a simple one, but for reads and with extended headers.
    if (!extended && !(chunked && error !== 0)) {
      this.to = putSimple(view, 0, this, error);
      return;
    }
    const payloadBytes = error === 0 ? 0 : 6;
    const type = error === 0 ? NBD_REPLY_TYPE_NONE : NBD_REPLY_TYPE_ERROR;
    const at = putChunk(view, 0, this, extended, type, payloadBytes);
    if (error !== 0) {
      view.setUint32(at, error);
      view.setUint16(at + 4, 0);
    }
    this.to = at + payloadBytes;
  }
}
