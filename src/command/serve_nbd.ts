// SPDX-License-Identifier: MIT
/** Disks of `dblock serve --nbd`: one server for each address. */
import { formatNbdUri } from "../nbd/address.ts";
import { type NbdServer, serveNbd } from "../nbd/server.ts";
import { exportNames } from "./disk_plan.ts";
import { logOptionsOf } from "./log.ts";
import type { NbdPart, ServedDisk } from "./served_disk.ts";

/** A server, and what is behind it. */
export interface Exporter {
  readonly server: NbdServer;
  readonly uris: readonly string[];
  readonly parts: readonly { readonly disk: ServedDisk; readonly part: NbdPart; readonly name: string }[];
}

/** One NBD server for each address, with all disks that go there. */
export async function startServers(disks: readonly ServedDisk[], signal: AbortSignal): Promise<Exporter[]> {
  const names = exportNames(disks.map(({ plan }) => plan));
  const parts = disks.flatMap((disk) => disk.nbdParts.map((part) => ({ disk, part, name: names.get(part.exit)! })));
  const groups = Map.groupBy(parts, ({ part }) => JSON.stringify(part.exit.address));
  const servers: Exporter[] = [];
  for (const group of groups.values()) {
    const exports = Object.fromEntries(group.map(({ part, name }) => [name, part.backend]));
    const server = await serveNbd(exports, { address: group[0]!.part.exit.address, signal, ...logOptionsOf() });
    const uris = server.exportNames.map((exportName) =>
      formatNbdUri({ address: server.address, exportName, tls: false })
    );
    servers.push({ server, uris, parts: group });
  }
  return servers;
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
