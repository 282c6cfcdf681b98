// SPDX-License-Identifier: MIT
// Which file an accepted connection is: what is sent there arrives at that connection's client and at no other one's.
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { addressOf } from "../../../src/system/memory.ts";
import { fileOf, Pieces, receive, releaseFile, send, SocketSet } from "../../../src/system/socket.ts";

/** An array whose memory stays where it is. */
const fixed = (bytes: readonly number[]) => {
  const array = new Uint8Array(new ArrayBuffer(Math.max(128, bytes.length)));
  array.set(bytes);
  return array;
};

interface Pair extends Disposable {
  readonly fd: number;
  readonly client: Deno.Conn;
}

async function connect(listener: Deno.Listener, connecting: Promise<Deno.Conn>): Promise<Pair> {
  const conn = await listener.accept();
  const fd = fileOf(conn);
  assert(fd !== undefined, "the connection's file is not found");
  const client = await connecting;
  return {
    fd,
    client,
    [Symbol.dispose]() {
      releaseFile(fd);
      conn.close();
      client.close();
    },
  };
}

Deno.test("fileOf() finds each accepted connection of a unix socket and of TCP, also where numbers are used again", async () => {
  const path = `${await Deno.makeTempDir()}/socket`;
  using unix = Deno.listen({ transport: "unix", path }) as unknown as Deno.Listener;
  using tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = tcp.addr as Deno.NetAddr;
  const overUnix = () => connect(unix, Deno.connect({ transport: "unix", path }) as unknown as Promise<Deno.Conn>);
  const overTcp = () => connect(tcp, Deno.connect({ port }));
  const pieces = new Pieces();
  for (let round = 0; round < 20; round++) {
    using first = await overUnix();
    using second = await (round % 2 === 0 ? overUnix : overTcp)();
    using third = await overUnix();
    const pairs = [first, second, third];
    assertEquals(new Set(pairs.map(({ fd }) => fd)).size, 3);
    for (const [i, { fd }] of pairs.entries()) {
      const said = fixed([round, i]);
      pieces.clear();
      pieces.add(addressOf(said), 1);
      pieces.add(addressOf(said) + 1, 1);
      assertEquals(send(fd, pieces), 2);
    }
    for (const [i, { client }] of pairs.entries()) {
      const heard = new Uint8Array(2);
      await client.read(heard);
      assertEquals([...heard], [round, i]);
    }
  }
});

Deno.test("SocketSet waits for the socket that is ready; receive() fills one piece after the other", async () => {
  const path = `${await Deno.makeTempDir()}/socket`;
  using unix = Deno.listen({ transport: "unix", path }) as unknown as Deno.Listener;
  const over = () => connect(unix, Deno.connect({ transport: "unix", path }) as unknown as Promise<Deno.Conn>);
  using first = await over();
  using second = await over();
  const set = new SocketSet();
  set.put(0, first.fd, false);
  set.put(1, second.fd, false);
  assertEquals(set.wait(2, 100), 0);
  await second.client.write(new Uint8Array([1, 2, 3, 4, 5]));
  assertEquals([set.wait(2, 100_000), set.isReady(0), set.isReadable(1)], [1, false, true]);
  set.put(0, first.fd, true);
  assertEquals([set.wait(2, 100_000), set.isReady(0), set.isReadable(0)], [2, true, false]);
  const into = fixed([]);
  const pieces = new Pieces();
  pieces.add(addressOf(into) + 10, 2);
  pieces.add(addressOf(into), 9);
  assertEquals(receive(first.fd, pieces), -1);
  assertEquals(receive(second.fd, pieces), 5);
  assertEquals([into[10], into[11], into[0], into[1], into[2]], [1, 2, 3, 4, 5]);
  assertNotEquals(first.fd, second.fd);
});
