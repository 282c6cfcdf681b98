// SPDX-License-Identifier: MIT
// Large writes of several clients at once to a disk in memory: Workers take them. What one lane does is told to it directly,
// and then two sessions share lanes. Speed is tests/interop/nbd_speed.ts.
import { assert, assertEquals, AssertionError } from "@std/assert";
import { Meter, putMeter } from "../../../src/disk/meter.ts";
import { type Backend, MemoryBackend } from "../../../src/mod.ts";
import { describeExport, exportOf, geometryOf } from "../../../src/nbd/export.ts";
import { Lane, LANE_BYTES_MIN, type LaneJob, type LaneOutcome, NOW, SOON } from "../../../src/nbd/lane.ts";
import { Lanes } from "../../../src/nbd/lanes.ts";
import * as p from "../../../src/nbd/protocol.ts";
import { libc } from "../../../src/system/library.ts";
import { connectUnix } from "../../../src/system/socket.ts";
import { openSession } from "./bare_session.ts";
import { RawClient } from "./raw_client.ts";
import { serveOne } from "./recorder.ts";
import { ConnWire } from "../../../src/nbd/wire.ts";

const MIB = 2 ** 20;
const PIECE_BYTES = 2 * LANE_BYTES_MIN;
const WAIT_MS = 20_000;

const pattern = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed) % 251);

/** A lane on this thread, whose client has said all that it is going to say before the lane begins. */
class Told implements Disposable {
  readonly disk = new MemoryBackend({ sizeBytes: MIB });
  readonly control = new Int32Array(new SharedArrayBuffer(8));
  readonly client: RawClient;
  readonly #fd: number;
  readonly #conn: Deno.Conn;

  private constructor(fd: number, conn: Deno.Conn) {
    this.#fd = fd;
    this.#conn = conn;
    this.client = new RawClient(new ConnWire(conn));
  }

  static async begin(): Promise<Told> {
    const dir = await Deno.makeTempDir();
    using listener = Deno.listen({ transport: "unix", path: `${dir}/s` });
    const fd = connectUnix(`${dir}/s`)!;
    const conn = await listener.accept();
    await Deno.remove(dir, { recursive: true });
    return new Told(fd, conn as unknown as Deno.Conn);
  }

  /** The lane's first request is `first` at 0, of which this much has not come yet. */
  serve(missingBytes: number, changes: Partial<Pick<LaneJob, "rules">> = {}): LaneOutcome {
    const one = exportOf("disk", this.disk, false);
    const geometry = geometryOf(one, this.disk.sizeBytes);
    const { flags, sizeBytes } = describeExport(one);
    return new Lane().serve({
      fd: this.#fd,
      contentAddress: this.disk.mapping.address,
      geometry,
      rules: { flags, sizeBytes, chunked: false, extended: false, hasAllocation: false },
      first: { address: this.disk.mapping.address, missingBytes, cookieHigh: 0, cookieLow: 77, offsetBytes: 0 },
      control: this.control,
      ...changes,
    });
  }

  close(): void {
    this.#conn.close();
  }

  [Symbol.dispose](): void {
    libc().close(this.#fd);
    this.disk.close();
    try {
      this.#conn.close();
    } catch { /* the test has done it */ }
  }
}

Deno.test("a lane takes what is missing, and large writes after it, and gives back what comes then", async () => {
  using told = await Told.begin();
  const { client, disk } = told;
  const [first, second] = [pattern(8_192, 1), pattern(LANE_BYTES_MIN, 2)];
  const flush = client.bytesOf(p.NBD_CMD_FLUSH, { cookie: 9 });
  await client.wire.write(first);
  await client.send(p.NBD_CMD_WRITE, { offset: 65_536, payload: second, cookie: 8, flags: p.NBD_CMD_FLAG_FUA });
  await client.wire.write(flush);
  const { rest, isEnd, answeredCount } = told.serve(first.length);
  assertEquals([rest, isEnd, answeredCount], [flush, false, 2]);
  for (const cookie of [77, 8]) {
    assertEquals(await client.reply(), { cookie, error: 0, chunks: [{ type: -1, data: new Uint8Array(0) }] });
  }
  assertEquals(disk.bytes(0, first.length), first);
  assertEquals(disk.bytes(65_536, second.length), second);
  assert(disk.bytes(first.length, 65_536 - first.length).every((byte) => byte === 0));
});

/** Requests that are for the session to answer. */
const OTHERS: readonly [what: string, command: number, offset: number, length: number, flags?: number][] = [
  ["a small write", p.NBD_CMD_WRITE, 0, LANE_BYTES_MIN - 512],
  ["a write past the end", p.NBD_CMD_WRITE, MIB - 512, LANE_BYTES_MIN],
  ["a write that is no whole block", p.NBD_CMD_WRITE, 100, LANE_BYTES_MIN],
  ["a write with a flag that nobody knows", p.NBD_CMD_WRITE, 0, LANE_BYTES_MIN, 1 << 15],
  ["a READ", p.NBD_CMD_READ, 0, LANE_BYTES_MIN],
  ["a farewell", p.NBD_CMD_DISC, 0, 0],
];

for (const [what, command, offset, length, flags = 0] of OTHERS) {
  Deno.test(`a lane gives ${what} back, and nothing of it reaches the disk`, async () => {
    using told = await Told.begin();
    const payload = command === p.NBD_CMD_WRITE ? new Uint8Array(length).fill(255) : undefined;
    const said = told.client.bytesOf(command, { offset, length, flags, ...(payload === undefined ? {} : { payload }) });
    await told.client.wire.write(new Uint8Array(512));
    const writing = told.client.wire.write(said).catch(() => {});
    const { rest, isEnd, answeredCount } = told.serve(512);
    assertEquals([rest, isEnd, answeredCount], [said.slice(0, rest.length), false, 1]);
    assert(rest.length >= p.REQUEST_BYTES);
    assert(told.disk.bytes().every((byte) => byte === 0));
    told.close();
    await writing;
  });
}

Deno.test("a lane ends soon after a request, and at once amid one", async () => {
  using told = await Told.begin();
  await told.client.wire.write(new Uint8Array(4096));
  told.control[0] = SOON;
  assertEquals(told.serve(4096), { rest: new Uint8Array(0), isEnd: false, answeredCount: 1 });
  told.control[0] = NOW;
  assertEquals(told.serve(4096), { rest: new Uint8Array(0), isEnd: true, answeredCount: 0 });
});

Deno.test("a lane ends where its client has gone: between requests, amid one, and with answers that nobody reads", async () => {
  using between = await Told.begin();
  await between.client.wire.write(new Uint8Array(4096));
  between.close();
  assertEquals(between.serve(4096).isEnd, true);
  using amid = await Told.begin();
  await amid.client.wire.write(new Uint8Array(100));
  amid.close();
  assertEquals(amid.serve(4096), { rest: new Uint8Array(0), isEnd: true, answeredCount: 0 });
});

/** Two clients of one disk, whose sessions share lanes. */
class Writers implements AsyncDisposable {
  readonly said: string[] = [];
  readonly lanes: Lanes = new Lanes((line) => this.said.push(line));
  readonly clients: RawClient[] = [];
  readonly sessions: Awaited<ReturnType<typeof openSession>>[] = [];

  static async of(disk: Backend): Promise<Writers> {
    const writers = new Writers();
    for (let n = 0; n < 2; n++) {
      const opened = await openSession(disk, { lanes: writers.lanes });
      writers.sessions.push(opened);
      writers.clients.push(opened.client);
    }
    return writers;
  }

  /** Each client writes its half of the disk, many requests at a time, until `isOver`; the answers are checked. */
  async write(disk: MemoryBackend, isOver: () => boolean): Promise<number> {
    const half = disk.sizeBytes / 2;
    let count = 0;
    await Promise.all(this.clients.map(async (client, n) => {
      for (let round = 0; !isOver(); round++) {
        const places = Array.from({ length: half / PIECE_BYTES }, (_, i) => n * half + i * PIECE_BYTES);
        const payload = pattern(PIECE_BYTES, n * 100 + round);
        const sent = (async () => {
          for (const [cookie, offset] of places.entries()) {
            await client.send(p.NBD_CMD_WRITE, { offset, payload, cookie });
          }
        })();
        for (const [cookie] of places.entries()) {
          const reply = await client.reply();
          assertEquals([reply.cookie, reply.error], [cookie, 0]);
          count++;
        }
        await sent;
        const at = places[round % places.length]!;
        assertEquals(await client.content(at, PIECE_BYTES), payload);
        assertEquals(await client.ask(p.NBD_CMD_WRITE, { offset: at + 512, payload: payload.subarray(0, 512) }), 0);
      }
    }));
    return count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) client.wire.close();
    await Promise.all(this.sessions.map(({ ended }) => ended));
    this.lanes[Symbol.dispose]();
    assertEquals(this.said, []);
  }
}

Deno.test("two clients that write much are given lanes, and each request is answered with its own", async () => {
  using disk = new MemoryBackend({ sizeBytes: 4 * MIB });
  await using writers = await Writers.of(disk);
  let most = 0;
  let rounds = 0;
  const start = performance.now();
  const timer = setInterval(() => most = Math.max(most, writers.lanes.busyCount), 0);
  try {
    await writers.write(disk, () => {
      most = Math.max(most, writers.lanes.busyCount);
      assert(performance.now() - start < WAIT_MS, "no lane was ever given");
      return most > 0 && ++rounds > 8;
    });
  } finally {
    clearInterval(timer);
  }
});

Deno.test("nobody is given a lane while requests are counted", async () => {
  using disk = new MemoryBackend({ sizeBytes: 4 * MIB });
  const meter = new Meter();
  putMeter(disk, meter);
  meter.countFor(Infinity);
  await using writers = await Writers.of(disk);
  let rounds = 0;
  let most = 0;
  const timer = setInterval(() => most = Math.max(most, writers.lanes.busyCount), 0);
  const count = await writers.write(disk, () => ++rounds > 8);
  clearInterval(timer);
  const written = meter.report().rows.filter(({ operation }) => operation === "write");
  assertEquals(most, 0);
  assert(written.reduce((sum, row) => sum + row.count, 0) > count);
});

for (const [what, when] of [["stop() lets it answer", "stop"], ["cut() ends it at once", "cut"]] as const) {
  Deno.test(`a connection in a lane, amid a request: ${what}`, async () => {
    using disk = new MemoryBackend({ sizeBytes: 4 * MIB });
    await using writers = await Writers.of(disk);
    const [client, other] = writers.clients as [RawClient, RawClient];
    const { session, ended } = writers.sessions[0]!;
    const payload = pattern(PIECE_BYTES, 3);
    const bytes = client.bytesOf(p.NBD_CMD_WRITE, { offset: 0, payload, cookie: 5 });
    // Both are busy until the first one is in a lane, whose client stops amid a request.
    const start = performance.now();
    let isGiven = false;
    while (!isGiven) {
      assert(performance.now() - start < WAIT_MS, "no lane was ever given");
      await Promise.all([client, other].map(async (one) => {
        for (let i = 0; i < 4; i++) await one.send(p.NBD_CMD_WRITE, { offset: 2 * MIB, payload, cookie: 4 });
      }));
      await client.wire.write(bytes.subarray(0, PIECE_BYTES / 2));
      for (let i = 0; i < 4; i++) await other.reply();
      for (let i = 0; i < 4; i++) assertEquals((await client.reply()).cookie, 4);
      await new Promise((resolve) => setTimeout(resolve, 50)); // it is amid that request by now, or is given none
      isGiven = session.isInLane;
      if (isGiven) break;
      await client.wire.write(bytes.subarray(PIECE_BYTES / 2));
      assertEquals((await client.reply()).cookie, 5);
    }
    session[when]();
    if (when === "stop") {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await client.wire.write(bytes.subarray(PIECE_BYTES / 2));
      assertEquals((await client.reply()).cookie, 5);
      assertEquals(disk.bytes(0, PIECE_BYTES), payload);
    }
    assert(await client.isAtEnd());
    const late = performance.now();
    await ended;
    assert(performance.now() - late < 2_000);
    assertEquals(await other.ask(p.NBD_CMD_FLUSH), 0);
  });
}

Deno.test("a server ends while its clients write much, and so do its Workers", async () => {
  const real = globalThis.Worker;
  let [begun, ended] = [0, 0];
  globalThis.Worker = class extends real {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      begun++;
    }

    override terminate(): void {
      ended++;
      super.terminate();
    }
  };
  try {
    const served = await serveOne(new MemoryBackend({ sizeBytes: 4 * MIB }));
    const clients = [await RawClient.open(served.path), await RawClient.open(served.path, { structured: true })];
    const payload = pattern(PIECE_BYTES, 1);
    const start = performance.now();
    const writing = clients.map(async (client) => {
      try {
        for (;;) {
          for (let i = 0; i < 8; i++) await client.send(p.NBD_CMD_WRITE, { offset: i * PIECE_BYTES, payload });
          for (let i = 0; i < 8; i++) assertEquals((await client.reply()).error, 0);
          assert(performance.now() - start < WAIT_MS, "no Worker has begun, or the server does not end");
        }
      } catch (error) {
        if (error instanceof AssertionError) throw error; // else the server has ended
      }
    });
    while (begun === 0 && performance.now() - start < WAIT_MS) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 200));
    const closing = performance.now();
    await served[Symbol.asyncDispose]();
    assert(performance.now() - closing < 5_000);
    await Promise.all(writing);
    for (const { wire } of clients) wire.close();
    assertEquals([begun > 0, ended], [true, begun]);
  } finally {
    globalThis.Worker = real;
  }
});

Deno.test("a Worker that cannot begin is said once, and clients are served without it", () => {
  const real = globalThis.Worker;
  const made: { onerror: (event: { message: string; preventDefault(): void }) => void }[] = [];
  globalThis.Worker = class {
    onerror(_event: { message: string; preventDefault(): void }) {}
    constructor() {
      made.push(this);
    }
    terminate() {}
  } as unknown as typeof Worker;
  try {
    const said: string[] = [];
    using lanes = new Lanes((line) => said.push(line));
    assertEquals([lanes.isFree, lanes.isFree, made.length], [false, false, 1]);
    made[0]!.onerror({ message: "it may not", preventDefault() {} });
    assertEquals([lanes.isFree, made.length, said], [false, 1, [
      "A thread for large writes has stopped, and no other one is started: it may not",
    ]]);
  } finally {
    globalThis.Worker = real;
  }
});
