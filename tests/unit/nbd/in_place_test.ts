// SPDX-License-Identifier: MIT
// A disk that is memory: payloads are received where they belong and sent from there, past the backend's callbacks.
import { assert, assertEquals } from "@std/assert";
import * as p from "../../../src/nbd/protocol.ts";
import { MemoryBackend } from "../../../src/mod.ts";
import { RawClient, type RawStart } from "./raw_client.ts";
import { serveOne } from "./recorder.ts";

const FORMS: readonly RawStart[] = [{}, { structured: true }, { extended: true }];
const MIB = 2 ** 20;

/** Whoever reads or writes it by its callbacks is seen. */
class Untouched extends MemoryBackend {
  override read(): void {
    throw new Error("it was read");
  }

  override write(): void {
    throw new Error("it was written");
  }
}

/** A disk whose every byte tells where it is. */
function patterned(sizeBytes: number): Untouched {
  const disk = new Untouched({ sizeBytes });
  const bytes = disk.bytes();
  for (let i = 0; i < sizeBytes; i++) bytes[i] = i * 31 % 251;
  return disk;
}

Deno.test("NBD: a disk in memory is read and written where it is, whatever the size and the form of replies", async () => {
  for (const form of FORMS) {
    const disk = patterned(4 * MIB);
    const expected = disk.bytes().slice();
    await using served = await serveOne(disk);
    using client = await RawClient.open(served.path, form);
    let at = 0;
    for (const length of [512, 4096, 16_384, 65_536, 131_072, 131_584, MIB, 2 * MIB]) {
      const payload = Uint8Array.from({ length }, (_, i) => (i + length) * 7 % 253);
      assertEquals(await client.ask(p.NBD_CMD_WRITE, { offset: at, payload, flags: p.NBD_CMD_FLAG_FUA }), 0);
      expected.set(payload, at);
      assertEquals(await client.content(at, length), payload);
      at += length % MIB + 512;
    }
    assertEquals(await client.ask(p.NBD_CMD_WRITE_ZEROES, { offset: 1024, length: 8192 }), 0);
    expected.fill(0, 1024, 1024 + 8192);
    assertEquals(await client.ask(p.NBD_CMD_CACHE, { offset: 0, length: 0 }), p.NBD_EINVAL);
    assert(Uint8Array.prototype.every.call(disk.bytes(), (byte, i) => byte === expected[i]));
  }
});

Deno.test("NBD: many requests at once of a disk in memory, small ones and large ones, are each answered with its own", async () => {
  const disk = patterned(4 * MIB);
  await using served = await serveOne(disk);
  for (const form of FORMS) {
    using client = await RawClient.open(served.path, form);
    const lengths = Array.from({ length: 200 }, (_, n) => 512 * (n % 7 === 0 ? 300 : n % 5 + 1));
    const offsets = lengths.map((_, n) => n * 512);
    const requests = lengths.map((length, n) =>
      client.bytesOf(p.NBD_CMD_READ, { offset: offsets[n]!, length, cookie: n })
    );
    const said = client.wire.write(new Uint8Array(requests.flatMap((bytes) => [...bytes])));
    for (let n = 0; n < lengths.length; n++) {
      const length = lengths[n]!;
      const { cookie, error, chunks: [chunk] } = await client.reply(length);
      assertEquals([cookie, error], [n, 0]);
      const data = chunk!.data.subarray(chunk!.data.length - length);
      assert(data.every((byte, i) => byte === (offsets[n]! + i) * 31 % 251), `answer ${n}`);
    }
    await said;
  }
});

Deno.test("NBD: what is refused does not reach the memory of a disk", async () => {
  const disk = patterned(MIB);
  const before = disk.bytes().slice();
  const payload = new Uint8Array(4096).fill(255);
  {
    await using served = await serveOne(disk);
    using client = await RawClient.open(served.path);
    const write = (offset: number, length: number) =>
      client.ask(p.NBD_CMD_WRITE, { offset, payload: payload.subarray(0, length) });
    assertEquals(await write(100, 512), p.NBD_EINVAL);
    assertEquals(await write(512, 100), p.NBD_EINVAL);
    assertEquals(await write(MIB - 512, 1024), p.NBD_ENOSPC);
    assertEquals(await write(2 ** 52, 512), p.NBD_ENOSPC);
    assertEquals(await client.ask(p.NBD_CMD_READ, { offset: 100, length: 512 }), p.NBD_EINVAL);
    assertEquals(await client.ask(p.NBD_CMD_READ, { offset: MIB, length: 512 }), p.NBD_EINVAL);
    assertEquals(disk.bytes(), before);
  }
  const other = patterned(MIB);
  await using served = await serveOne(other, { readOnly: true });
  using client = await RawClient.open(served.path);
  assertEquals(await client.ask(p.NBD_CMD_WRITE, { offset: 512, payload }), p.NBD_EPERM);
  assertEquals(await client.content(512, 4096), before.slice(512, 512 + 4096));
  assertEquals(other.bytes(), before);
});

Deno.test("NBD: large answers of a disk in memory to a client that reads them late are whole", async () => {
  const disk = patterned(4 * MIB);
  await using served = await serveOne(disk);
  for (const form of FORMS) {
    using client = await RawClient.open(served.path, form);
    for (let n = 0; n < 16; n++) {
      await client.send(p.NBD_CMD_READ, { offset: n * 1000 * 512 % MIB, length: MIB });
      if (n >= 12) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (let n = 0; n < 16; n++) {
      const at = n * 1000 * 512 % MIB;
      const { error, chunks: [chunk] } = await client.reply(MIB);
      assertEquals(error, 0);
      const data = chunk!.data.subarray(chunk!.data.length - MIB);
      assert(data.every((byte, i) => byte === (at + i) * 31 % 251), `answer ${n}`);
    }
  }
});

Deno.test("NBD: clients that go amid a WRITE or before they have taken their answers do no harm, nor does the server's end", async () => {
  const disk = patterned(4 * MIB);
  {
    await using served = await serveOne(disk);
    const amid = await RawClient.open(served.path);
    await amid.wire.write(amid.bytesOf(p.NBD_CMD_WRITE, { length: MIB, payload: new Uint8Array(300_000) }));
    const deaf = await RawClient.open(served.path);
    for (let n = 0; n < 16; n++) await deaf.send(p.NBD_CMD_READ, { length: MIB });
    using other = await RawClient.open(served.path);
    assertEquals((await other.content(3 * MIB, 512))[0], 3 * MIB * 31 % 251);
    amid.wire.close();
    deaf.wire.close();
    while (served.server.connectionCount > 1) await new Promise((resolve) => setTimeout(resolve, 1));
    // What came of it may be there, and nothing of what did not.
    assertEquals(disk.bytes(300_000, 1)[0], 300_000 * 31 % 251);
    assertEquals(await other.ask(p.NBD_CMD_FLUSH), 0);
    await other.send(p.NBD_CMD_READ, { length: MIB });
  }
});
