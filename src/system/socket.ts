// SPDX-License-Identifier: MIT
/**
 * System calls on a socket that Deno has opened: bytes from and to many places of memory at once, and a short wait for many
 * sockets. They return at once or after microseconds, on this very thread; whoever has to wait for longer uses Deno's calls.
 */
import { libc } from "./library.ts";

// Of sys/socket.h and poll.h, on Linux.
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const POLLIN = 1;
const POLLOUT = 4;
const POLLERR = 8;
const POLLHUP = 16;
const REVENTS_SHIFT = 16;
const SOL_SOCKET = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SO_SNDBUF = 7;
const SO_ACCEPTCONN = 30;
const SO_SNDBUFFORCE = 32;
const SO_COOKIE = 57;
/** The kernel counts twice as much, its own part included. */
const SEND_BYTES = 2 ** 20;
/** Whose file has a higher number is served as on other systems. */
const FILES_MAX = 16_384;
/** struct msghdr { void *name; u32; iovec *; size_t count; void *control; size_t; int flags; } in 32-bit words. */
const MSGHDR_WORDS = 14;
const MSGHDR_IOV = 4;
const MSGHDR_COUNT = 6;
/** struct iovec { void *base; size_t length; } in 32-bit words. */
const IOVEC_WORDS = 4;
const WORD = 2 ** 32;
/** Sockets that a `SocketSet` has room for. */
export const SOCKETS_MAX = 64;
const PIECES_MAX = 128;
/** A number for each count of sockets: one that is made for a call costs more than the call. */
const COUNTS: readonly bigint[] = Array.from({ length: SOCKETS_MAX + 1 }, (_, count) => BigInt(count));

/** Sockets that `fileOf()` has found, by their files, and what the kernel calls each of them, which it never says again. */
const found = new Map<number, bigint>();
/** Those that were let go of. Deno may not have closed their files yet. */
const closing = new Map<number, bigint>();

/**
 * The file of a connection that Deno has just accepted, which stays Deno's: nobody may use its number after `conn.close()`,
 * and `releaseFile()` comes before that.
 *
 * @returns undefined where it cannot be found, where this program may not call libc, and on other systems than Linux
 */
export function fileOf(conn: Deno.Conn): number | undefined {
  if (Deno.build.os !== "linux" || Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return undefined;
  const { localAddr } = conn;
  return localAddr.transport === "unix" ? acceptedUnixFile(localAddr.path) : internalFile(conn);
}

/**
 * Connects to a unix socket that listens, and gives the file away: the caller closes it.
 *
 * @returns undefined if that fails
 */
export function connectUnix(path: string): number | undefined {
  const { bytes, lengthBytes } = unixAddress(path);
  const fd = libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  if (libc().connect(fd, bytes, lengthBytes) === 0) return fd;
  libc().close(fd);
  return undefined;
}

/**
 * Sends one datagram to a unix socket, and waits for nothing: where nobody reads, it is lost.
 *
 * @param path of the socket; one that begins with "@" is a name in the abstract namespace
 * @returns whether it was sent
 */
export function sendUnixDatagram(path: string, text: string): boolean {
  const name = path.startsWith("@") ? `\0${path.slice(1)}` : path;
  if (new TextEncoder().encode(name).length > UNIX_PATH_BYTES_MAX) return false;
  const { bytes, lengthBytes } = unixAddress(name);
  const message = new TextEncoder().encode(text);
  const fd = libc().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const sent = libc().sendto(fd, message, BigInt(message.length), MSG_DONTWAIT | MSG_NOSIGNAL, bytes, lengthBytes);
  libc().close(fd);
  return sent === message.length;
}

/** struct sockaddr_un of a path, or of a name that begins with a zero: the length alone ends such a name. */
function unixAddress(path: string): { readonly bytes: Uint8Array<ArrayBuffer>; readonly lengthBytes: number } {
  const name = new TextEncoder().encode(path);
  const bytes = new Uint8Array(SOCKADDR_UN_BYTES + 1);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return { bytes, lengthBytes: 2 + name.length + (name[0] === 0 ? 0 : 1) };
}

/** The file will be closed: its number means nothing any more. */
export function releaseFile(fd: number): void {
  const cookie = found.get(fd);
  if (found.delete(fd) && cookie !== undefined) closing.set(fd, cookie);
}

/** Deno has it for node:net, under a symbol that it does not export. */
function internalFile(conn: Deno.Conn): number | undefined {
  const symbol = Object.getOwnPropertySymbols(conn).find(({ description }) => description === "Deno.internal.fd");
  const fd: unknown = symbol === undefined ? undefined : Reflect.get(conn, symbol);
  return typeof fd === "number" && fd >= 0 && socketOption(fd, SO_COOKIE) !== undefined ? fd : undefined;
}

/**
 * A socket that was accepted has the address of the one that listens. Deno accepts one at a time, when it is asked to: the
 * only one that is not known is the last one.
 */
function acceptedUnixFile(path: string): number | undefined {
  const wanted = new TextEncoder().encode(path);
  for (let fd = 0; fd < FILES_MAX; fd++) {
    if (found.has(fd) || !isUnixAt(fd, wanted)) continue;
    const cookie = socketOption(fd, SO_COOKIE);
    if (cookie === undefined || socketOption(fd, SO_ACCEPTCONN) !== 0n || closing.get(fd) === cookie) continue;
    closing.delete(fd);
    found.set(fd, cookie);
    widen(fd);
    return fd;
  }
  return undefined;
}

const value = new DataView(new ArrayBuffer(128));
const length = new DataView(new ArrayBuffer(128));
const AF_UNIX = 1;
const SOCKADDR_UN_BYTES = 110;
/** A path has a zero behind it. */
const UNIX_PATH_BYTES_MAX = 107;

/** True for a unix socket of that address. */
function isUnixAt(fd: number, path: Uint8Array): boolean {
  length.setUint32(0, SOCKADDR_UN_BYTES, true);
  if (libc().getsockname(fd, value, length) !== 0 || value.getUint16(0, true) !== AF_UNIX) return false;
  // The kernel counts the zero behind the path.
  if (length.getUint32(0, true) !== 2 + path.length + 1) return false;
  return path.every((byte, i) => value.getUint8(2 + i) === byte);
}

/**
 * Room for several large answers. A unix socket has 208 KiB, and when those are full it takes no more until most of them are
 * read: both sides would wait for each other.
 */
function widen(fd: number): void {
  value.setInt32(0, SEND_BYTES, true);
  // Beyond net.core.wmem_max for root alone.
  if (libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value, 4) !== 0) {
    libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, 4);
  }
}

/** Undefined if this is no socket. */
function socketOption(fd: number, option: number): bigint | undefined {
  value.setBigUint64(0, 0n);
  length.setUint32(0, 8, true);
  return libc().getsockopt(fd, SOL_SOCKET, option, value, length) === 0 ? value.getBigUint64(0, true) : undefined;
}

/** Places of memory, one after the other, that one call fills or sends. */
export class Pieces {
  readonly #words = new Uint32Array(new ArrayBuffer(4 * (MSGHDR_WORDS + IOVEC_WORDS * PIECES_MAX)));
  /** What the calls are given. */
  readonly header: Uint8Array<ArrayBuffer> = new Uint8Array(this.#words.buffer);
  #count = 0;

  constructor() {
    const own = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.#words.buffer)));
    this.#put(MSGHDR_IOV, own + 4 * MSGHDR_WORDS);
  }

  /** How many can be added until `clear()`. */
  get room(): number {
    return PIECES_MAX - this.#count;
  }

  clear(): void {
    this.#count = 0;
    this.#words[MSGHDR_COUNT] = 0;
  }

  /** The memory has to stay where it is until the call. */
  add(address: number, lengthBytes: number): void {
    const at = MSGHDR_WORDS + IOVEC_WORDS * this.#count++;
    this.#put(at, address);
    this.#put(at + 2, lengthBytes);
    this.#words[MSGHDR_COUNT] = this.#count;
  }

  #put(at: number, value: number): void {
    this.#words[at] = value >>> 0;
    this.#words[at + 1] = Math.floor(value / WORD);
  }
}

/** Fills the pieces with what has come. @returns how many bytes, 0 at the end; -1 if nothing is there, or for an error */
export function receive(fd: number, { header }: Pieces): number {
  return libc().recvmsg(fd, header, MSG_DONTWAIT);
}

/** Sends what there is room for. @returns how many bytes; -1 if there is no room, or for an error */
export function send(fd: number, { header }: Pieces): number {
  return libc().sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** Sockets that are waited for together, by their place in the set: 0 to `SOCKETS_MAX - 1`. */
export class SocketSet {
  /** struct pollfd { int fd; short events; short revents; } */
  readonly #polls = new Int32Array(new ArrayBuffer(8 * SOCKETS_MAX));
  readonly #bytes = new Uint8Array(this.#polls.buffer);
  /** struct timespec { long seconds; long nanoseconds; } */
  readonly #time = new Uint32Array(new ArrayBuffer(128));
  readonly #timeBytes = new Uint8Array(this.#time.buffer);

  /** What is waited for at a place: something to read, or room for more as well. */
  put(index: number, fd: number, wantsRoom: boolean): void {
    this.#polls[2 * index] = fd;
    this.#polls[2 * index + 1] = wantsRoom ? POLLIN | POLLOUT : POLLIN;
  }

  /** Waits until one of the first `count` is ready, for at most `waitUs` below one second. @returns how many are, or -1 */
  wait(count: number, waitUs: number): number {
    this.#time[2] = waitUs * 1000;
    return libc().ppoll(this.#bytes, COUNTS[count]!, this.#timeBytes, 0n);
  }

  /** After `wait()`: something happened there, room for more included. */
  isReady(index: number): boolean {
    return this.#polls[2 * index + 1]! >> REVENTS_SHIFT !== 0;
  }

  /** After `wait()`: there is something to read, the end or an error included. */
  isReadable(index: number): boolean {
    return (this.#polls[2 * index + 1]! >> REVENTS_SHIFT & ~POLLOUT) !== 0;
  }

  /** After `wait()`: there is room for more there. */
  hasRoom(index: number): boolean {
    return (this.#polls[2 * index + 1]! >> REVENTS_SHIFT & POLLOUT) !== 0;
  }

  /** After `wait()`: both directions have ended there, or it has failed. */
  isBroken(index: number): boolean {
    return (this.#polls[2 * index + 1]! >> REVENTS_SHIFT & (POLLERR | POLLHUP)) !== 0;
  }
}
