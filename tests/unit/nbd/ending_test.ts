// SPDX-License-Identifier: MIT
// A server whose disk does not answer: it ends all the same, and the disk is told when nobody waits any more.
import { assert, assertEquals } from "@std/assert";
import { existsSync } from "@std/fs";
import type { Backend } from "../../../src/disk/backend.ts";
import { Fault } from "../../../src/filters/fault.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { RawClient } from "./raw_client.ts";
import { recorder, serveOne } from "./recorder.ts";

/** What a server gives its clients, its disk after them, and the close() of a disk that has left requests open. */
const CLOSE_MS = 10_000 + 1_000 + 10_000;

/** Waits for what happens within that time. */
async function isWithin(ms: number, condition: () => boolean): Promise<boolean> {
  for (const endMs = performance.now() + ms; performance.now() < endMs;) {
    if (condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return condition();
}

/** A disk whose reads end when their signal is aborted. */
function patient(): { readonly disk: Backend; readonly open: () => number } {
  let open = 0;
  const disk = recorder(2 ** 20, {
    read: (_buffer, _offset, { signal }) =>
      new Promise((_, reject) => {
        open++;
        signal.addEventListener("abort", () => {
          open--;
          reject(signal.reason);
        });
      }),
  });
  return { disk, open: () => open };
}

Deno.test("NBD server: a disk that does not answer, or does not close, does not keep close() for longer than it says", async () => {
  const never = () => new Promise<void>(() => {});
  const hanging = new Fault(recorder(2 ** 21), { kind: "hang" });
  const deaf = recorder(2 ** 21, { read: never, close: never });
  let goOn = () => {};
  const slow = recorder(2 ** 21, {
    limits: { maxIoBytes: 2 ** 20 },
    read: () => (slow.calls.push("read"), new Promise<void>((resolve) => goOn = resolve)),
  });
  const servers = await Promise.all([hanging, deaf, slow].map((disk) => serveOne(disk)));
  const clients = await Promise.all(servers.map(({ path }) => RawClient.open(path)));
  // Of which a disk does not take more than 1 MiB at once.
  for (const client of clients) await client.send(p.NBD_CMD_READ, { length: 2 ** 20 + 512 });
  assert(await isWithin(1_000, () => hanging.hits === 1 && slow.calls.length === 1));
  const beganMs = performance.now();
  const tookMs = [0, 0, 0];
  servers.forEach(({ server }, i) => void server.close().then(() => tookMs[i] = performance.now() - beganMs));
  assert(await isWithin(CLOSE_MS + 3_000, () => tookMs.every((ms) => ms > 0)), `${tookMs} ms`);
  assert(Math.max(tookMs[0]!, tookMs[2]!) < 12_000, `${tookMs} ms`); // Fault.close() fails what hangs
  goOn(); // too late: a disk that is closed is asked for no further part
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(slow.calls, ["read", "close destroyed"]);
  const where = servers.map(({ path }) => `unix:${path}`);
  const open = "1 requests have no answer from their disk, which is closed without";
  assertEquals(servers.map(({ said }) => said), [
    [`${where[0]}: 1 clients are cut off`, `${where[0]}: ${open}`],
    [
      `${where[1]}: 1 clients are cut off`,
      `${where[1]}: ${open}`,
      "close() of the backend has not returned after 10 s: it is not waited for any longer",
    ],
    [`${where[2]}: 1 clients are cut off`, `${where[2]}: ${open}`],
  ]);
  for (const client of clients) client.wire.close();
});

Deno.test("NBD server: a request's signal is aborted when its client disconnects, and its place is free then", async () => {
  const { disk, open } = patient();
  await using served = await serveOne(disk);
  const client = await RawClient.open(served.path);
  await client.send(p.NBD_CMD_READ, { length: 512 });
  assert(await isWithin(1_000, () => open() === 1));
  client.wire.close();
  assert(await isWithin(1_000, () => open() === 0 && served.server.connectionCount === 0));
});

Deno.test("NBD server: a request's signal is aborted when its client is cut off amid a message of more", async () => {
  const { disk, open } = patient();
  await using served = await serveOne(disk);
  const client = await RawClient.open(served.path);
  await client.send(p.NBD_CMD_READ, { length: 512 });
  assert(await isWithin(1_000, () => open() === 1));
  await client.wire.write(client.bytesOf(p.NBD_CMD_READ, { length: 512 }).subarray(0, 20));
  client.wire.close();
  assert(await isWithin(1_000, () => open() === 0 && served.server.connectionCount === 0));
});

Deno.test("NBD server: what is open at DISC is answered, and its signal is not aborted", async () => {
  const signals: AbortSignal[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const disk = recorder(2 ** 20, { read: (_buffer, _offset, { signal }) => (signals.push(signal), promise) });
  await using served = await serveOne(disk);
  using client = await RawClient.open(served.path);
  await client.send(p.NBD_CMD_READ, { length: 512 });
  await client.send(p.NBD_CMD_DISC);
  assert(await isWithin(1_000, () => signals.length === 1));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(signals[0]!.aborted, false);
  resolve();
  assertEquals((await client.reply(512)).error, 0);
  assert(await client.isAtEnd());
});

Deno.test("NBD server: one that is ending leaves its path to the next, and does not take it away at its end", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const calls: string[] = [];
  const disk = recorder(2 ** 20, { read: () => (calls.push("read"), promise) });
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const first = await serveNbd({ disk }, { address: `unix:${path}` });
  using client = await RawClient.open(path);
  await client.send(p.NBD_CMD_READ, { length: 512 });
  assert(await isWithin(1_000, () => calls.length === 1));
  const closed = first.close();
  assert(await isWithin(1_000, () => !existsSync(path)));
  await using _second = await serveNbd({ disk: recorder() }, { address: `unix:${path}` });
  resolve();
  await closed;
  using other = await RawClient.open(path);
  assertEquals(await other.ask(p.NBD_CMD_FLUSH), 0);
});
