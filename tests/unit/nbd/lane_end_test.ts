// SPDX-License-Identifier: MIT
// A connection ends while a lane has its socket, by its client or by the server: what was acknowledged is on the disk, what was
// sent whole is answered where somebody can hear it, and no file, lane or count stays behind.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { MemoryBackend } from "../../../src/mod.ts";
import { LANE_BYTES_MIN } from "../../../src/nbd/lane.ts";
import { Lanes } from "../../../src/nbd/lanes.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { turns } from "../../../src/nbd/turns.ts";
import { type BareSession, openSession } from "./bare_session.ts";
import { RawClient } from "./raw_client.ts";
import { serveOne } from "./recorder.ts";
import { until } from "../until.ts";

const PIECE_BYTES = 2 * LANE_BYTES_MIN;
const PLACES = 16;
const DEPTH = 6;
const PART_BYTES = PLACES * PIECE_BYTES;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const pattern = (seed: number) => new Uint8Array(PIECE_BYTES).fill(1 + seed % 251);

/** A client that writes all the time, each place anew when the write before was answered, and knows what was acknowledged. */
class Writer {
  readonly client: RawClient;
  readonly ended: Promise<void>;
  /** How the connection ended for the client: an error's text. */
  how = "";
  acknowledgedCount = 0;
  readonly #partAt: number;
  /** By place: what was written last and acknowledged, and whether another write is under way. */
  readonly #seeds = new Array<number>(PLACES).fill(-1);
  readonly #isOpen = new Array<boolean>(PLACES).fill(false);
  #openCount = 0;
  #isOver = false;
  #hasRoom = () => {};

  constructor(client: RawClient, part: number) {
    this.client = client;
    this.#partAt = part * PART_BYTES;
    this.ended = Promise.all([this.#send(), this.#receive()]).then(() => {});
  }

  /** Sends no more requests; resolves when all that was sent is sent whole. */
  async stop(): Promise<void> {
    this.#isOver = true;
    this.#hasRoom();
    await this.#sent;
  }

  #sent: Promise<void> = Promise.resolve();

  async #send(): Promise<void> {
    try {
      for (let n = 0; !this.#isOver; n++) {
        const place = n % PLACES;
        while (!this.#isOver && (this.#openCount >= DEPTH || this.#isOpen[place])) {
          await new Promise<void>((resolve) => this.#hasRoom = resolve);
        }
        if (this.#isOver) break;
        this.#isOpen[place] = true;
        this.#openCount++;
        const offset = this.#partAt + place * PIECE_BYTES;
        await (this.#sent = this.client.send(p.NBD_CMD_WRITE, { offset, payload: pattern(n), cookie: n }));
      }
    } catch { /* the other half says how it ended */ }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const { cookie, error } = await this.client.reply();
        assertEquals([error, this.#isOpen[cookie % PLACES]], [0, true]);
        this.#isOpen[cookie % PLACES] = false;
        this.#seeds[cookie % PLACES] = cookie;
        this.#openCount--;
        this.acknowledgedCount++;
        this.#hasRoom();
      }
    } catch (error) {
      this.how = String(error);
    }
    this.#isOver = true;
    this.#hasRoom();
  }

  get openCount(): number {
    return this.#openCount;
  }

  /** What was acknowledged is on the disk. A place to which a write was under way may have any of it. */
  check(disk: MemoryBackend): void {
    for (const [place, seed] of this.#seeds.entries()) {
      if (seed < 0 || this.#isOpen[place]) continue;
      const content = disk.bytes(this.#partAt + place * PIECE_BYTES, PIECE_BYTES);
      const wanted = pattern(seed)[0];
      assertEquals(content.findIndex((byte) => byte !== wanted), -1, `place ${place}`);
    }
  }
}

/** Two clients of one disk that write, in sessions that share lanes. */
class Pair {
  readonly lanes: Lanes;
  readonly sessions: readonly BareSession[];
  readonly writers: readonly Writer[];

  private constructor(lanes: Lanes, sessions: readonly BareSession[]) {
    this.lanes = lanes;
    this.sessions = sessions;
    this.writers = sessions.map(({ client }, part) => new Writer(client, part));
  }

  /** Resolves when the first one is in a lane. */
  static async begin(disk: MemoryBackend, lanes: Lanes): Promise<Pair> {
    const pair = new Pair(lanes, [await openSession(disk, { lanes }), await openSession(disk, { lanes })]);
    await until(() => pair.sessions[0]!.session.isInLane, "no lane was ever given");
    return pair;
  }

  /** Ends what is left, and sees that nothing has stayed. */
  async end(disk: MemoryBackend): Promise<void> {
    for (const { client } of this.sessions) client.wire.close();
    await Promise.all([...this.writers, ...this.sessions].map(({ ended }) => ended));
    for (const writer of this.writers) writer.check(disk);
    assertEquals(this.sessions.map(({ session }) => [session.openCount, session.isInLane]), Array(2).fill([0, false]));
    assertEquals(this.sessions.map(({ path }) => socketsAt(path)), [0, 0]);
    assertEquals([this.lanes.busyCount, this.lanes.amidCount, turns.othersCount], [0, 0, 0]);
  }
}

/** Each is told a pair of which the first connection is in a lane, and ends that one. */
const ENDS: Readonly<Record<string, (pair: Pair) => Promise<void> | void>> = {
  "the client closes it": ({ writers }) => writers[0]!.client.wire.close(),
  "the client sends no more, and hears all answers": async ({ sessions, writers }) => {
    await writers[0]!.stop();
    await sessions[0]!.conn.closeWrite();
    await writers[0]!.ended;
    assertEquals(writers[0]!.openCount, 0);
    assertMatch(writers[0]!.how, /ended after 0 of 4 bytes/);
  },
  "the server stops it": async ({ sessions, writers }) => {
    sessions[0]!.session.stop();
    await writers[0]!.ended;
    assertMatch(writers[0]!.how, /ended after 0 of 4 bytes|reset by peer/); // at the border of a reply
  },
  "the server cuts it": async ({ sessions }) => {
    const { session, ended } = sessions[0]!;
    const path = `/proc/self/fd/${session.fd}`;
    const file = Deno.readLinkSync(path);
    session.cut();
    // The lane is still at it: closed now, its number could be another file's, to which the lane would write.
    if (session.isInLane) assertEquals(Deno.readLinkSync(path), file);
    await ended;
  },
};

for (const [what, end] of Object.entries(ENDS)) {
  Deno.test(`a lane has a socket, and ${what}: nothing is lost and nothing stays`, async () => {
    using disk = new MemoryBackend({ sizeBytes: 2 * PART_BYTES });
    using lanes = new Lanes((line) => assertEquals(line, ""));
    for (let round = 0; round < 8; round++) {
      const pair = await Pair.begin(disk, lanes);
      await pause(Math.random() * 10);
      await until(() => pair.sessions[0]!.session.isInLane, "no lane was given again");
      await end(pair);
      await pair.sessions[0]!.ended;
      // The other one is served as before.
      const other = pair.writers[1]!;
      const before = other.acknowledgedCount;
      await until(() => other.acknowledgedCount > before + DEPTH, "the other client is not served any more");
      await pair.end(disk);
    }
  });
}

Deno.test("a server that ends while lanes have its sockets has all on the disk that it has acknowledged, and leaves no socket", async () => {
  using disk = new MemoryBackend({ sizeBytes: 2 * PART_BYTES });
  for (let round = 0; round < 3; round++) {
    await using served = await serveOne(new MemoryBackend(disk.mapping));
    const writers = await Promise.all([0, 1].map(async (part) => new Writer(await RawClient.open(served.path), part)));
    await until(() => turns.othersCount === 2, "no lane was ever given");
    await pause(Math.random() * 10);
    assertEquals(socketsAt(served.path), 3);
    const began = performance.now();
    await served.server.close();
    assert(performance.now() - began < 5_000);
    await Promise.all(writers.map(({ ended }) => ended));
    for (const writer of writers) {
      assertMatch(writer.how, /ended after 0 of 4 bytes|reset by peer/);
      writer.check(disk);
      writer.client.wire.close();
    }
    assertEquals([turns.othersCount, served.said], [0, []]);
    assertEquals(socketsAt(served.path), 0);
  }
});

/** How many sockets there are that were accepted at a path, and that one itself. */
function socketsAt(path: string): number {
  return Deno.readTextFileSync("/proc/self/net/unix").split("\n").filter((line) => line.endsWith(` ${path}`)).length;
}
