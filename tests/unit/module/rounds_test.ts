// SPDX-License-Identifier: MIT
// What a thread that several queues share owes to each of them, where it waits in the kernel. What the turns do with requests
// is tests/sim/event_loop_test.ts.
import { assert, assertEquals } from "@std/assert";
import { Control } from "../../../src/module/control.ts";
import { geometryOf } from "../../../src/module/plan.ts";
import { PoolQueues, type ToPoolWorker } from "../../../src/module/pool_queues.ts";
import { type Member, type OwnFiles, Rounds } from "../../../src/module/rounds.ts";
import { O_NONBLOCK } from "../../../src/system/libc.ts";
import { servers } from "../../../src/system/servers.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const STEPS_MAX = 3_000_000;

/** Files of which those are ready that a test says. */
class Files implements OwnFiles {
  #found: readonly number[] = [];
  waiting: PromiseWithResolvers<void> | undefined;
  constructor(readonly readyNow: () => readonly number[], readonly onBlock: () => void) {}
  add(): void {}
  remove = () => true;
  has = () => true;
  get isWaited(): boolean {
    return this.waiting !== undefined;
  }
  look(): number {
    return (this.#found = this.readyNow()).length;
  }
  waitHere(): number {
    this.onBlock();
    return this.look();
  }
  ready = (index: number) => this.#found[index]!;
  async wait(): Promise<void> {
    this.waiting ??= Promise.withResolvers<void>();
    await this.waiting.promise;
    this.waiting = undefined;
  }
}

/** A queue that has so many requests each time it is asked. */
function member(fd: number, requests: () => number): Member {
  const channel = { fd, hasEvent: false, isArmed: false, ring: { pending: 0 } };
  const step = () => channel.ring.pending = requests();
  return {
    channel: channel as unknown as Member["channel"],
    openCount: 0,
    isEnded: false,
    isActive: false,
    step,
    commitAll: () => void (channel.ring.pending = 0),
    wake() {},
    leave() {},
  };
}

for (const mayBlock of [true, false]) {
  Deno.test(`a queue that always has requests does not keep another one waiting, ${mayBlock ? "in" : "out of"} the kernel`, async () => {
    let steps = 0;
    let isOther = false;
    const files = new Files(() => steps > 1_000 ? [10, 11] : [10], () => {});
    const rounds = new Rounds(new FakeKernel(), {
      files,
      mayBlock: () => mayBlock && !isOther && steps < STEPS_MAX,
    });
    const busy = member(10, () => isOther || ++steps >= STEPS_MAX ? 0 : 1);
    const other = member(11, () => {
      isOther = true;
      return 0;
    });
    servers.count += 2;
    try {
      for (const each of [busy, other]) rounds.join(each);
      rounds.begin();
      while (!isOther && steps < STEPS_MAX) await new Promise((resolve) => setTimeout(resolve, 1));
      assert(isOther, `nothing after ${steps} steps`);
    } finally {
      servers.count -= 2;
      for (const each of [busy, other]) rounds.leave(each);
      files.waiting?.resolve();
    }
  });
}

Deno.test("a thread does not wait in the kernel before it has said what it was asked, whichever ends first", async () => {
  for (const isAttachFirst of [true, false]) {
    const kernel = new FakeKernel();
    using control = await Control.open("Cannot test", kernel);
    const messageFor = async (key: number, name: string, takeOver: boolean): Promise<ToPoolWorker> => {
      const params = { name, size_bytes: 2 ** 20, logical_block_bytes: 512, max_io_bytes: 4096 };
      const created = await control.create({ ...params, queue_count: 1, queue_depth: 4 });
      const mapping = { kind: "anonymous", address: 0, sizeBytes: 2 ** 20 } as const;
      const plan = { name, id: created.id, queue: 0, depth: 4, geometry: geometryOf(created), takeOver, mapping };
      return { key, message: { kind: "serve", ...plan, fd: kernel.open(`/dev/${name}-ctl`, O_NONBLOCK) } };
    };
    const [first, second] = [await messageFor(1, "a", false), await messageFor(2, "b", true)];
    const said: string[] = [];
    const saidWhenBlocked: string[] = [];
    const sent = new Int32Array(new SharedArrayBuffer(4)).fill(2);
    const files = new Files(() => [], () => {
      saidWhenBlocked.push(said.join());
      sent[0] = 3; // there is more to hear
    });
    const attach = Promise.withResolvers<void>();
    kernel.ioctlAsync = async (fd, request, structure) => {
      await attach.promise;
      return kernel.ioctl(fd, request, structure);
    };
    const queues = new PoolQueues(kernel, files, sent, ({ key, message }) => said.push(`${key} ${message.kind}`));
    const heard = [queues.hear(first)];
    await new Promise((resolve) => setImmediate(resolve));
    heard.push(queues.hear(second));
    await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals([said.join(), files.isWaited], ["1 attached", true]);
    const ends = [attach.resolve, files.waiting!.resolve];
    for (const end of isAttachFirst ? ends : ends.toReversed()) end();
    await new Promise((resolve) => setTimeout(resolve, 5));
    files.waiting?.resolve();
    await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals(said.join(), "1 attached,2 attached");
    assertEquals(saidWhenBlocked.every((all) => all === said.join()), true, saidWhenBlocked.join("; "));
    for (const name of ["a", "b"]) kernel.remove(name);
    for (let i = 0; i < 3; i++) {
      files.waiting?.resolve();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
});
