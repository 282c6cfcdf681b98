// SPDX-License-Identifier: MIT
/**
 * Whether the machine at the other end of a TCP connection is still there: a machine that is there acknowledges what it is
 * sent, and an idle one is sent something every few seconds. By Linux's own calls; it does not know what the bytes mean.
 *
 * TCP_USER_TIMEOUT would be shorter, but ends a connection whose server is there and takes nothing for that long, too.
 */
import { libc } from "../system/library.ts";

// Of sys/socket.h and netinet/tcp.h, on Linux.
const AF_INET = 2;
const AF_INET6 = 10;
const SOL_SOCKET = 1;
const SO_PEERNAME = 28;
const FAMILY_AND_PORT_BYTES = 4;
const IPPROTO_TCP = 6;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_INFO = 11;
/** struct tcp_info: u8 tcpi_probes, u32 tcpi_unacked, u32 tcpi_last_ack_recv, and where the latter ends. */
const PROBES_AT = 3;
const UNACKED_AT = 24;
const LAST_ACK_AT = 56;
const INFO_BYTES = 60;
/** The kernel asks an idle machine in steps of a quarter of the time. */
const STEPS = 4;

const value = new DataView(new ArrayBuffer(128));
const length = new DataView(new ArrayBuffer(128));

/**
 * Makes the kernel ask whether the machine is there while the connection is idle, and end the connection when there is no
 * answer. While data is under way the kernel itself is more patient, so `silentMs()` tells.
 *
 * @param afterMs of silence, 1,000 at least; rounded to whole seconds
 * @returns the connection's file for `silentMs()`, as long as it is open; undefined where it cannot be found
 */
export function noticeSilence(conn: Deno.TcpConn, afterMs: number): number | undefined {
  conn.setKeepAlive();
  const fd = fileOf(conn);
  if (fd === undefined) return undefined;
  const stepSeconds = Math.max(1, Math.round(afterMs / STEPS / 1_000));
  set(fd, TCP_KEEPIDLE, stepSeconds);
  set(fd, TCP_KEEPINTVL, stepSeconds);
  set(fd, TCP_KEEPCNT, STEPS - 1);
  return fd;
}

/** For how long the machine has not acknowledged what is under way to it, in ms; 0: nothing is, or it cannot be told. */
export function silentMs(fd: number): number {
  length.setUint32(0, INFO_BYTES, true);
  if (libc().getsockopt(fd, IPPROTO_TCP, TCP_INFO, value, length) !== 0) return 0;
  if (length.getUint32(0, true) < INFO_BYTES) return 0;
  // A server that takes nothing is probed at longer and longer intervals, an idle one in steps; one probe may be under way
  // just now, a second one means that the first had no answer.
  const isUnderWay = value.getUint32(UNACKED_AT, true) > 0 || value.getUint8(PROBES_AT) > 1;
  return isUnderWay ? value.getUint32(LAST_ACK_AT, true) : 0;
}

/** Deno tells the files of connections that it has accepted, and not of those that it has made. */
function fileOf({ localAddr, remoteAddr }: Deno.TcpConn): number | undefined {
  if (Deno.build.os !== "linux" || Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return undefined;
  let files: number[];
  try {
    files = Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => Number(name));
  } catch {
    return undefined; // this program may not read there
  }
  const matching = files.filter((fd) => hasPorts(fd, localAddr.port, remoteAddr.port));
  // A port can be used for several machines: no file is better than another connection's.
  return matching.length === 1 ? matching[0] : undefined;
}

function hasPorts(fd: number, own: number, other: number): boolean {
  length.setUint32(0, value.byteLength, true);
  if (libc().getsockname(fd, value, length) !== 0 || portInValue() !== own) return false;
  length.setUint32(0, FAMILY_AND_PORT_BYTES, true); // the kernel refuses more than there is
  return libc().getsockopt(fd, SOL_SOCKET, SO_PEERNAME, value, length) === 0 && portInValue() === other;
}

/** The port of a struct sockaddr_in or sockaddr_in6. */
function portInValue(): number | undefined {
  const family = value.getUint16(0, true);
  return family === AF_INET || family === AF_INET6 ? value.getUint16(2) : undefined;
}

function set(fd: number, option: number, to: number): void {
  value.setInt32(0, to, true);
  libc().setsockopt(fd, IPPROTO_TCP, option, value, 4);
}
