// SPDX-License-Identifier: MIT
/**
 * Generic netlink: a part of the kernel, a "family", is called by messages that consist of attributes. The kernel answers
 * before a call has returned.
 */
import { ERRNO } from "../disk/errors.ts";
import { libc } from "./library.ts";
import { addressOf } from "./memory.ts";
import { Pieces, receive, send } from "./socket.ts";

// Of linux/netlink.h and linux/genetlink.h.
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_GENERIC = 16;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLMSG_ERROR = 2;
const NLMSG_HEADER_BYTES = 16;
const GENL_HEADER_BYTES = 4;
const ATTRIBUTE_HEADER_BYTES = 4;
const ATTRIBUTE_TYPE_MASK = 0x3fff;
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_VERSION = 2;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const REPLY_BYTES = 32 * 1024;

const aligned = (bytes: number) => (bytes + 3) & ~3;

/** What a family has answered. */
export interface NetlinkReply {
  /** 0, or an errno. */
  readonly errno: number;
  /** The attributes of its answer, if there was one. */
  readonly attributes: ReadonlyMap<number, DataView>;
}

/** An attribute: a u32 from a number, a u64 from a bigint, a string, or a group of attributes. */
export function attribute(type: number, value: number | bigint | string | readonly Uint8Array[]): Uint8Array {
  const content = typeof value === "number"
    ? new Uint8Array(new Uint32Array([value]).buffer)
    : typeof value === "bigint"
    ? new Uint8Array(new BigUint64Array([value]).buffer)
    : typeof value === "string"
    ? new TextEncoder().encode(`${value}\0`)
    : joined(value);
  const bytes = new Uint8Array(aligned(ATTRIBUTE_HEADER_BYTES + content.length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ATTRIBUTE_HEADER_BYTES + content.length, true);
  view.setUint16(2, type, true);
  bytes.set(content, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

/** The attributes of a message. What is cut off is left out. */
export function attributesOf(bytes: Uint8Array): Map<number, DataView> {
  const found = new Map<number, DataView>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length;) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) break;
    const start = bytes.byteOffset + at + ATTRIBUTE_HEADER_BYTES;
    found.set(
      view.getUint16(at + 2, true) & ATTRIBUTE_TYPE_MASK,
      new DataView(bytes.buffer, start, length - ATTRIBUTE_HEADER_BYTES),
    );
    at += aligned(length);
  }
  return found;
}

/** Calls one family. */
export class GenericNetlink implements Disposable {
  readonly #fd: number;
  #family = GENL_ID_CTRL;
  #sequence = 0;
  readonly #reply = new Uint8Array(new ArrayBuffer(REPLY_BYTES));

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @returns undefined if the kernel has no family of that name: its module is not loaded */
  static open(family: string): GenericNetlink | undefined {
    const fd = libc().socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_GENERIC);
    if (fd < 0) return undefined;
    const netlink = new GenericNetlink(fd);
    const { attributes } = netlink.call(CTRL_CMD_GETFAMILY, CTRL_VERSION, [attribute(CTRL_ATTR_FAMILY_NAME, family)]);
    const id = attributes.get(CTRL_ATTR_FAMILY_ID)?.getUint16(0, true);
    if (id === undefined) {
      netlink[Symbol.dispose]();
      return undefined;
    }
    netlink.#family = id;
    return netlink;
  }

  /** Waits, on this thread, until the kernel has done it. */
  call(command: number, version: number, attributes: readonly Uint8Array[]): NetlinkReply {
    const content = joined(attributes);
    const bytes = new Uint8Array(
      new ArrayBuffer(Math.max(128, NLMSG_HEADER_BYTES + GENL_HEADER_BYTES + content.length)),
    );
    const view = new DataView(bytes.buffer);
    const length = NLMSG_HEADER_BYTES + GENL_HEADER_BYTES + content.length;
    view.setUint32(0, length, true);
    view.setUint16(4, this.#family, true);
    view.setUint16(6, NLM_F_REQUEST | NLM_F_ACK, true);
    view.setUint32(8, ++this.#sequence, true);
    view.setUint8(NLMSG_HEADER_BYTES, command);
    view.setUint8(NLMSG_HEADER_BYTES + 1, version);
    bytes.set(content, NLMSG_HEADER_BYTES + GENL_HEADER_BYTES);
    const pieces = new Pieces();
    pieces.add(addressOf(bytes), length);
    if (send(this.#fd, pieces) !== length) return { errno: ERRNO.EIO, attributes: new Map() };
    return this.#receive();
  }

  #receive(): NetlinkReply {
    let attributes: ReadonlyMap<number, DataView> = new Map();
    const pieces = new Pieces();
    pieces.add(addressOf(this.#reply), REPLY_BYTES);
    const view = new DataView(this.#reply.buffer);
    for (;;) {
      const count = receive(this.#fd, pieces);
      if (count <= 0) return { errno: ERRNO.EIO, attributes };
      for (let at = 0; at + NLMSG_HEADER_BYTES <= count;) {
        const length = view.getUint32(at, true);
        if (length < NLMSG_HEADER_BYTES) break;
        const isOurs = view.getUint32(at + 8, true) === this.#sequence;
        if (isOurs && view.getUint16(at + 4, true) === NLMSG_ERROR) {
          return { errno: 0 - view.getInt32(at + NLMSG_HEADER_BYTES, true), attributes };
        }
        const start = at + NLMSG_HEADER_BYTES + GENL_HEADER_BYTES;
        if (isOurs) attributes = attributesOf(this.#reply.slice(start, at + length));
        at += aligned(length);
      }
    }
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    libc().close(this.#fd);
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
