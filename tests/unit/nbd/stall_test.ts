// SPDX-License-Identifier: MIT
// For how long a client is silent where it may not be: what the server goes by when it cuts a client off.
import { assert, assertEquals } from "@std/assert";
import { BufferPool } from "../../../src/nbd/pool.ts";
import * as p from "../../../src/nbd/protocol.ts";
import type { Session } from "../../../src/nbd/session.ts";
import { openSession } from "./bare_session.ts";
import { recorder } from "./recorder.ts";

const SOON_MS = 20;
const later = () => new Promise((resolve) => setTimeout(resolve, SOON_MS));

const stalledMs = (session: Session) => session.stalledMs(performance.now());

Deno.test("Session: a client stalls amid a header, amid a payload and before its answers, not between requests", async () => {
  const { session, client, ended } = await openSession(recorder(), { pool: new BufferPool(2 ** 26) });
  await client.ask(p.NBD_CMD_FLUSH);
  await later();
  assertEquals(stalledMs(session), 0);
  const request = client.bytesOf(p.NBD_CMD_WRITE, { payload: new Uint8Array(300_032) });
  for (const [from, to] of [[0, 10], [10, 1000]] as const) {
    await client.wire.write(request.subarray(from, to));
    await later();
    const first = stalledMs(session);
    await later();
    assert(stalledMs(session) >= first + SOON_MS / 2, `${first} and then ${stalledMs(session)}`);
  }
  await client.wire.write(request.subarray(1000));
  assertEquals((await client.reply()).error, 0);
  await later();
  assertEquals(stalledMs(session), 0);
  for (let n = 0; n < 20; n++) await client.send(p.NBD_CMD_READ, { length: 2 ** 20 });
  await later();
  await later();
  assert(stalledMs(session) > 0);
  session.cut();
  await ended;
  client.wire.close();
});

Deno.test("Session: a client does not stall while the server waits for memory", async () => {
  const pool = new BufferPool(8192);
  const others = pool.acquire(8192)!;
  const { session, client, ended } = await openSession(recorder(), { pool });
  const request = client.bytesOf(p.NBD_CMD_READ, { length: 512 });
  await client.wire.write(request.subarray(0, 10));
  await later();
  await client.wire.write(request.subarray(10));
  for (let n = 0; stalledMs(session) > 0 && n < 1500; n++) await later(); // until it has come
  await later();
  assertEquals(stalledMs(session), 0);
  pool.release(others);
  assertEquals((await client.reply(512)).error, 0);
  client.wire.close();
  await ended;
});
