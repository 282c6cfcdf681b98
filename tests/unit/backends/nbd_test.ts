// SPDX-License-Identifier: MIT
// The client of NBD against our own server, and against ends of connections that say what no server says.
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Backend, DblockError, NbdBackend, type NbdBackendOptions, requestOptions } from "../../../src/mod.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { makeCertificates } from "../nbd/certificates.ts";
import { recorder, serveOne, striped } from "../nbd/recorder.ts";

const plain = requestOptions();

function uriOf(path: string, name = "disk"): string {
  return `nbd+unix:///${name}?socket=${path}`;
}

async function codeOf(promise: Promise<unknown> | unknown): Promise<string> {
  try {
    await promise;
    return "";
  } catch (error) {
    return (error as DblockError).code;
  }
}

Deno.test("NbdBackend: each request reaches the server's disk, with its flags", async () => {
  const disk = recorder(2 ** 22, { fua: true, extents: striped(65536, 2 ** 22) });
  await using served = await serveOne(disk);
  const client = await NbdBackend.open(uriOf(served.path));
  assertEquals([client.sizeBytes, client.readOnly, client.fua], [2 ** 22, false, true]);
  const data = Uint8Array.from({ length: 300_032 }, (_, i) => i * 31 + (i >> 9));
  await client.write(data, 512, requestOptions({ fua: true }));
  const back = new Uint8Array(data.length);
  await client.read(back, 512);
  assertEquals(back, data);
  await client.flush!(plain);
  await client.discard!(8192, 4096, plain);
  await client.writeZeroes!(0, 512, requestOptions({ keepAllocated: true }));
  assertEquals(disk.calls, [
    "write 512+300032 fua",
    "read 512+300032",
    "flush",
    "discard 8192+4096",
    "zero 0+512 keep",
  ]);
  assertEquals(await client.extents!(65536, 131_072, plain), [
    { lengthBytes: 65536, kind: "data" },
    { lengthBytes: 65536, kind: "zero" },
  ]);
  await client.close();
});

Deno.test("NbdBackend has what the server offers, and no more", async () => {
  const least: Backend = {
    sizeBytes: 8192,
    readOnly: true,
    limits: { blockBytes: 4096 },
    read: () => {},
    write: () => {},
  };
  await using served = await serveOne(least);
  const client = await NbdBackend.open(uriOf(served.path, ""));
  assertEquals([client.readOnly, client.discard, client.writeZeroes, client.fua], [true, undefined, undefined, false]);
  assertEquals(client.limits.blockBytes, 4096);
  await client.close();
});

Deno.test("NbdBackend: errors of the server are its own", async () => {
  for (
    const [code, expected] of [["ENOSPC", "ENOSPC"], ["EIO", "EIO"], ["EPERM", "EPERM"], ["ENODATA", "EIO"]] as const
  ) {
    const fail = () => {
      throw new DblockError(code);
    };
    await using served = await serveOne(recorder(2 ** 20, { read: fail, write: fail }));
    const client = await NbdBackend.open(uriOf(served.path));
    assertEquals(await codeOf(client.read(new Uint8Array(512), 0)), expected);
    assertEquals(await codeOf(client.write(new Uint8Array(200_192), 0, plain)), expected);
    await client.close();
  }
});

Deno.test("NbdBackend.open() says what is wrong, with the errno of it", async () => {
  await using served = await serveOne(recorder());
  const code = (uri: string, options?: NbdBackendOptions) => codeOf(NbdBackend.open(uri, options));
  assertEquals(await code(uriOf(served.path, "other")), "ENOENT");
  assertEquals(await code(uriOf("/nonexistent.sock")), "ENOENT");
  assertEquals(await code("nbd://127.0.0.1:1/disk"), "ECONNREFUSED");
  assertEquals(await code(uriOf(served.path).replace("nbd", "nbds")), "EACCES");
  assertEquals(await code("http://x"), "EINVAL");
  const path = `${await Deno.makeTempDir()}/other.sock`;
  using listener = Deno.listen({ transport: "unix", path });
  const answer = (async () => {
    const conn = await listener.accept();
    await conn.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
    conn.close();
  })();
  assertEquals(await code(uriOf(path)), "EPROTO");
  await answer;
});

Deno.test("NbdBackend: TLS, with and without a certificate of the client", async () => {
  const dir = await Deno.makeTempDir();
  const { authority, server, client } = await makeCertificates(dir);
  await using served = await serveOne(recorder(), { tls: { ...server, clientAuthority: authority.certificate } });
  const uri = uriOf(served.path).replace("nbd", "nbds");
  const known = await NbdBackend.open(`${uri}&tls-certificates=${dir}`);
  const data = crypto.getRandomValues(new Uint8Array(65_536));
  await known.write(data, 0, plain);
  const back = new Uint8Array(data.length);
  await known.read(back, 0);
  assertEquals(back, data);
  await known.close();
  const authorityOnly = { authority: authority.certificate };
  await assertRejects(() => NbdBackend.open(uri, { tls: authorityOnly }));
  await assertRejects(() => NbdBackend.open(uri, { tls: { ...client } })); // who has signed the server's?
  await assertRejects(() => NbdBackend.open(uriOf(served.path)), DblockError, "the server wants TLS");
  await Deno.remove(dir, { recursive: true });
});

Deno.test("NbdBackend: requests wait for a server that has gone, and go on", async () => {
  const dir = await Deno.makeTempDir();
  const address = `unix:${dir}/nbd.sock`;
  const asked = Promise.withResolvers<void>();
  // A server that is ending says so to each request.
  const ending = recorder(2 ** 20, {
    read() {
      asked.resolve();
      throw new DblockError("ENODEV");
    },
  });
  const first = await serveNbd({ disk: ending }, { address });
  const said: string[] = [];
  const client = await NbdBackend.open(uriOf(`${dir}/nbd.sock`), { log: (line) => said.push(line) });
  const unanswered = client.read(new Uint8Array(512), 0);
  await asked.promise;
  await first.close();
  const waiting = client.write(new Uint8Array(512).fill(9), 512, plain);
  const second = recorder();
  second.store.fill(5);
  await using _server = await serveNbd({ disk: second }, { address });
  await Promise.all([unanswered, waiting]);
  assertEquals(second.calls.filter((call) => !call.startsWith("close")).sort(), ["read 0+512", "write 512+512"]);
  assert(said[0]!.includes("requests wait 60 s") && said[1]!.includes("the server is back"), said.join("\n"));
  await client.close();
});

Deno.test("NbdBackend: after reconnectTimeoutMs requests fail with ENOLINK, until the server is back", async () => {
  const dir = await Deno.makeTempDir();
  const address = `unix:${dir}/nbd.sock`;
  const first = await serveNbd({ disk: recorder() }, { address });
  const client = await NbdBackend.open(uriOf(`${dir}/nbd.sock`), { reconnectTimeoutMs: 200, log: () => {} });
  await first.close();
  assertEquals(await codeOf(client.read(new Uint8Array(512), 0)), "ENOLINK");
  assertEquals(await codeOf(client.flush!(plain)), "ENOLINK"); // at once
  // A smaller disk is another one.
  const other = await serveNbd({ disk: recorder(4096) }, { address });
  await new Promise((resolve) => setTimeout(resolve, 300));
  assertEquals(await codeOf(client.read(new Uint8Array(512), 0)), "ENOLINK");
  await other.close();
  await using _back = await serveNbd({ disk: recorder() }, { address });
  while (await codeOf(client.read(new Uint8Array(512), 0)) !== "") {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await client.close();
});

Deno.test("NbdBackend: close() ends what waits, also while there is no server", async () => {
  const dir = await Deno.makeTempDir();
  const first = await serveNbd({ disk: recorder() }, { address: `unix:${dir}/nbd.sock` });
  const client = await NbdBackend.open(uriOf(`${dir}/nbd.sock`), { log: () => {} });
  await first.close();
  const code = codeOf(client.read(new Uint8Array(512), 0));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await client.close();
  assertEquals([await code, await codeOf(client.read(new Uint8Array(512), 0))], ["ENODEV", "ENODEV"]);
});

/** A server that shakes hands without structured replies, and answers the first READ with `reply(cookie)`. */
async function liar(
  reply: (cookie: Uint8Array) => Uint8Array,
): Promise<{ path: string; connections: () => number } & Disposable> {
  const path = `${await Deno.makeTempDir()}/liar.sock`;
  const listener = Deno.listen({ transport: "unix", path });
  let connections = 0;
  const serve = async (conn: Deno.UnixConn) => {
    connections++;
    const read = async (count: number) => {
      const bytes = new Uint8Array(count);
      for (let done = 0; done < count;) {
        const some = await conn.read(bytes.subarray(done));
        if (some === null) throw new Error("gone");
        done += some;
      }
      return new DataView(bytes.buffer);
    };
    const greeting = new DataView(new ArrayBuffer(18));
    greeting.setBigUint64(0, p.NBDMAGIC);
    greeting.setBigUint64(8, p.IHAVEOPT);
    greeting.setUint16(16, 3);
    await conn.write(new Uint8Array(greeting.buffer));
    await read(4);
    for (;;) {
      const head = await read(16);
      const option = head.getUint32(8);
      await read(head.getUint32(12));
      if (option === p.NBD_OPT_EXPORT_NAME) break;
      const answer = new DataView(new ArrayBuffer(20));
      answer.setBigUint64(0, p.NBD_REP_MAGIC);
      answer.setUint32(8, option);
      answer.setUint32(12, p.NBD_REP_ERR_UNSUP);
      await conn.write(new Uint8Array(answer.buffer));
    }
    const size = new DataView(new ArrayBuffer(10));
    size.setBigUint64(0, 65536n);
    size.setUint16(8, p.NBD_FLAG_HAS_FLAGS);
    await conn.write(new Uint8Array(size.buffer));
    const request = await read(28);
    await conn.write(reply(new Uint8Array(request.buffer, 8, 8)));
    await read(1);
  };
  void (async () => {
    for await (const conn of listener) serve(conn).catch(() => {}).finally(() => conn.close());
  })();
  return { path, connections: () => connections, [Symbol.dispose]: () => listener.close() };
}

Deno.test("NbdBackend: an old server without GO is understood, and one that lies is asked again and no longer than stated", async () => {
  const simple = (magic: number, error: number, cookie: Uint8Array, data = 0) => {
    const bytes = new Uint8Array(16 + data).fill(7);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, magic);
    view.setUint32(4, error);
    bytes.set(cookie, 8);
    return bytes;
  };
  {
    using old = await liar((cookie) => simple(p.NBD_SIMPLE_REPLY_MAGIC, 0, cookie, 512));
    const client = await NbdBackend.open(uriOf(old.path), { log: () => {} });
    assertEquals([client.sizeBytes, client.flush, old.connections()], [65536, undefined, 1]);
    const back = new Uint8Array(512);
    await client.read(back, 0);
    assertEquals(back[511], 7);
    await client.close();
  }
  const lies: ((cookie: Uint8Array) => Uint8Array)[] = [
    (cookie) => simple(1, 0, cookie, 512),
    () => simple(p.NBD_SIMPLE_REPLY_MAGIC, 0, new Uint8Array(8).fill(9)),
    (cookie) => simple(p.NBD_STRUCTURED_REPLY_MAGIC, 0, cookie, 512),
    (cookie) => simple(p.NBD_SIMPLE_REPLY_MAGIC, p.NBD_ESHUTDOWN, cookie),
  ];
  for (const lie of lies) {
    using server = await liar(lie);
    const client = await NbdBackend.open(uriOf(server.path), { log: () => {}, reconnectTimeoutMs: 1000 });
    assertEquals(await codeOf(client.read(new Uint8Array(512), 0)), "ENOLINK");
    assert(server.connections() > 1 && server.connections() < 20, `${server.connections()} connections`);
    await client.close();
  }
});
