// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import { type Member, type Served, turns } from "../../../src/nbd/turns.ts";
import { libc } from "../../../src/system/library.ts";
import { connectUnix } from "../../../src/system/socket.ts";

/** One end of a connection whose other end says nothing, and what a member there does when it is asked. */
class Client implements Member, Disposable {
  lastTurn = 0;
  readonly wantsRoom = false;
  /** What it was asked: whether it can read is known, or only tried. */
  readonly asked: boolean[] = [];
  #left: () => void = () => {};

  private constructor(readonly fd: number, readonly peer: Deno.Conn, readonly does: (asked: number) => Served) {}

  static async connect(does: (asked: number) => Served): Promise<Client> {
    const dir = await Deno.makeTempDir();
    using listener = Deno.listen({ transport: "unix", path: `${dir}/s` });
    const fd = connectUnix(`${dir}/s`)!;
    const client = new Client(fd, await listener.accept(), does);
    await Deno.remove(dir, { recursive: true });
    return client;
  }

  serveNow(reads: boolean): Served {
    this.asked.push(reads);
    return this.does(this.asked.length);
  }

  left(): void {
    this.#left();
  }

  /** Joins, and waits until it has left. Returns how often it was asked meanwhile. */
  async join(): Promise<number> {
    const before = this.asked.length;
    const left = new Promise<void>((resolve) => this.#left = resolve);
    assert(turns.join(this));
    await left;
    return this.asked.length - before;
  }

  [Symbol.dispose](): void {
    libc().close(this.fd);
    try {
      this.peer.close();
    } catch { /* the test has closed it */ }
  }
}

// The first test: nobody has been looked for in vain yet, and this one does not count as that.
Deno.test("a lone client is not looked for while others have threads of their own", async () => {
  using client = await Client.connect(() => "nothing");
  turns.othersCount++;
  try {
    assertEquals([await client.join(), await client.join()], [1, 1]);
  } finally {
    turns.othersCount--;
  }
});

Deno.test("a lone client is looked for before its thread sleeps, and seldom after that was in vain again and again", async () => {
  let answer: Served = "nothing";
  using client = await Client.connect(() => answer);
  let looks = 0;
  for (let i = 0; i < 4; i++) looks += await client.join();
  assert(looks > 8, `${looks} looks in four turns`);
  for (let i = 4; i < 16; i++) assertEquals(await client.join(), 1, `turn ${i}`);
  // The next turn is one that looks again; what it finds at once makes the ones after it look, too.
  answer = "leaves";
  assertEquals(await client.join(), 1);
  answer = "nothing";
  looks = 0;
  for (let i = 0; i < 4; i++) looks += await client.join();
  assert(looks > 8, `${looks} looks in four turns`);
});

Deno.test("a lone client is served again and again, as long as it comes back", async () => {
  using client = await Client.connect((asked) => asked < 100 ? "busy" : "leaves");
  assertEquals(await client.join(), 100);
});

Deno.test("of two clients nobody is asked who has sent nothing", async () => {
  using quiet = await Client.connect(() => "nothing");
  const askedOfQuiet: number[] = [];
  using other = await Client.connect((asked) => {
    askedOfQuiet.push(quiet.asked.length);
    return asked < 3 ? "busy" : "leaves";
  });
  await other.peer.write(new Uint8Array(1)); // which its member never takes
  await Promise.all([quiet.join(), other.join()]);
  assertEquals(askedOfQuiet, [0, 0, 0]);
});

Deno.test("a client whose socket has failed leaves: it is ready, and nothing can be read", async () => {
  using client = await Client.connect(() => "nothing");
  client.peer.close();
  const asked = await client.join();
  assertEquals(client.asked[asked - 1], true);
  assert(asked > 1, "by a look, and then because the kernel says that there is something");
});
