// SPDX-License-Identifier: MIT
// The client's connections when the server behind them changes: how many there may be, and what is sent again and when.
import { assert, assertEquals } from "@std/assert";
import { NbdBackend, requestOptions } from "../../../src/mod.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { FakeServer } from "./fake_server.ts";

const plain = requestOptions();
const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const quiet = { log: () => {} };

/** Waits for what happens soon. */
async function until(condition: () => boolean): Promise<void> {
  for (let n = 0; n < 1_000 && !condition(); n++) await later(5);
  assert(condition());
}

Deno.test("NbdBackend: a next server that does not allow several connections gets one, and the one after it several", async () => {
  const flush = p.NBD_FLAG_SEND_FLUSH;
  using server = await FakeServer.start(flush | p.NBD_FLAG_CAN_MULTI_CONN);
  const client = await NbdBackend.open(server.uri, quiet);
  await until(() => server.openCount === 4);
  server.restart(flush);
  await client.flush!(plain);
  let most = 0;
  for (let n = 0; n < 300; n++) {
    await later(5);
    most = Math.max(most, server.openCount);
  }
  assertEquals(most, 1);
  const alone = server.connections.length;
  assertEquals(alone, 5);
  server.restart(flush | p.NBD_FLAG_CAN_MULTI_CONN);
  await client.flush!(plain);
  await until(() => server.openCount === 4);
  await client.close();
});

Deno.test("NbdBackend: a server that cannot be used together with the one before waits until that one has gone", async () => {
  using server = await FakeServer.start(p.NBD_FLAG_CAN_MULTI_CONN);
  const client = await NbdBackend.open(server.uri, quiet);
  await until(() => server.connections.length === 4);
  // The process is replaced while its predecessor still answers on three connections.
  server.flags = 0;
  server.connections[0]!.close();
  await later(200);
  await Promise.all(Array.from({ length: 20 }, () => client.read(new Uint8Array(512), 0)));
  assert(server.connections.slice(4).every(({ asked }) => asked.length === 0));
  for (const connection of server.connections.slice(0, 4)) connection.close();
  await client.read(new Uint8Array(512), 0);
  assertEquals(server.connections.filter(({ isOpen }) => isOpen).length, 1);
  await client.close();
});

Deno.test("NbdBackend: a next server may be no longer read-only or rotational, or have no command that is not used", async () => {
  using server = await FakeServer.start(
    p.NBD_FLAG_SEND_FLUSH | p.NBD_FLAG_READ_ONLY | p.NBD_FLAG_ROTATIONAL | p.NBD_FLAG_SEND_CACHE,
  );
  const client = await NbdBackend.open(server.uri, { ...quiet, reconnectTimeoutMs: 1_000 });
  server.restart(p.NBD_FLAG_SEND_FLUSH);
  await client.flush!(plain);
  // What the disk does is another thing.
  server.restart(p.NBD_FLAG_SEND_TRIM);
  assertEquals(await Promise.resolve(client.flush!(plain)).then(() => "", ({ code }) => code), "ENOLINK");
  await client.close();
});
