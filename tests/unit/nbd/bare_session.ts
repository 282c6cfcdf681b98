// SPDX-License-Identifier: MIT
/** One connection of the NBD server, without the server. */
import type { Backend } from "../../../src/disk/backend.ts";
import { describeExport, exportOf, geometryOf } from "../../../src/nbd/export.ts";
import { BufferPool } from "../../../src/nbd/pool.ts";
import { Session, type SessionOptions } from "../../../src/nbd/session.ts";
import { ConnWire } from "../../../src/nbd/wire.ts";
import { RawClient } from "./raw_client.ts";

/** A session without a handshake, and its client. */
export interface BareSession {
  readonly session: Session;
  readonly client: RawClient;
  /** What the client speaks through. */
  readonly conn: Deno.UnixConn;
  /** Of the socket at which the server's end was accepted, which bears it. */
  readonly path: string;
  /** When the session has ended. */
  readonly ended: Promise<void>;
}

/** Opens one. */
export async function openSession(
  backend: Backend,
  { pool = new BufferPool(2 ** 20), ...options }: Partial<Pick<SessionOptions, "pool" | "lanes">> = {},
): Promise<BareSession> {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/nbd.sock`;
  using listener = Deno.listen({ transport: "unix", path });
  const [conn, accepted] = await Promise.all([Deno.connect({ transport: "unix", path }), listener.accept()]);
  const one = exportOf("disk", backend, false);
  const negotiated = { export: describeExport(one), structured: false, extended: false, hasAllocation: false };
  const wire = new ConnWire(accepted as unknown as Deno.Conn, { isAccepted: true });
  await Deno.remove(dir, { recursive: true });
  const geometry = geometryOf(one, one.sizeBytes);
  const session = new Session({ wire, negotiated, backend: one.backend, geometry, pool, log: () => {}, ...options });
  const client = new RawClient(new ConnWire(conn as unknown as Deno.Conn));
  const ended = session.run(new Uint8Array(0));
  return { session, client, conn: conn as unknown as Deno.UnixConn, path, ended };
}
