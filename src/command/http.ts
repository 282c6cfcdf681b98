// SPDX-License-Identifier: MIT
/**
 * The commands' own HTTP: where it listens, and who may ask. Loopback and unix sockets are this machine's; an address that
 * others can reach takes a token, which whoever asks has to show.
 */
import { DblockError, describe, errnoOf } from "../disk/errors.ts";
import { pause } from "../module/deadline.ts";
import { isLocalAddress, UNIX_PATH_BYTES_MAX } from "../nbd/address.ts";
import { bareWords, listenError } from "../nbd/address_words.ts";
import { UsageError } from "./cli.ts";
import type { Option } from "./command.ts";

/** Where to listen. */
export type HttpAddress =
  | { readonly transport: "unix"; readonly path: string }
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number };

/** A token is shorter than this, in bytes, and not shorter than 16: it can be tried from everywhere. */
const TOKEN_BYTES_MAX = 4096;
const TOKEN_BYTES_MIN = 16;
const CLOSE_MS = 500;
const COOKIE = "dblock-token";

/** The option that goes with each address. */
export const TOKEN_OPTION: Option = {
  name: "token",
  value: "FILE",
  text:
    "a file, readable by its owner alone (chmod 600), with the secret that others have to show (Authorization: Bearer " +
    "SECRET); an address that other machines can reach takes one",
};

/**
 * An address in words: `127.0.0.1:9464`, `[::1]:9464`, `9464` (of loopback), `unix:/run/x.sock`.
 *
 * @throws {UsageError} it is none
 */
export function parseHttpAddress(text: string): HttpAddress {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "" || path.includes("\0")) {
      throw new UsageError(`"${text}" has no path (write it like unix:/run/x.sock)`);
    }
    if (new TextEncoder().encode(path).length > UNIX_PATH_BYTES_MAX) {
      throw new UsageError(`"${text}": the path of a unix socket has at most ${UNIX_PATH_BYTES_MAX} bytes`);
    }
    return { transport: "unix", path };
  }
  const match = /^(?:(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]\s/]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3] ?? NaN);
  if (!(port <= 65535)) {
    throw new UsageError(`"${text}" is not an address (write it like 127.0.0.1:9464, 9464 or unix:/run/x.sock)`);
  }
  return { transport: "tcp", hostname: match?.[1] ?? match?.[2] ?? "127.0.0.1", port };
}

/** As {@linkcode parseHttpAddress} takes it. */
export function formatHttpAddress(address: HttpAddress): string {
  if (address.transport === "unix") return `unix:${address.path}`;
  return `${address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname}:${address.port}`;
}

/** What is typed for an address and its token, checked. */
export interface HttpPlan {
  readonly address: HttpAddress;
  /** A file. */
  readonly tokenPath?: string;
}

/**
 * An address with its token.
 *
 * @param option the one that has the address: "--metrics"
 * @throws {UsageError} others could reach it, and there is no token
 */
export function planHttp(option: string, text: string, tokenPath: string | undefined): HttpPlan {
  const address = parseHttpAddress(text);
  if (!isLocalAddress(address) && tokenPath === undefined) {
    throw new UsageError(
      `${option} ${text} can be reached from other machines: say which secret they have to show, with --token FILE`,
    );
  }
  return { address, ...(tokenPath === undefined ? {} : { tokenPath }) };
}

/** An HTTP server that is there. */
export interface HttpServer extends AsyncDisposable {
  /** Where it listens; a port that was 0 is the one that was found. */
  readonly address: HttpAddress;
  /** "http://127.0.0.1:9464/", for people. */
  readonly url: string;
}

/**
 * Listens and answers, until it is disposed.
 *
 * @throws {DblockError} the address, or the file of the token, cannot be used
 */
export async function serveHttp(
  { address, tokenPath }: HttpPlan,
  answer: (request: Request) => Response | Promise<Response>,
): Promise<HttpServer> {
  const secret = tokenPath === undefined ? undefined : await secretOf(readToken(tokenPath));
  const handler = async (request: Request): Promise<Response> => {
    const refused = refusal(request, address, secret);
    if (refused !== undefined) return refused;
    try {
      return await answer(request);
    } catch (error) {
      return new Response(`${describe(error)}\n`, { status: 500 });
    }
  };
  const options = { onListen: () => {}, onError: () => new Response(null, { status: 500 }) };
  try {
    if (address.transport === "unix") await removeAbandoned(address.path);
    const server = address.transport === "tcp"
      ? Deno.serve({ ...options, hostname: address.hostname, port: address.port }, handler)
      : withUmask(0o177, () => Deno.serve({ ...options, path: address.path }, handler));
    const { addr } = server;
    const found: HttpAddress = "port" in addr
      ? { transport: "tcp", hostname: addr.hostname, port: addr.port }
      : address;
    return {
      address: found,
      url: found.transport === "unix" ? formatHttpAddress(found) : `http://${formatHttpAddress(found)}/`,
      async [Symbol.asyncDispose]() {
        // Answers end as they should; a client that keeps its connection open is not waited for, and ends with the process.
        await Promise.race([server.shutdown(), pause(CLOSE_MS)]);
        if (address.transport === "unix") {
          try {
            Deno.removeSync(address.path);
          } catch {
            // Deno has done it.
          }
        }
      },
    };
  } catch (error) {
    const attempted = `Cannot listen on ${formatHttpAddress(address)}`;
    throw listenError(attempted, address, error);
  }
}

/** The socket of a server that was killed is in the way, and nobody answers there. */
async function removeAbandoned(path: string): Promise<void> {
  try {
    if (!Deno.lstatSync(path).isSocket) return;
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) Deno.removeSync(path);
  }
}

/** From its first moment, nobody else can connect. */
function withUmask<T>(mask: number, work: () => T): T {
  const before = Deno.umask(mask);
  try {
    return work();
  } finally {
    Deno.umask(before);
  }
}

/** Whoever reads the secret may destroy disks, and whoever writes it as well. */
const OTHERS_MODE = 0o077;

function readToken(path: string): string {
  const attempted = `Cannot use the token in ${path}`;
  let token: string;
  let mode: number;
  try {
    mode = (Deno.statSync(path).mode ?? 0) & 0o777;
    token = Deno.readTextFileSync(path).trim();
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound;
    const wrong = isMissing ? "there is no such file" : bareWords(error);
    throw new DblockError(errnoOf(error) ?? "EIO", attempted, wrong, {
      cause: error,
      ...(isMissing ? { hint: howToMakeToken(path) } : {}),
    });
  }
  if ((mode & OTHERS_MODE) !== 0) {
    const wrong = `others may read or write it: its mode is ${mode.toString(8).padStart(4, "0")}`;
    throw new DblockError("EACCES", attempted, wrong, { hint: `chmod 600 ${path}` });
  }
  if (/^[\x21-\x7e]+$/.test(token) && token.length >= TOKEN_BYTES_MIN && token.length <= TOKEN_BYTES_MAX) return token;
  const wrong = "it is one line of 16 characters or more, without spaces";
  throw new DblockError("EINVAL", attempted, wrong, { hint: howToMakeToken(path) });
}

function howToMakeToken(path: string): string {
  return `make one: (umask 077; openssl rand -hex 24 >${path})`;
}

/** Why a request is not answered; undefined if it is. */
function refusal(request: Request, address: HttpAddress, secret: Secret | undefined): Response | undefined {
  const url = new URL(request.url);
  // A page of somebody else's in a browser of this machine could ask by a name of its own that leads here.
  const isOwnName = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (address.transport === "tcp" && isLocalAddress(address) && !isOwnName) {
    return new Response("this address is asked by another name\n", { status: 421 });
  }
  if (secret === undefined) return undefined;
  const { token, isSame } = secret;
  const shown = url.searchParams.get("token");
  if (shown !== null && isSame(shown)) {
    url.searchParams.delete("token");
    const cookie = `${COOKIE}=${encodeURIComponent(token)}; HttpOnly; SameSite=Strict; Path=/`;
    const headers = { "set-cookie": cookie, location: `${url.pathname}${url.search}` };
    return new Response(null, { status: 303, headers });
  }
  const bearer = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  const cookie = new RegExp(`(?:^|;\\s*)${COOKIE}=([^;]*)`).exec(request.headers.get("cookie") ?? "")?.[1];
  const given = [bearer, cookie === undefined ? undefined : decoded(cookie)];
  if (given.some((one) => one !== undefined && isSame(one))) return undefined;
  const headers = { "www-authenticate": "Bearer" };
  return new Response("the secret is missing: open this address with ?token=SECRET\n", { status: 401, headers });
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** What who asks has to know. */
interface Secret {
  readonly token: string;
  /** In a time that does not tell how much of it was right. */
  isSame(given: string): boolean;
}

async function secretOf(token: string): Promise<Secret> {
  // Not at the program's start: a bundle that imports anything is read as a whole then (src/build/README.md).
  const { timingSafeEqual } = await import("node:crypto");
  const encoder = new TextEncoder();
  const bytes = encoder.encode(token);
  return {
    token,
    isSame(text) {
      const given = encoder.encode(text);
      return given.length === bytes.length && timingSafeEqual(given, bytes);
    },
  };
}
