// SPDX-License-Identifier: MIT
// The client's connections when the server behind them changes: how many there may be, and what is sent again and when.
import { assert, assertEquals } from "@std/assert";
import { NbdBackend, requestOptions } from "../../../src/mod.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { FakeServer } from "./fake_server.ts";
import { until } from "../until.ts";

const plain = requestOptions();
const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const quiet = { log: () => {} };

Deno.test("NbdBackend: a next server that does not allow several connections gets one, and the one after it several", async () => {
  const flush = p.NBD_FLAG_SEND_FLUSH;
  using server = await FakeServer.start(flush | p.NBD_FLAG_CAN_MULTI_CONN);
  const client = await NbdBackend.open(server.uri, quiet);
  await until(() => server.connections.length === 4);
  server.restart(flush);
  await client.flush!(plain);
  let most = 0;
  for (let n = 0; n < 300; n++) {
    await later(5);
    most = Math.max(most, server.openCount);
  }
  assertEquals(most, 1);
  assertEquals(server.connections.length, 5);
  server.restart(flush | p.NBD_FLAG_CAN_MULTI_CONN);
  await client.flush!(plain);
  await until(() => server.connections.length === 9);
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

/** A client with two connections to a server that answers when it is told: a WRITE and a READ on the first, a READ on the second. */
async function threeOpen(server: FakeServer) {
  const client = await NbdBackend.open(server.uri, { ...quiet, connections: 2 });
  const read = () => client.read(new Uint8Array(512), 0);
  while (server.connections.filter(({ asked }) => asked.length > 0).length < 2) await Promise.all([read(), read()]);
  for (const { asked } of server.connections) asked.length = 0;
  server.isQuick = false;
  const write = client.write(new Uint8Array(512), 0, plain);
  const other = client.read(new Uint8Array(512), 512);
  const refused = client.read(new Uint8Array(512), 1024);
  const all = () => server.connections.flatMap(({ asked }) => asked);
  await until(() => all().length === 3);
  const [one, two] = server.connections[0]!.asked.length === 2 ? server.connections : server.connections.toReversed();
  return { client, write, other, refused, all, one: one!, two: two! };
}

Deno.test("NbdBackend: what a server that is ending still does is not sent again before that connection has ended", async () => {
  using server = await FakeServer.start(p.NBD_FLAG_CAN_MULTI_CONN);
  const { client, write, other, refused, all, one, two } = await threeOpen(server);
  assertEquals(one.asked.map(({ command }) => command), [p.NBD_CMD_WRITE, p.NBD_CMD_READ]);
  await one.asked[1]!.answer(p.NBD_ESHUTDOWN);
  await later(100);
  const next = client.read(new Uint8Array(512), 2048);
  await until(() => all().length === 4);
  assertEquals([one.isOpen, one.asked.length, two.asked.length], [true, 2, 2]); // nothing new there
  // Its answer is taken, and the connection is left: only what it has refused is sent again.
  await one.asked[0]!.answer();
  await write;
  await until(() => !one.isOpen && all().length === 5);
  assertEquals(all().filter(({ command }) => command === p.NBD_CMD_WRITE).length, 1);
  for (const asked of all()) if (asked !== one.asked[0] && asked !== one.asked[1]) await asked.answer();
  await Promise.all([other, refused, next]);
  await client.close();
});

Deno.test("NbdBackend: what a server that is ending has not answered is sent again when it has ended the connection", async () => {
  using server = await FakeServer.start(p.NBD_FLAG_CAN_MULTI_CONN);
  const { client, write, other, refused, all, one, two } = await threeOpen(server);
  await one.asked[1]!.answer(p.NBD_ESHUTDOWN);
  await later(50);
  assertEquals(all().length, 3);
  one.close();
  await until(() => all().length === 5);
  for (const asked of all()) if (!one.asked.includes(asked)) await asked.answer();
  await Promise.all([write, other, refused]);
  assertEquals(two.isOpen, true);
  await client.close();
});

Deno.test("NbdBackend: a server that says that it is ending, and does not end, is waited for no longer than 10 s", async () => {
  using server = await FakeServer.start(p.NBD_FLAG_CAN_MULTI_CONN);
  const { client, write, other, refused, all, one } = await threeOpen(server);
  await one.asked[1]!.answer(p.NBD_ESHUTDOWN);
  const beganMs = performance.now();
  while (one.isOpen && performance.now() - beganMs < 13_000) await later(20);
  assert(!one.isOpen);
  assert(performance.now() - beganMs > 9_000);
  await until(() => all().length === 5);
  for (const asked of all()) if (!one.asked.includes(asked)) await asked.answer();
  await Promise.all([write, other, refused]);
  await client.close();
});
