// SPDX-License-Identifier: MIT
// Workers that many disks in memory share, as the main program sees them: played here on a fake kernel. How they wait in
// the kernel is in tests/unit/system/waiting_test.ts, and all of it together in tests/device/command_test.ts.
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { FileBackend } from "../../../src/backends/file.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { DBLOCK_OPERATION_READ as READ } from "../../../src/module/abi.ts";
import { Channel, GONE } from "../../../src/module/channel.ts";
import { answerMapped } from "../../../src/module/mapped.ts";
import { serveOn } from "../../../src/module/serve.ts";
import type { BeginMessage, FromSharedWorker, ServeMemoryMessage } from "../../../src/module/shared_worker.ts";
import { SharedWorkers } from "../../../src/module/shared_workers.ts";
import { flusherOf } from "../../../src/system/mapping.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const MIB = 2 ** 20;

/** A shared Worker, played in this thread. */
class Played {
  static kernel = new FakeKernel();
  static all: Played[] = [];
  onmessage: (event: { data: FromSharedWorker }) => void = () => {};
  onerror: (event: { message: string; preventDefault(): void }) => void = () => {};
  begun: BeginMessage | undefined;
  readonly names: string[] = [];
  isTerminated = false;
  isDead = false;

  constructor(readonly url: URL) {
    Played.all.push(this);
  }

  die(): void {
    this.isDead = true;
    this.onerror({ message: "boom", preventDefault() {} });
  }

  terminate(): void {
    this.isTerminated = true;
  }

  async postMessage(message: BeginMessage | ServeMemoryMessage): Promise<void> {
    if (!this.url.href.endsWith("/shared_worker.ts")) this.onerror({ message: "not played", preventDefault() {} });
    else if (message.kind === "begin") this.begun = message;
    else {
      this.names.push(message.name);
      assertEquals(Atomics.load(this.begun!.sent, 0), this.names.length, "it is told before it may wait again");
      await this.#serve(message).catch((error) => {
        if (!this.isDead) throw error;
      });
    }
  }

  async #serve({ name, id, queue, depth, fd, geometry, mapping }: ServeMemoryMessage): Promise<void> {
    using channel = new Channel({ name, id, queue, depth, slotBytes: 0, fd, kernel: Played.kernel });
    await channel.attachAsync();
    this.onmessage({ data: { kind: "attached", fd, ioFlusher: true } });
    for (let count = 0; count !== GONE; count = channel.exchange()) {
      answerMapped(channel.ring, count, { mapping, geometry, flusher: flusherOf(mapping) });
      if (count === 0 && channel.ring.pending === 0) await channel.wait();
    }
    this.onmessage({ data: { kind: "left", fd, failure: undefined } });
  }
}

function play() {
  const real = globalThis.Worker;
  const kernel = Played.kernel = new FakeKernel();
  Played.all = [];
  Object.assign(globalThis, { Worker: Played });
  const shared = new SharedWorkers(2, kernel);
  return {
    kernel,
    shared,
    serve: (name: string) => {
      const options = { name, queues: 1, log: () => {} };
      return serveOn(kernel, new MemoryBackend({ sizeBytes: MIB }), options, { shared });
    },
    read: (name: string) =>
      kernel.submit(name, {
        operation: READ,
        flags: 0,
        offsetBytes: 0,
        lengthBytes: 512,
        data: new Uint8Array(512),
      }),
    [Symbol.dispose]: () => {
      shared[Symbol.dispose]();
      Object.assign(globalThis, { Worker: real });
    },
  };
}

Deno.test("five disks in memory have two Workers, and one that ends leaves the others", async () => {
  using played = play();
  const names = ["a", "b", "c", "d", "e"];
  const devices = await Promise.all(names.map(played.serve));
  assertEquals(Played.all.map(({ names }) => names), [["a", "c", "e"], ["b", "d"]]);
  assertMatch(Played.all[0]!.url.href, /shared_worker\.ts$/);
  assertEquals(await Promise.all(names.map(played.read)), [0, 0, 0, 0, 0]);
  await devices[0]!.close();
  assertEquals(await devices[0]!.closed, { reason: "closed" });
  assertEquals(await Promise.all(names.slice(1).map(played.read)), [0, 0, 0, 0]);
  assertEquals(Played.all.map(({ isTerminated }) => isTerminated), [false, false]);
  for (const device of devices.slice(1)) await device.close();
  assertEquals([played.kernel.files.size, played.kernel.abandoned.size], [0, 0]);
  played.shared[Symbol.dispose]();
  assertEquals(Played.all.map(({ isTerminated }) => isTerminated), [true, true]);
  assertEquals(played.kernel.epolls.size, 0);
});

Deno.test("a shared Worker that dies takes its own disks with it, and no others", async () => {
  using played = play();
  const [a, b, c] = await Promise.all(["a", "b", "c"].map(played.serve));
  Played.all[0]!.die();
  for (const device of [a!, c!]) {
    const ending = await device.closed;
    assertEquals(ending.reason, "failed");
    assertMatch(String("error" in ending ? ending.error : ""), /boom/);
  }
  assertEquals(await played.read("b"), 0);
  await b!.close();
  await using _d = await played.serve("d");
  await using _e = await played.serve("e");
  assertEquals([await played.read("d"), await played.read("e"), Played.all.length], [0, 0, 3]);
});

Deno.test("a disk that cannot be created leaves nothing with its shared Worker", async () => {
  using played = play();
  const device = await played.serve("a");
  await assertRejects(() => played.serve("a"), Error, "in use");
  assertEquals(await played.read("a"), 0);
  await device.close();
  assertEquals(played.kernel.files.size, 0);
});

Deno.test("a mapped file has Workers of its own, as it may keep a thread waiting", async () => {
  using played = play();
  const path = Deno.makeTempFileSync();
  const backend = await FileBackend.open({ path, sizeBytes: MIB });
  const started = serveOn(
    played.kernel,
    backend,
    { name: "f", queues: 1, log: () => {} },
    { shared: played.shared },
  );
  await assertRejects(() => started, Error, "not played");
  assertMatch(Played.all[0]!.url.href, /\/worker\.ts$/);
  Deno.removeSync(path);
});
