// SPDX-License-Identifier: MIT
/** Starts of `dblock serve` that fail or are interrupted, on a fake kernel: a disk that was there before stays. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DISK_OPTIONS, type DiskPlan, readDisks } from "../../../src/command/disk_plan.ts";
import { readItems } from "../../../src/command/command.ts";
import { startAll } from "../../../src/command/serve_disks.ts";
import { ServedDisk } from "../../../src/command/served_disk.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import {
  DBLOCK_OPERATION_READ,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
  DBLOCK_STATE_REMOVING,
} from "../../../src/module/abi.ts";
import { Control } from "../../../src/module/control.ts";
import { BUSY_WAIT_MS } from "../../../src/module/destroy.ts";
import { planDevice } from "../../../src/module/plan.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const folder = await Deno.makeTempDir();
Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));

/** A disk of a file, with the options that follow its SPEC. */
function planOf(words: string): DiskPlan {
  const [plan] = readDisks(readItems([`${folder}/disk.img?raw&size=64KiB`, ...words.split(" ")], DISK_OPTIONS));
  return plan!;
}

const READ = { operation: DBLOCK_OPERATION_READ, flags: 0, offsetBytes: 0, lengthBytes: 512 };

/** Makes a device as a server that is dead by now left it, and mounts it. */
async function leaveMounted(kernel: FakeKernel, name: string, plan: DiskPlan) {
  const backend = await plan.source.open({ readOnly: false, shared: false });
  using control = await Control.open("Cannot test", kernel);
  await control.create(planDevice(profileOf(backend), { name, onDeath: "hold", queues: 1 }));
  await backend.close?.("left");
  const device = kernel.devices.get(name);
  assert(device !== undefined);
  device.state = DBLOCK_STATE_HELD;
  device.openCount = 1;
  return device;
}

Deno.test("a disk that was recovered is left when another of the same content cannot be", async () => {
  const kernel = new FakeKernel();
  const plan = planOf("--name a --name b --on-death hold");
  const a = await leaveMounted(kernel, "a", plan);
  const b = await leaveMounted(kernel, "b", plan);
  kernel.refusedPaths.set("/dev/b-ctl", ERRNO.EACCES);
  await assertRejects(
    () => ServedDisk.start(plan, { kernel, signal: new AbortController().signal }),
    DblockError,
    "/dev/b",
  );
  assert(kernel.devices.get("a") === a && kernel.devices.get("b") === b);
  assertEquals([a.state, b.state, kernel.files.size], [DBLOCK_STATE_HELD, DBLOCK_STATE_HELD, 0]);
});

Deno.test("a disk that waits for its server is not served with a file that is not there, which is not made", async () => {
  const kernel = new FakeKernel();
  const plan = planOf("--name a --on-death hold");
  await leaveMounted(kernel, "a", plan);
  await Deno.remove(`${folder}/disk.img`);
  const start = () => ServedDisk.start(plan, { kernel, signal: new AbortController().signal });
  await assertRejects(start, DblockError, "disk.img, and the disk has had content (what it had: dblock recover a)");
  assertEquals([kernel.devices.get("a")?.state, [...Deno.readDirSync(folder)]], [DBLOCK_STATE_HELD, []]);
});

Deno.test("the signal of a start does nothing to a disk that is there already", async () => {
  const kernel = new FakeKernel();
  const plan = planOf("--name a --on-death hold");
  const a = await leaveMounted(kernel, "a", plan);
  const start = new AbortController();
  const disk = await ServedDisk.start(plan, { kernel, signal: start.signal });
  start.abort(new Error("another disk cannot be started"));
  await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT_MS + 300));
  assert(kernel.devices.get("a") === a);
  assertEquals(a.state, DBLOCK_STATE_LIVE);
  await disk.devices[0]!.leave();
  assertEquals([(await disk.ended)[0]!.ending.reason, a.state], ["left", DBLOCK_STATE_HELD]);
});

/** Two disks in one start, the second of which is at a server that never says anything. */
async function startBesideSilent(kernel: FakeKernel, plan: DiskPlan) {
  const silent: DiskPlan = {
    ...plan,
    exits: [{ kind: "device", name: "b" }],
    source: { text: "nbd://silent", survives: true, open: () => new Promise(() => {}) },
  };
  const stop = new AbortController();
  const started = startAll([plan, silent], stop, { kernel, signal: stop.signal });
  started.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 300)); // as long as the first one would take
  stop.abort(new Error("nobody waits any more"));
  await assertRejects(() => started, Error, "nobody waits any more");
}

Deno.test("a disk is not taken over while another one of the same start is not open yet", async () => {
  const kernel = new FakeKernel();
  const before = await ServedDisk.start(planOf("--name a"), { kernel, signal: new AbortController().signal });
  const a = kernel.devices.get("a");
  await startBesideSilent(kernel, planOf("--name a --take-over"));
  assert(kernel.devices.get("a") === a);
  assertEquals(a?.state, DBLOCK_STATE_LIVE);
  await before.devices[0]!.close();
  assertEquals((await before.ended)[0]!.ending, { reason: "closed" });
  assertEquals(kernel.files.size, 0);
});

Deno.test("no disk is taken over when one of the same start does not fit the disk that is there", async () => {
  const kernel = new FakeKernel();
  const before = await ServedDisk.start(planOf("--name a --name b"), { kernel, signal: new AbortController().signal });
  const b = kernel.devices.get("b")!;
  const [first, second] = ["a", "b"].map((name) => planOf(`--name ${name} --take-over`)) as [DiskPlan, DiskPlan];
  const open: DiskPlan["source"]["open"] = (options) => {
    // It is known late what is there: as long as the first one would take.
    b.state = DBLOCK_STATE_REMOVING;
    setTimeout(() => {
      b.state = DBLOCK_STATE_LIVE;
      b.params.size_bytes *= 2;
    }, 300);
    return second.source.open(options);
  };
  const plans = [first, { ...second, source: { ...second.source, open } }];
  const stop = new AbortController();
  const error = await assertRejects(() => startAll(plans, stop, { kernel, signal: stop.signal }), DblockError);
  assertEquals([error.code, error.message.includes("it has 131072 bytes, not 65536")], ["EINVAL", true]);
  await Promise.all(before.devices.map((device) => device.close()));
  assertEquals((await before.ended).map(({ ending }) => ending.reason), ["closed", "closed"]);
});

Deno.test("a disk that a new server has taken and left again is taken back when that one has failed", async () => {
  const kernel = new FakeKernel();
  const options = { kernel, signal: new AbortController().signal };
  const before = await ServedDisk.start(planOf("--name a --name b --on-death hold"), options);
  const { promise: outcome, reject } = Promise.withResolvers<void>();
  const given = before.give(outcome);
  const heir = await ServedDisk.start(planOf("--name a --on-death hold --take-over"), options);
  await heir.devices[0]!.leave();
  assertEquals(kernel.devices.get("a")!.state, DBLOCK_STATE_HELD);
  const waiting = kernel.submit("a", { ...READ, data: new Uint8Array(512) });
  reject(new Error("b could not be taken"));
  await given;
  assertEquals([await waiting, kernel.devices.get("a")!.state], [0, DBLOCK_STATE_LIVE]);
  await Promise.all(before.devices.map((device) => device.close()));
  assertEquals((await before.ended).map(({ ending }) => ending.reason), ["closed", "closed"]);
});

Deno.test("a disk that a new server has taken is given when that one goes on, and is not looked for when it is gone", async () => {
  const kernel = new FakeKernel();
  const options = { kernel, signal: new AbortController().signal };
  const before = await ServedDisk.start(planOf("--name a --on-death hold"), options);
  const given = before.given();
  const heir = await ServedDisk.start(planOf("--name a --on-death hold --take-over"), options);
  await given;
  await before.give(Promise.resolve());
  assertEquals((await before.ended)[0]!.ending.reason, "replaced");
  await heir.devices[0]!.close();
  await before.give(Promise.reject(new Error("too late")));
  assertEquals(kernel.files.size, 0);
});

Deno.test("a disk that had no server before new code was to take over is not taken back", async () => {
  const kernel = new FakeKernel();
  const options = { kernel, signal: new AbortController().signal };
  const before = await ServedDisk.start(planOf("--name a --name b --on-death hold"), options);
  await before.devices[0]!.leave();
  await before.give(Promise.reject(new Error("b could not be taken")));
  assertEquals(["a", "b"].map((name) => kernel.devices.get(name)!.state), [DBLOCK_STATE_HELD, DBLOCK_STATE_LIVE]);
  await before.devices[1]!.close();
  assertEquals((await before.ended).map(({ ending }) => ending.reason), ["left", "closed"]);
});

Deno.test("the devices of a disk are in the order in which they were named, whichever is there first", async () => {
  const kernel = new class extends FakeKernel {
    override async ioctlAsync(fd: number, request: number, structure: Uint8Array): Promise<number> {
      if (this.files.get(fd)?.device?.params.name === "a") {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return await super.ioctlAsync(fd, request, structure);
    }
  }();
  const disk = await ServedDisk.start(planOf("--name a --name b"), { kernel, signal: new AbortController().signal });
  assertEquals(disk.devices.map(({ name }) => name), ["a", "b"]);
  await Promise.all(disk.devices.map((device) => device.close()));
  await disk.ended;
});
