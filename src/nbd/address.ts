// SPDX-License-Identifier: MIT
/**
 * Where an NBD server listens, and how an export is named: the words people type become data and back. Nothing is looked up
 * or opened here. The form of the URIs is that of the NBD project's doc/uri.md.
 */
import { DblockError } from "../disk/errors.ts";

/** The port that IANA has given to NBD. */
export const NBD_DEFAULT_PORT = 10809;
const LOOPBACK = "127.0.0.1";
/** A sockaddr_un has room for so many bytes and the closing NUL. */
export const UNIX_PATH_BYTES_MAX = 107;
/** The specification's limit of every string. */
const EXPORT_NAME_BYTES_MAX = 4096;

/** Where a server listens: a unix socket, or a host and a port. */
export type NbdAddress =
  | { readonly transport: "unix"; readonly path: string }
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number };

/** An export of a server. */
export interface NbdUri {
  /** Where its server listens. */
  readonly address: NbdAddress;
  /** "" is the server's default export. */
  readonly exportName: string;
  /** Whether the connection has to be encrypted: true for `nbds://` and `nbds+unix://`. */
  readonly tls: boolean;
  /** The name that the server's certificate must have. @default the host, "localhost" for a unix socket */
  readonly tlsHostname?: string;
  /** False: the server may be anybody. @default true */
  readonly tlsVerifyPeer?: boolean;
  /** A folder with ca-cert.pem, and client-cert.pem and client-key.pem if the client has to prove who it is. */
  readonly tlsCertificates?: string;
}

/**
 * The address in words: `unix:/run/x.sock`, `127.0.0.1:10809`, `[::1]:10809`, `host` (the default port), `10809` (of
 * loopback), or an NBD URI without an export's name.
 *
 * ```ts
 * import { parseNbdAddress } from "./address.ts";
 *
 * const address = parseNbdAddress("unix:/run/x.sock");
 * console.assert(address.transport === "unix" && address.path === "/run/x.sock");
 * ```
 *
 * @throws {DblockError} EINVAL, with what is wrong and what an address looks like.
 */
export function parseNbdAddress(text: string): NbdAddress {
  const attempted = `Cannot use the NBD address "${text}"`;
  if (/^nbds?(\+unix)?:\/\//.test(text)) {
    const { address, exportName, tls } = parseNbdUri(text);
    if (exportName !== "") throw bad(attempted, `an address names no export, and this one names "${exportName}"`);
    if (tls) throw bad(attempted, "whether a server wants TLS is an option of its own");
    return address;
  }
  if (text.startsWith("unix:")) return unix(attempted, text.slice("unix:".length));
  if (text.startsWith("/") || text.startsWith("./")) return unix(attempted, text);
  if (/^\d+$/.test(text)) return { transport: "tcp", hostname: LOOPBACK, port: portOf(attempted, text) };
  return tcp(attempted, text);
}

/** An address as {@linkcode parseNbdAddress} takes it. */
export function formatNbdAddress(address: NbdAddress): string {
  if (address.transport === "unix") return `unix:${address.path}`;
  return `${bracketed(address.hostname)}:${address.port}`;
}

/** True for an address that nobody outside of this machine can reach. */
export function isLocalAddress(address: NbdAddress): boolean {
  return address.transport === "unix" || address.hostname === "localhost" || address.hostname === "::1" ||
    /^127\.\d+\.\d+\.\d+$/.test(address.hostname);
}

/**
 * The parts of an NBD URI: `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`, and `nbds` instead of `nbd` for TLS.
 *
 * ```ts
 * import { parseNbdUri } from "./address.ts";
 *
 * const uri = parseNbdUri("nbd+unix:///disk0?socket=/run/x.sock");
 * console.assert(uri.exportName === "disk0" && uri.address.transport === "unix" && !uri.tls);
 * ```
 *
 * @throws {DblockError} EINVAL, with what is wrong.
 */
export function parseNbdUri(text: string): NbdUri {
  const attempted = `Cannot use the NBD URI "${text}"`;
  // Not `new URL()`: its path is normalized, and an export may be called "..".
  const match = /^(nbds?)(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(text);
  if (match === null) {
    throw bad(
      attempted,
      "it has another form",
      "nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH; nbds for TLS",
    );
  }
  const [, scheme, plusUnix, authority = "", path = "", query = ""] = match;
  const exportName = decoded(attempted, path);
  if (exportName.includes("\0")) throw bad(attempted, "the name of an export cannot contain NUL");
  if (new TextEncoder().encode(exportName).length > EXPORT_NAME_BYTES_MAX) {
    throw bad(attempted, `the name of an export has at most ${EXPORT_NAME_BYTES_MAX} bytes`);
  }
  const parameters = parseQuery(attempted, query);
  const socket = parameters.get("socket");
  if (plusUnix !== undefined && socket === undefined) throw bad(attempted, "it says no socket", "add ?socket=PATH");
  if (plusUnix === undefined && socket !== undefined) throw bad(attempted, "only nbd+unix:// has a socket");
  if (plusUnix !== undefined && authority !== "") {
    throw bad(attempted, `"${authority}" is a host, and a unix socket has none`);
  }
  const host = authority.replace(/^[^@]*@/, "");
  const address = socket === undefined ? tcp(attempted, host === "" ? LOOPBACK : host) : unix(attempted, socket);
  const uri = { address, exportName, tls: scheme === "nbds" };
  return { ...uri, ...tlsParameters(attempted, parameters) };
}

/** A URI as {@linkcode parseNbdUri} takes it. */
export function formatNbdUri(uri: Pick<NbdUri, "address" | "exportName" | "tls">): string {
  const { address, exportName, tls } = uri;
  const scheme = tls ? "nbds" : "nbd";
  // A slash may stand in a path as it is.
  const name = encodeURIComponent(exportName).replaceAll("%2F", "/");
  if (address.transport === "tcp") return `${scheme}://${bracketed(address.hostname)}:${address.port}/${name}`;
  return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.path).replaceAll("%2F", "/")}`;
}

const PARAMETERS = ["socket", "tls-hostname", "tls-verify-peer", "tls-certificates"] as const;
type Parameter = typeof PARAMETERS[number];

function parseQuery(attempted: string, query: string): Map<Parameter, string> {
  const parameters = new Map<Parameter, string>();
  for (const part of query.split(/[&;]/)) {
    if (part === "") continue;
    const [name = "", value = ""] = part.split(/=(.*)/s).map((word) => decoded(attempted, word));
    const known = PARAMETERS.find((parameter) => parameter === name);
    if (known === undefined) throw bad(attempted, `"${name}" is no parameter`, `known: ${PARAMETERS.join(", ")}`);
    if (parameters.has(known)) throw bad(attempted, `"${name}" is there twice`);
    parameters.set(known, value);
  }
  return parameters;
}

function tlsParameters(attempted: string, parameters: ReadonlyMap<Parameter, string>): Partial<NbdUri> {
  const tlsHostname = parameters.get("tls-hostname");
  const verify = parameters.get("tls-verify-peer");
  const tlsCertificates = parameters.get("tls-certificates");
  if (verify !== undefined && verify !== "0" && verify !== "1") {
    throw bad(attempted, `tls-verify-peer is 0 or 1, not "${verify}"`);
  }
  return {
    ...(tlsHostname === undefined ? {} : { tlsHostname }),
    ...(verify === undefined ? {} : { tlsVerifyPeer: verify === "1" }),
    ...(tlsCertificates === undefined ? {} : { tlsCertificates }),
  };
}

function unix(attempted: string, path: string): NbdAddress {
  if (path === "") throw bad(attempted, "it says no path");
  if (path.includes("\0")) throw bad(attempted, "a path cannot contain NUL");
  if (new TextEncoder().encode(path).length > UNIX_PATH_BYTES_MAX) {
    throw bad(attempted, `the path of a unix socket has at most ${UNIX_PATH_BYTES_MAX} bytes`);
  }
  return { transport: "unix", path };
}

function tcp(attempted: string, text: string): NbdAddress {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:[\]/\s]+))(?::(\d+))?$/.exec(text);
  const hostname = match?.[1] ?? match?.[2];
  if (hostname === undefined) {
    throw bad(attempted, "it has another form", "HOST:PORT such as 127.0.0.1:10809 or [::1]:10809, PORT, or unix:PATH");
  }
  const port = match?.[3];
  return { transport: "tcp", hostname, port: port === undefined ? NBD_DEFAULT_PORT : portOf(attempted, port) };
}

/** 0 is a port that the kernel chooses. */
function portOf(attempted: string, text: string): number {
  const port = Number(text);
  if (port > 65535) throw bad(attempted, `a port is 0 to 65535, not ${text}`);
  return port;
}

function decoded(attempted: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw bad(attempted, `"${text}" has a wrong %-sequence`);
  }
}

function bracketed(hostname: string): string {
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}

function bad(attempted: string, wrong: string, hint?: string): DblockError {
  return new DblockError("EINVAL", attempted, wrong, hint === undefined ? {} : { hint });
}
