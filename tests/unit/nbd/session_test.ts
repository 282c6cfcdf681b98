// SPDX-License-Identifier: MIT
// Requests and replies over a real socket, as `serveNbd()` brings them to a backend.
import { assert, assertEquals } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { type Backend, WriteCache } from "../../../src/mod.ts";
import { openSession } from "./bare_session.ts";
import { RawClient, type RawStart } from "./raw_client.ts";
import { recorder, serveOne, striped } from "./recorder.ts";

const FORMS: readonly RawStart[] = [{}, { structured: true }, { extended: true }];
const GIB = 2 ** 30;

Deno.test("NBD: each command reaches the backend, in each form of replies", async () => {
  for (const form of FORMS) {
    const disk = recorder();
    await using served = await serveOne(disk);
    using client = await RawClient.open(served.path, form);
    assertEquals(client.sizeBytes, 2 ** 20);
    const payload = Uint8Array.from({ length: 4096 }, (_, i) => i * 7);
    assertEquals(await client.ask(p.NBD_CMD_WRITE, { offset: 8192, payload }), 0);
    assertEquals(await client.content(8192, 4096), payload);
    assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
    assertEquals(await client.ask(p.NBD_CMD_TRIM, { offset: 4096, length: 4096 }), 0);
    assertEquals(await client.ask(p.NBD_CMD_CACHE, { offset: 0, length: 8192 }), 0);
    assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { offset: 8192, length: 512 }), 0);
    assertEquals(
      await client.content(8192, 1024),
      new Uint8Array([...new Uint8Array(512), ...payload.slice(512, 1024)]),
    );
    assertEquals(disk.calls, [
      "write 8192+4096",
      "read 8192+4096",
      "flush",
      "discard 4096+4096",
      "read 0+8192 ahead",
      "zero 8192+512",
      "read 8192+1024",
    ]);
  }
});

Deno.test("NBD: the form of a reply is the one that was agreed on", async () => {
  await using served = await serveOne(recorder());
  const types = [];
  for (const form of FORMS) {
    using client = await RawClient.open(served.path, form);
    for (const [command, length] of [[p.NBD_CMD_READ, 512], [p.NBD_CMD_READ, 100], [p.NBD_CMD_FLUSH, 0]] as const) {
      await client.send(command, { length, cookie: 4711 });
      const { cookie, chunks } = await client.reply(length);
      types.push([cookie, ...chunks.map(({ type, data }) => `${type}:${data.length}`)]);
    }
  }
  assertEquals(types, [
    [4711, "-1:512"],
    [4711, "-1:0"],
    [4711, "-1:0"],
    [4711, `${p.NBD_REPLY_TYPE_OFFSET_DATA}:520`],
    [4711, `${p.NBD_REPLY_TYPE_ERROR}:6`],
    [4711, "-1:0"],
    [4711, `${p.NBD_REPLY_TYPE_OFFSET_DATA}:520`],
    [4711, `${p.NBD_REPLY_TYPE_ERROR}:6`],
    [4711, `${p.NBD_REPLY_TYPE_NONE}:0`],
  ]);
});

Deno.test("NBD: what is wrong with a request is its own error, and the connection goes on", async () => {
  const disk = recorder(2 ** 20, {
    write() {
      throw new DblockError("ENOSPC");
    },
  });
  await using served = await serveOne(disk);
  for (const form of FORMS) {
    using client = await RawClient.open(served.path, form);
    const end = 2 ** 20;
    const large = 2 ** 25 + 512;
    const cases: [number, Parameters<RawClient["send"]>[1], number][] = [
      [p.NBD_CMD_READ, { offset: end - 512, length: 1024 }, p.NBD_EINVAL],
      [p.NBD_CMD_READ, { offset: 1, length: 512 }, p.NBD_EINVAL],
      [p.NBD_CMD_READ, { length: 0 }, p.NBD_EINVAL],
      [p.NBD_CMD_READ, { length: large }, form.structured || form.extended ? p.NBD_EOVERFLOW : p.NBD_EINVAL],
      [p.NBD_CMD_READ, { length: 512, flags: 1 << 9 }, p.NBD_EINVAL],
      [p.NBD_CMD_WRITE, { offset: end, payload: new Uint8Array(512) }, p.NBD_ENOSPC],
      [p.NBD_CMD_WRITE, { offset: 0, payload: new Uint8Array(512) }, p.NBD_ENOSPC],
      [p.NBD_CMD_WRITE, { offset: 0, payload: new Uint8Array(large) }, p.NBD_EINVAL],
      [p.NBD_CMD_WRITE_ZEROES, { offset: end - 512, length: 1024 }, p.NBD_ENOSPC],
      [p.NBD_CMD_TRIM, { offset: end, length: 512 }, p.NBD_EINVAL],
      [p.NBD_CMD_BLOCK_STATUS, { length: 512 }, p.NBD_EINVAL],
      [77, { length: 512 }, p.NBD_EINVAL],
    ];
    for (const [command, request, error] of cases) {
      assertEquals(
        await client.ask(command, request),
        error,
        `command ${command}, ${request?.offset}+${request?.length}`,
      );
    }
    assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
  }
});

Deno.test("NBD: base:allocation tells holes, data and zeroes, one extent if one is wanted", async () => {
  const sizeBytes = 6 * 65536;
  const disk = recorder(sizeBytes, { extents: striped(65536, sizeBytes) });
  await using served = await serveOne(disk);
  const hole = p.NBD_STATE_HOLE | p.NBD_STATE_ZERO;
  for (const form of [{ structured: true }, { extended: true }]) {
    using client = await RawClient.open(served.path, { ...form, allocation: true });
    const status = async (flags: number, offset: number, length: number) => {
      await client.send(p.NBD_CMD_BLOCK_STATUS, { flags, offset, length });
      const { error, chunks: [chunk] } = await client.reply();
      assertEquals(error, 0);
      const view = new DataView(chunk!.data.buffer);
      const found: number[][] = [];
      const [first, step] = form.extended ? [8, 16] : [4, 8];
      for (let at = first; at < view.byteLength; at += step) {
        found.push(
          form.extended
            ? [Number(view.getBigUint64(at)), Number(view.getBigUint64(at + 8))]
            : [view.getUint32(at), view.getUint32(at + 4)],
        );
      }
      if (form.extended) assertEquals(view.getUint32(4), found.length);
      return found;
    };
    assertEquals(await status(0, 0, 3 * 65536), [[65536, hole], [65536, 0], [65536, p.NBD_STATE_ZERO]]);
    assertEquals(await status(0, 65536 - 512, 1024), [[512, hole], [512, 0]]);
    assertEquals(await status(p.NBD_CMD_FLAG_REQ_ONE, 65536, 4 * 65536), [[65536, 0]]);
  }
});

Deno.test("NBD: where a client wants one extent, the disk is not asked for all that it may be", async () => {
  const sizeBytes = 2 ** 30;
  const asked: number[] = [];
  const grains = striped(4096, sizeBytes / 2);
  const disk = recorder(sizeBytes, {
    extents: (offsetBytes, lengthBytes, options) => {
      asked.push(lengthBytes);
      if (offsetBytes < sizeBytes / 2) return grains(offsetBytes, lengthBytes, options);
      return [{ lengthBytes, kind: "hole" }];
    },
  });
  await using served = await serveOne(disk);
  using client = await RawClient.open(served.path, { structured: true, allocation: true });
  const lengthOf = async (offset: number, length: number) => {
    await client.send(p.NBD_CMD_BLOCK_STATUS, { flags: p.NBD_CMD_FLAG_REQ_ONE, offset, length });
    const { error, chunks: [chunk] } = await client.reply();
    assertEquals([error, chunk!.data.length], [0, 12]);
    return new DataView(chunk!.data.buffer).getUint32(4);
  };
  assertEquals([await lengthOf(0, sizeBytes / 2), asked.splice(0)], [4096, [65_536]]);
  assertEquals(await lengthOf(sizeBytes / 2, sizeBytes / 2), sizeBytes / 2);
  assertEquals([asked.length, asked.at(-1)], [6, sizeBytes / 2]);
  assertEquals(await lengthOf(sizeBytes - 512, 512), 512);
});

Deno.test("NBD: an extent that 32 bits cannot say is cut for a structured reply, and whole for an extended one", async () => {
  const sizeBytes = 16 * 2 ** 40;
  const disk: Backend = {
    sizeBytes,
    read: () => {},
    write: () => {},
    extents: (_offset, lengthBytes) => [{ lengthBytes, kind: "hole" }],
  };
  await using served = await serveOne(disk);
  using structured = await RawClient.open(served.path, { structured: true, allocation: true });
  await structured.send(p.NBD_CMD_BLOCK_STATUS, { length: 2 ** 32 - 512 });
  const told = new DataView((await structured.reply()).chunks[0]!.data.buffer);
  assertEquals(told.getUint32(4), 2 ** 32 - 65536);
  using extended = await RawClient.open(served.path, { extended: true, allocation: true });
  await extended.send(p.NBD_CMD_BLOCK_STATUS, { length: sizeBytes });
  assertEquals(new DataView((await extended.reply()).chunks[0]!.data.buffer).getBigUint64(8), BigInt(sizeBytes));
});

Deno.test("NBD: with extended headers, one TRIM or WRITE_ZEROES may be larger than 4 GiB", async () => {
  const done = { discard: 0, zero: 0 };
  const disk: Backend = {
    sizeBytes: 64 * GIB,
    read: () => {},
    write: () => {},
    discard: (_offset, lengthBytes) => void (done.discard += lengthBytes),
    writeZeroes: (_offset, lengthBytes) => void (done.zero += lengthBytes),
  };
  await using served = await serveOne(disk);
  using client = await RawClient.open(served.path, { extended: true });
  assertEquals(await client.ask(p.NBD_CMD_TRIM, { offset: GIB, length: 9 * GIB }), 0);
  assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { offset: 0, length: 33 * GIB }), 0);
  assertEquals(done, { discard: 9 * GIB, zero: 33 * GIB });
});

Deno.test("NBD: FUA is a flush after the write, unless the backend heeds it", async () => {
  for (const fua of [false, true]) {
    const disk = recorder(2 ** 20, { fua });
    await using served = await serveOne(disk);
    using client = await RawClient.open(served.path);
    const flags = p.NBD_CMD_FLAG_FUA;
    await client.ask(p.NBD_CMD_WRITE, { flags, payload: new Uint8Array(512) });
    await client.ask(p.NBD_CMD_WRITE_ZEROES, { flags, length: 512 });
    await client.ask(p.NBD_CMD_TRIM, { flags, length: 4096 });
    await client.ask(p.NBD_CMD_READ, { flags, length: 512 });
    assertEquals(
      disk.calls,
      fua
        ? ["write 0+512 fua", "zero 0+512 fua", "discard 0+4096 fua", "read 0+512 fua"].map((call) =>
          call.startsWith("read") ? "read 0+512" : call
        )
        : ["write 0+512", "flush", "zero 0+512", "flush", "discard 0+4096", "flush", "read 0+512"],
    );
  }
});

Deno.test("NBD: what was answered on one connection is durable after a FLUSH on another", async () => {
  const disk = recorder();
  const cache = new WriteCache(disk);
  await using served = await serveOne(cache);
  using writer = await RawClient.open(served.path);
  using other = await RawClient.open(served.path);
  assert((writer.flags & p.NBD_FLAG_CAN_MULTI_CONN) !== 0);
  await writer.ask(p.NBD_CMD_WRITE, { offset: 0, payload: new Uint8Array(512).fill(1) });
  assertEquals(disk.store[0], 0);
  assertEquals((await other.content(0, 512))[0], 1, "the other connection sees it");
  await other.ask(p.NBD_CMD_FLUSH);
  await writer.ask(p.NBD_CMD_WRITE, { offset: 512, payload: new Uint8Array(512).fill(2) });
  await cache.powerOff({ survival: 0 });
  assertEquals([disk.store[0], disk.store[512]], [1, 0]);
});

Deno.test("NBD: WRITE_ZEROES with FAST_ZERO is refused where zeroes are written; NO_HOLE keeps the space", async () => {
  const { writeZeroes: _none, ...slow } = recorder();
  await using served = await serveOne(slow);
  using client = await RawClient.open(served.path);
  const flags = p.NBD_CMD_FLAG_FAST_ZERO;
  slow.store.fill(1);
  assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { flags, length: 4096 }), p.NBD_ENOTSUP);
  assertEquals(slow.calls, []);
  assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { length: 2 ** 20 }), 0);
  assertEquals(slow.store.findIndex((byte) => byte !== 0), -1);
  const fast = recorder();
  await using other = await serveOne(fast);
  using second = await RawClient.open(other.path);
  assertEquals(await second.ask(p.NBD_CMD_WRITE_ZEROES, { flags, length: 4096 }), 0);
  await second.ask(p.NBD_CMD_WRITE_ZEROES, { flags: p.NBD_CMD_FLAG_NO_HOLE, length: 4096 });
  assertEquals(fast.calls, ["zero 0+4096", "zero 0+4096 keep"]);
});

Deno.test("NBD: a request larger than the disk takes at once is done in pieces", async () => {
  const disk = recorder(4 * 2 ** 20, { limits: { maxIoBytes: 2 ** 20, maxDiscardBytes: 2 ** 21 } });
  await using served = await serveOne(disk);
  using client = await RawClient.open(served.path, { structured: true });
  const payload = Uint8Array.from({ length: 3 * 2 ** 20 }, (_, i) => i >> 12);
  assertEquals(await client.ask(p.NBD_CMD_WRITE, { offset: 512, payload }), 0);
  assertEquals(await client.content(512, payload.length), payload);
  assertEquals(await client.ask(p.NBD_CMD_TRIM, { length: 3 * 2 ** 20 }), 0);
  assertEquals(
    disk.calls.map((call) => call.split("+")[1]),
    [..."111111"].map(() => "1048576").concat("2097152", "1048576"),
  );
});

Deno.test("NBD: a read-only export refuses what would change it, with EPERM, and says so before", async () => {
  for (const [backend, readOnly] of [[recorder(), true], [recorder(2 ** 20, { readOnly: true }), false]] as const) {
    await using served = await serveOne(backend, { readOnly });
    using client = await RawClient.open(served.path);
    assert((client.flags & p.NBD_FLAG_READ_ONLY) !== 0);
    assertEquals(client.flags & (p.NBD_FLAG_SEND_TRIM | p.NBD_FLAG_SEND_WRITE_ZEROES | p.NBD_FLAG_SEND_FUA), 0);
    assertEquals(await client.ask(p.NBD_CMD_WRITE, { payload: new Uint8Array(512) }), p.NBD_EPERM);
    assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { length: 512 }), p.NBD_EPERM);
    assertEquals(await client.ask(p.NBD_CMD_TRIM, { length: 512 }), p.NBD_EPERM);
    assertEquals((await client.content(0, 512)).length, 512);
    assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
    assertEquals(backend.calls, ["read 0+512", "flush"]);
  }
});

Deno.test("NBD: answers come in any order, each under its cookie", async () => {
  const waiting: (() => void)[] = [];
  const disk = recorder(2 ** 20, {
    read: (buffer, offset) => new Promise((resolve) => waiting.push(() => resolve(void buffer.fill(offset / 512)))),
  });
  await using served = await serveOne(disk);
  using client = await RawClient.open(served.path);
  for (const n of [1, 2, 3]) await client.send(p.NBD_CMD_READ, { offset: n * 512, length: 512, cookie: n });
  while (waiting.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
  const got = [];
  for (const next of [2, 0, 1]) {
    waiting[next]!();
    const { cookie, chunks } = await client.reply(512);
    got.push([cookie, chunks[0]!.data[0]]);
  }
  assertEquals(got, [[3, 3], [1, 1], [2, 2]]);
});

Deno.test("NBD: what came before DISC in the same packet is answered, and the connection ends", async () => {
  await using served = await serveOne(recorder());
  using client = await RawClient.open(served.path);
  const read = client.bytesOf(p.NBD_CMD_READ, { length: 512 });
  const disc = client.bytesOf(p.NBD_CMD_DISC);
  await client.wire.write(new Uint8Array([...read, ...disc]));
  assertEquals((await client.reply(512)).error, 0);
  assert(await client.isAtEnd());
});

Deno.test("NBD: a client that breaks the protocol, or ends amid a message, ends its own connection and nothing else", async () => {
  await using served = await serveOne(recorder());
  const last = [
    (client: RawClient) => client.bytesOf(p.NBD_CMD_READ, { length: 512, magic: 1 }),
    (client: RawClient) => client.bytesOf(p.NBD_CMD_WRITE, { length: 2 ** 31 }),
    (client: RawClient) => client.bytesOf(p.NBD_CMD_READ, { length: 512 }).subarray(0, 20),
    // Refused, or accepted, and the rest of the payload never comes.
    (client: RawClient) =>
      client.bytesOf(p.NBD_CMD_WRITE, { offset: 2 ** 40, length: 300_000, payload: new Uint8Array(7) }),
    (client: RawClient) => client.bytesOf(p.NBD_CMD_WRITE, { length: 307_200, payload: new Uint8Array(1000) }),
  ];
  for (const bytes of last) {
    const client = await RawClient.open(served.path);
    await client.wire.write(bytes(client));
    client.wire.close();
  }
  using after = await RawClient.open(served.path);
  assertEquals(await after.ask(p.NBD_CMD_FLUSH), 0);
  while (served.server.connectionCount > 1) await new Promise((resolve) => setTimeout(resolve, 1));
});

Deno.test("NBD: large answers to a client that reads them late are whole, whoever writes their rest", async () => {
  const disk = recorder(4 * 2 ** 20);
  for (let i = 0; i < disk.store.length; i++) disk.store[i] = i * 31 % 251;
  await using served = await serveOne(disk);
  for (const form of FORMS) {
    using client = await RawClient.open(served.path, form);
    // More than the socket has room for, and then more while the server waits for room.
    for (let n = 0; n < 16; n++) {
      await client.send(p.NBD_CMD_READ, { offset: n * 1000 * 512 % 2 ** 20, length: 2 ** 20 });
      if (n >= 12) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (let n = 0; n < 16; n++) {
      const at = n * 1000 * 512 % 2 ** 20;
      const { error, chunks: [chunk] } = await client.reply(2 ** 20);
      assertEquals(error, 0);
      const data = chunk!.data.subarray(chunk!.data.length - 2 ** 20);
      assert(data.every((byte, i) => byte === disk.store[at + i]), `answer ${n}`);
    }
  }
});

Deno.test("NBD: more requests at once than a connection may have open, or has memory for, are all answered", async () => {
  for (const [count, length, memoryBytes] of [[1000, 512, 2 ** 26], [300, 65_536, 2 ** 17]] as const) {
    await using served = await serveOne(recorder(2 ** 20), { memoryBytes });
    using client = await RawClient.open(served.path);
    const requests = Array.from({ length: count }, () => client.bytesOf(p.NBD_CMD_READ, { length }));
    const said = client.wire.write(new Uint8Array(requests.flatMap((bytes) => [...bytes])));
    for (let n = 0; n < count; n++) assertEquals((await client.reply(length)).error, 0);
    await said;
  }
});

Deno.test("NBD: of what a client has sent, nothing reaches a disk after its connection was cut off", async () => {
  const asked: number[] = [];
  // The disk may be closed from then on.
  const disk = recorder(2 ** 20, {
    write: (_buffer, offset) => {
      asked.push(offset);
      if (offset === 512) session.cut();
    },
  });
  const { session, client, ended } = await openSession(disk);
  const payload = new Uint8Array(512);
  const requests = [0, 1, 2, 3].map((n) => client.bytesOf(p.NBD_CMD_WRITE, { offset: n * 512, payload }));
  const bytes = new Uint8Array(requests.flatMap((request) => [...request]));
  await client.wire.write(bytes);
  await ended;
  assertEquals(asked, [0, 512]);
  client.wire.close();
});
