// SPDX-License-Identifier: MIT
// A server as a whole: its exports, its socket, TLS, its bounds, and its end.
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { ConnectionOptions } from "node:tls";
import { type Backend, DblockError, MemoryBackend } from "../../../src/mod.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { TlsWire } from "../../../src/nbd/wire.ts";
import { servers } from "../../../src/system/servers.ts";
import { makeCertificates } from "./certificates.ts";
import { RawClient } from "./raw_client.ts";
import { recorder, serveOne } from "./recorder.ts";
import { until } from "../until.ts";

/** A disk whose writes are answered when `go()` is called. */
function slowDisk(): { readonly disk: Backend; readonly waiting: number; go(): void } {
  const open: (() => void)[] = [];
  return {
    disk: recorder(2 ** 26, { write: () => new Promise((resolve) => void open.push(() => resolve())) }),
    get waiting() {
      return open.length;
    },
    go: () => open.splice(0).forEach((resolve) => resolve()),
  };
}

Deno.test("serveNbd() has several exports by name, and lists them", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const disks = { one: recorder(2 ** 20), two: recorder(2 ** 21) };
  await using server = await serveNbd(disks, { address: `unix:${path}` });
  assertEquals([server.exportNames, server.address], [["one", "two"], { transport: "unix", path }]);
  assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
  using client = await RawClient.connect(path);
  const listed = (await client.option(p.NBD_OPT_LIST)).map(({ data }) => new TextDecoder().decode(data.slice(4)));
  assertEquals(listed, ["one", "two", ""]);
  await client.start({ name: "two" });
  assertEquals(client.sizeBytes, 2 ** 21);
  using nameless = await RawClient.connect(path);
  await assertRejects(() => nameless.start({}), Error); // there is no default among several
});

Deno.test("serveNbd() closes the backends, whether or not it began", async () => {
  const disks = { a: recorder(), b: recorder(100) };
  await assertRejects(() => serveNbd(disks, { address: "unix:/nonexistent/x" }), DblockError, "sizeBytes");
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const fine = recorder();
  await assertRejects(() => serveNbd({ fine }, { address: `unix:/nonexistent${path}` }), DblockError, "Cannot listen");
  assertEquals([disks.a.calls, fine.calls], [["close destroyed"], ["close destroyed"]]);
  await using served = await serveOne(recorder());
  const second = recorder();
  await assertRejects(
    () => serveNbd({ second }, { address: `unix:${served.path}` }),
    DblockError,
    "another server has it",
  );
  assertEquals(second.calls, ["close destroyed"]);
  using client = await RawClient.open(served.path); // the first one is still there
  assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
});

Deno.test("serveNbd() leaves a file or a folder alone that has the name of its socket, and says what is there", async () => {
  const path = await Deno.makeTempDir();
  const { message } = await assertRejects(
    () => serveNbd({ disk: recorder() }, { address: `unix:${path}` }),
    DblockError,
  );
  assertStringIncludes(message, "there is a file or folder of that name, and no socket (take another path)");
  await Deno.remove(path); // it is still there
});

Deno.test("serveNbd() takes the place of a socket that a killed server has left", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const script = `Deno.listen({ transport: "unix", path: "${path}" }); Deno.kill(Deno.pid, "SIGKILL")`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
  assert(Deno.lstatSync(path).isSocket);
  await using _server = await serveNbd({ disk: recorder() }, { address: `unix:${path}` });
  using client = await RawClient.open(path);
  assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
});

Deno.test("serveNbd() on a port that is free tells which one it is", async () => {
  await using server = await serveNbd({ disk: recorder() }, { address: "127.0.0.1:0" });
  assert(server.address.transport === "tcp" && server.address.port > 0);
});

Deno.test("NBD server: new connections see a resize, and open ones keep the size they were told", async () => {
  const sizes: number[] = [];
  const disk = recorder(2 ** 21, { sizeBytes: 2 ** 20, resize: (sizeBytes) => void sizes.push(sizeBytes) });
  await using served = await serveOne(disk);
  using before = await RawClient.open(served.path);
  await served.server.resize("disk", 2 ** 21);
  using after = await RawClient.open(served.path);
  assertEquals([before.sizeBytes, after.sizeBytes, sizes], [2 ** 20, 2 ** 21, [2 ** 21]]);
  assertEquals(await before.ask(p.NBD_CMD_READ, { offset: 2 ** 20, length: 512 }), p.NBD_EINVAL);
  assertEquals(await after.ask(p.NBD_CMD_READ, { offset: 2 ** 20, length: 512 }), 0);
  await assertRejects(() => served.server.resize("disk", 4096), DblockError, "have the larger disk open");
  await assertRejects(() => served.server.resize("other", 4096), DblockError, "no such export");
  await assertRejects(() => served.server.resize("disk", 100), DblockError, "multiple of 512");
  before.wire.close();
  after.wire.close();
  await until(() => served.server.connectionCount === 0);
  await served.server.resize("disk", 2 ** 19);
  using small = await RawClient.open(served.path);
  assertEquals(small.sizeBytes, 2 ** 19);
});

Deno.test("NBD server: TLS required, allowed, and with certificates of clients", async () => {
  const dir = await Deno.makeTempDir();
  const { authority, server, client, stranger } = await makeCertificates(dir);
  const encrypt = async (raw: RawClient, options: ConnectionOptions = {}) => {
    assertEquals((await raw.option(p.NBD_OPT_STARTTLS))[0]!.type, p.NBD_REP_ACK);
    raw.wire = await TlsWire.connect(raw.wire, { ca: authority.certificate, servername: "localhost", ...options });
  };
  for (const mode of ["required", "allowed"] as const) {
    await using served = await serveOne(recorder(), { tls: { mode, ...server } });
    using plain = await RawClient.connect(served.path);
    const answer = (await plain.option(p.NBD_OPT_LIST))[0]!.type;
    assertEquals(answer, mode === "required" ? p.NBD_REP_ERR_TLS_REQD : p.NBD_REP_SERVER);
    using raw = await RawClient.connect(served.path);
    await encrypt(raw);
    await raw.start({ structured: true });
    const payload = crypto.getRandomValues(new Uint8Array(65_536));
    assertEquals(await raw.ask(p.NBD_CMD_WRITE, { offset: 4096, payload }), 0);
    assertEquals(await raw.content(4096, payload.length), payload);
  }
  await using served = await serveOne(recorder(), { tls: { ...server, clientAuthority: authority.certificate } });
  for (const identity of [undefined, stranger]) {
    using raw = await RawClient.connect(served.path);
    await assertRejects(async () => {
      await encrypt(raw, identity === undefined ? {} : { cert: identity.certificate, key: identity.key });
      await raw.start({});
    });
  }
  using known = await RawClient.connect(served.path);
  await encrypt(known, { cert: client.certificate, key: client.key });
  await known.start({});
  assertEquals(await known.ask(p.NBD_CMD_FLUSH), 0);
  await using off = await serveOne(recorder());
  using raw = await RawClient.connect(off.path);
  assertEquals((await raw.option(p.NBD_OPT_STARTTLS))[0]!.type, p.NBD_REP_ERR_POLICY);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("NBD server: the payloads of all connections fit into memoryBytes, and each is answered in the end", async () => {
  const slow = slowDisk();
  await using served = await serveOne(slow.disk, { memoryBytes: 2 ** 20 });
  const clients = await Promise.all(Array.from({ length: 8 }, () => RawClient.open(served.path)));
  const payload = new Uint8Array(131_072);
  const sent = clients.map(async (client) => {
    for (let n = 0; n < 4; n++) await client.send(p.NBD_CMD_WRITE, { offset: n * payload.length, payload });
  });
  await until(() => slow.waiting === 8);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(slow.waiting, 8); // 8 of 128 KiB are 1 MiB
  const answered = clients.map(async (client) => {
    for (let n = 0; n < 4; n++) assertEquals((await client.reply()).error, 0);
    client.wire.close();
  });
  const timer = setInterval(() => slow.go(), 1);
  await Promise.all([...sent, ...answered]);
  clearInterval(timer);
});

Deno.test("NBD server: one client that is too many is cut off, and the others are not", async () => {
  await using served = await serveOne(recorder(), { connectionsMax: 2 });
  using first = await RawClient.open(served.path);
  const second = await RawClient.open(served.path);
  using third = await RawClient.open(served.path);
  assert(await third.isAtEnd());
  assertEquals([await first.ask(p.NBD_CMD_FLUSH), await second.ask(p.NBD_CMD_FLUSH)], [0, 0]);
  for (let i = 0; i < 5; i++) {
    using more = await RawClient.open(served.path);
    assert(await more.isAtEnd());
  }
  assertEquals(served.said, ["A client was turned away: there are 2 already"]);
  second.wire.close();
  await until(() => served.server.connectionCount === 1);
  using fourth = await RawClient.open(served.path);
  assertEquals(await fourth.ask(p.NBD_CMD_FLUSH), 0);
  await served.server.close();
  assertEquals(served.said.map((line) => line.replace(/\d+ s$/, "N s")), [
    "A client was turned away: there are 2 already",
    "A client was turned away: there are 2 already; 5 more in the last N s",
  ]);
});

Deno.test("NBD server: close() answers what is open, takes nothing new, and leaves no socket", async () => {
  const slow = slowDisk();
  const calls: string[] = [];
  await using served = await serveOne({ ...slow.disk, close: (reason) => void calls.push(reason) });
  using client = await RawClient.open(served.path);
  using idle = await RawClient.open(served.path);
  using greeting = await RawClient.connect(served.path);
  await client.send(p.NBD_CMD_WRITE, { payload: new Uint8Array(4096) });
  await until(() => slow.waiting === 1);
  const closed = served.server.close();
  assert(await idle.isAtEnd());
  assert(await greeting.isAtEnd());
  await assertRejects(() => RawClient.connect(served.path));
  assertEquals(calls, []);
  slow.go();
  assertEquals((await client.reply()).error, 0);
  assert(await client.isAtEnd());
  await closed;
  assertEquals([calls, await Deno.lstat(served.path).catch(() => "none")], [["destroyed"], "none"]);
  await served.server.close(); // once more does nothing
  assertEquals(calls, ["destroyed"]);
});

Deno.test("NBD server: a client that does not read its answers does not keep close() for longer than it says", async () => {
  const said: string[] = [];
  const disk = new MemoryBackend({ sizeBytes: 2 ** 26 });
  await using served = await serveOne(disk, { log: (line) => said.push(line) });
  using client = await RawClient.open(served.path);
  for (let n = 0; n < 20; n++) await client.send(p.NBD_CMD_READ, { offset: 0, length: 2 ** 20 });
  await new Promise((resolve) => setTimeout(resolve, 100));
  await served.server.close();
  assertEquals(said, [`unix:${served.path}: 1 clients are cut off`]);
});

Deno.test("NBD server: who serves a queue in the same thread knows of its connections", async () => {
  const before = servers.count;
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  await using _server = await serveNbd({ disk: recorder() }, { address: `unix:${path}` });
  assertEquals(servers.count, before);
  {
    using _first = await RawClient.open(path);
    using _second = await RawClient.open(path);
    await until(() => servers.count === before + 2);
  }
  await until(() => servers.count === before);
});

Deno.test("NBD server: its signal ends it", async () => {
  const controller = new AbortController();
  const disk = recorder();
  await using served = await serveOne(disk, { signal: controller.signal });
  using client = await RawClient.open(served.path);
  controller.abort();
  assert(await client.isAtEnd());
  await served.server.closed;
  assertEquals(disk.calls, ["close destroyed"]);
});
