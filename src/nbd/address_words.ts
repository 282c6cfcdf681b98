// SPDX-License-Identifier: MIT
/**
 * Why nobody can listen at an address, or connect to it, in words for whoever typed it. For NBD and for the commands' HTTP;
 * nothing is opened here.
 */
import { DblockError, describe, type ErrnoName, errnoOf } from "../disk/errors.ts";
import type { NbdAddress } from "./address.ts";

/** The first port that every user may have. */
const FREE_PORT_MIN = 1024;

/** What is wrong, and what to type. */
interface Words {
  readonly errno: ErrnoName;
  readonly wrong: string;
  readonly hint?: string;
}

/** Who cannot listen at an address hears why. */
export function listenError(attempted: string, address: NbdAddress, error: unknown): DblockError {
  const words = address.transport === "unix"
    ? whyNoSocketAt(folderOf(address.path), error)
    : whyNoPort(address.hostname, address.port, error);
  return errorOf(attempted, words, error);
}

/** Who cannot connect to an address hears why. */
export function connectError(attempted: string, address: NbdAddress, error: unknown): DblockError {
  const words = address.transport === "unix" ? whyNoSocket(error) : whyNoServer(address.hostname, error);
  return errorOf(attempted, words, error);
}

function whyNoSocketAt(folder: string, error: unknown): Words | undefined {
  if (error instanceof Deno.errors.AddrInUse) return IN_USE;
  if (error instanceof Deno.errors.NotFound) {
    return { errno: "ENOENT", wrong: `there is no folder ${folder}`, hint: `mkdir -p ${folder}` };
  }
  if (error instanceof Deno.errors.NotADirectory) {
    return { errno: "ENOTDIR", wrong: `${folder} is no folder`, hint: OTHER };
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return { errno: "EACCES", wrong: `this user may not make a socket in ${folder}`, hint: OTHER };
  }
  return undefined;
}

function whyNoPort(hostname: string, port: number, error: unknown): Words | undefined {
  if (error instanceof Deno.errors.AddrInUse) return IN_USE;
  if (error instanceof Deno.errors.AddrNotAvailable) {
    return {
      errno: "EADDRNOTAVAIL",
      wrong: `${hostname} is no address of this machine`,
      hint: "ip address lists them; 127.0.0.1 is for this machine alone",
    };
  }
  if (error instanceof Deno.errors.PermissionDenied && port < FREE_PORT_MIN) {
    return {
      errno: "EACCES",
      wrong: `this user may not have a port below ${FREE_PORT_MIN}`,
      hint: `take one from ${FREE_PORT_MIN} on`,
    };
  }
  return whyNoName(hostname, error);
}

function whyNoSocket(error: unknown): Words | undefined {
  if (error instanceof Deno.errors.NotFound) {
    return { errno: "ENOENT", wrong: "there is no such socket", hint: "start its server first" };
  }
  if (error instanceof Deno.errors.ConnectionRefused) return REFUSED;
  if (error instanceof Deno.errors.PermissionDenied) {
    return { errno: "EACCES", wrong: "this user may not use the socket", hint: "take the user of its server, or root" };
  }
  return undefined;
}

function whyNoServer(hostname: string, error: unknown): Words | undefined {
  if (error instanceof Deno.errors.ConnectionRefused) return REFUSED;
  if (error instanceof Deno.errors.TimedOut) return { errno: "ETIMEDOUT", wrong: "that machine does not answer" };
  const errno = errnoOf(error) === undefined ? "" : (error as { readonly code: string }).code;
  if (errno === "EHOSTUNREACH" || errno === "ENETUNREACH") {
    return { errno, wrong: "there is no way to that machine", hint: "ip route shows the ways" };
  }
  return whyNoName(hostname, error);
}

function whyNoName(hostname: string, error: unknown): Words | undefined {
  if (!/lookup address/.test(describe(error))) return undefined;
  return { errno: "ENOENT", wrong: `no machine called ${hostname} is known`, hint: "give its address in numbers" };
}

const OTHER = "take another path";
const IN_USE: Words = { errno: "EADDRINUSE", wrong: "another server has it", hint: "take another address" };
const REFUSED: Words = { errno: "ECONNREFUSED", wrong: "no server listens there", hint: "start it first" };

function errorOf(attempted: string, words: Words | undefined, cause: unknown): DblockError {
  if (words === undefined) return new DblockError(errnoOf(cause) ?? "EIO", attempted, bareWords(cause), { cause });
  const { errno, wrong, hint } = words;
  return new DblockError(errno, attempted, wrong, { cause, ...(hint === undefined ? {} : { hint }) });
}

/** The system's own words, without the name of the runtime's class and the number behind them. */
export function bareWords(error: unknown): string {
  return error instanceof Error ? error.message.replace(/ \(os error \d+\)$/, "") : describe(error);
}

function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash) || "/";
}
