// SPDX-License-Identifier: MIT
/** Disks of `dblock serve --nbd`: one server for each address. */
import { formatNbdAddress, formatNbdUri, isLocalAddress, type NbdAddress } from "../nbd/address.ts";
import { closeListener, listen } from "../nbd/listener.ts";
import { type NbdServer, serveNbdOn } from "../nbd/server.ts";
import { type DiskPlan, exportNames, nameOfPlan } from "./disk_plan.ts";
import { complain, logOptionsOf } from "./log.ts";
import type { NbdPart, ServedDisk } from "./served_disk.ts";

/** A server, and what is behind it. */
export interface Exporter {
  readonly server: NbdServer;
  /** How each disk is found, and the disk's name. */
  readonly uris: readonly { readonly uri: string; readonly disk: string | undefined }[];
  readonly parts: readonly { readonly disk: ServedDisk; readonly part: NbdPart; readonly name: string }[];
}

/** Sockets where clients wait until their server begins. */
export class Sockets implements Disposable {
  readonly #listeners = new Map<string, Deno.Listener>();

  /**
   * Listens at every address of these disks.
   *
   * @throws {DblockError} one cannot be had
   */
  static async open(plans: readonly DiskPlan[]): Promise<Sockets> {
    using undo = new DisposableStack();
    const sockets = undo.use(new Sockets());
    for (const { exits } of plans) {
      for (const exit of exits) if (exit.kind === "nbd") await sockets.#open(exit.address);
    }
    undo.move();
    return sockets;
  }

  async #open(address: NbdAddress): Promise<void> {
    const key = keyOf(address);
    if (!this.#listeners.has(key)) this.#listeners.set(key, await listen(address));
  }

  /** The socket of an address, which is whoever takes it's to close. Once. */
  take(address: NbdAddress): Deno.Listener {
    const key = keyOf(address);
    const listener = this.#listeners.get(key)!;
    this.#listeners.delete(key);
    return listener;
  }

  /** Closes those that nobody has taken. */
  [Symbol.dispose](): void {
    for (const listener of this.#listeners.values()) closeListener(listener);
    this.#listeners.clear();
  }
}

function keyOf(address: NbdAddress): string {
  return JSON.stringify(address);
}

/** One NBD server for each address, with all disks that go there. */
export async function startServers(
  disks: readonly ServedDisk[],
  sockets: Sockets,
  signal: AbortSignal,
): Promise<Exporter[]> {
  const names = exportNames(disks.map(({ plan }) => plan));
  const parts = disks.flatMap((disk) => disk.nbdParts.map((part) => ({ disk, part, name: names.get(part.exit)! })));
  const groups = Map.groupBy(parts, ({ part }) => keyOf(part.exit.address));
  const servers: Exporter[] = [];
  for (const group of groups.values()) {
    const exports = Object.fromEntries(group.map(({ part, name }) => [name, part.backend]));
    const { address } = group[0]!.part.exit;
    // What is said of the address is about a disk only if that one is alone there.
    const log = logOptionsOf(group.length === 1 ? nameOfPlan(group[0]!.disk.plan) : undefined);
    const server = await serveNbdOn(() => sockets.take(address), exports, { address, signal, ...log });
    const uris = group.map(({ name: exportName, disk }) => ({
      uri: formatNbdUri({ address: server.address, exportName, tls: false }),
      disk: nameOfPlan(disk.plan) ?? (exportName || undefined),
    }));
    servers.push({ server, uris, parts: group });
    const exposed = exposedLine(server.address, group);
    if (exposed !== undefined) complain(exposed, group.length === 1 ? uris[0]!.disk : undefined);
  }
  return servers;
}

/** What it means that an address is not this machine's alone; undefined if nobody can write a disk there. */
function exposedLine(address: NbdAddress, parts: Exporter["parts"]): string | undefined {
  const writable = parts.filter(({ part: { backend }, disk: { plan } }) => !plan.readOnly && backend.readOnly !== true);
  if (address.transport === "unix" || isLocalAddress(address) || writable.length === 0) return undefined;
  const disks = writable.map(({ disk: { plan } }) => plan.source.text).join(" and ");
  const where = formatNbdAddress(address);
  return `${where}: whoever can reach this address can read and write ${disks}, as nobody is asked for a password and ` +
    `nothing is encrypted; for this machine alone: --nbd 127.0.0.1:${address.port}, or unix:PATH; for others: a firewall ` +
    "that keeps strangers out, or --read-only";
}

/** Ctrl-C and SIGTERM end them. */
export function closeAtSignals(servers: readonly Exporter[]): Disposable {
  const close = () => {
    for (const { server } of servers) void server.close();
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  if (servers.length > 0) { for (const name of signals) Deno.addSignalListener(name, close); }
  return {
    [Symbol.dispose]: () => {
      if (servers.length > 0) { for (const name of signals) Deno.removeSignalListener(name, close); }
    },
  };
}
