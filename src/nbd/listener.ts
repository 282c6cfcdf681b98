// SPDX-License-Identifier: MIT
/** The socket where a server waits for clients. */
import { DblockError } from "../disk/errors.ts";
import { formatNbdAddress, type NbdAddress } from "./address.ts";
import { listenError } from "./address_words.ts";

/**
 * Listens; the socket of a server that was killed is replaced.
 *
 * @throws {DblockError} EADDRINUSE, EACCES, ENOENT, or what else the system says.
 */
export async function listen(address: NbdAddress): Promise<Deno.Listener> {
  const attempted = `Cannot listen on ${formatNbdAddress(address)}`;
  try {
    return open(address);
  } catch (error) {
    // A server that was killed leaves its socket behind; nobody answers there any more.
    if (address.transport === "unix" && error instanceof Deno.errors.AddrInUse && await isAbandoned(address.path)) {
      return open(address);
    }
    const isInUse = error instanceof Deno.errors.AddrInUse;
    if (isInUse && address.transport === "unix" && !Deno.lstatSync(address.path).isSocket) {
      throw new DblockError("EEXIST", attempted, "there is a file or folder of that name, and no socket", {
        hint: "take another path",
        cause: error,
      });
    }
    throw listenError(attempted, address, error);
  }
}

function open(address: NbdAddress): Deno.Listener {
  if (address.transport === "tcp") return Deno.listen({ hostname: address.hostname, port: address.port });
  // From its first moment, nobody else can connect.
  const before = Deno.umask(0o177);
  try {
    return Deno.listen({ transport: "unix", path: address.path }) as unknown as Deno.Listener;
  } finally {
    Deno.umask(before);
  }
}

/** True if nobody answers at that socket, or if it has just gone. */
async function isAbandoned(path: string): Promise<boolean> {
  try {
    if (!Deno.lstatSync(path).isSocket) return false;
    (await Deno.connect({ transport: "unix", path })).close();
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true; // its server has ended just now
    if (!(error instanceof Deno.errors.ConnectionRefused)) return false;
    Deno.removeSync(path);
    return true;
  }
}

/**
 * Listens no more. Deno removes the socket as it closes it, and nothing may be removed later: from then on the path may be
 * that of the next server, while this one answers what is open.
 */
export function closeListener(listener: Deno.Listener): void {
  try {
    listener.close();
  } catch {
    // It is closed.
  }
}
