// Disks whose halves and requests fail while `dblock serve` serves them: a file switches the faults of a filter, and `dblock
// info` names the half of a mirror that has left, in words and as JSON.
import { assertEquals, assertStringIncludes } from "@std/assert";
import type { MirrorStatus } from "../../src/backends/mirror_status.ts";
import { sh, waitFor } from "./harness.ts";
import { dblock, Serving } from "./serving.ts";

const reads = async (path: string) =>
  (await sh(`dd if=${path} of=/dev/null bs=4k count=1 iflag=direct status=none`, { check: false })).status === 0;

Deno.test("fault=while=FILE: the disk fails while there is the file", async () => {
  await using serving = await Serving.start(
    "serve memory:16MiB --name switched --with fault=operations=read,while=/tmp/switched-bad".split(" "),
  );
  assertEquals(await reads("/dev/switched"), true);
  await sh("touch /tmp/switched-bad");
  await waitFor("reads fail", async () => !await reads("/dev/switched"));
  await sh("rm /tmp/switched-bad");
  await waitFor("reads work", async () => await reads("/dev/switched"));
  assertEquals((await dblock("destroy switched")).status, 0);
  assertEquals((await serving.end()).code, 0);
});

Deno.test("dblock info names the half of a mirror that has left, and why", async () => {
  const socket = "/tmp/switched.sock";
  const bad = `memory:16MiB --nbd unix:${socket} --with fault=operations=write+writeZeroes,while=/tmp/switched-bad`;
  await using half = await Serving.start(["serve", ...bad.split(" ")]);
  const spec = `mirror:memory:16MiB,[nbd+unix:///?socket=${socket}]`;
  await using serving = await Serving.start(["serve", spec, "--name", "switched"]);
  const text = async () => (await dblock("info switched")).stdout;
  const mirror = async (): Promise<MirrorStatus> =>
    JSON.parse((await dblock("info switched --json")).stdout)[0].served.mirror;
  await waitFor("it is in sync", async () => (await text()).includes("mirror: in sync"), 30_000);
  assertEquals((await mirror()).state, "in sync");
  await sh("touch /tmp/switched-bad");
  await waitFor("the half has left", async () => {
    await sh("dd if=/dev/zero of=/dev/switched bs=4k count=1 oflag=direct status=none");
    return (await text()).includes("mirror: degraded");
  });
  // It is tried again every few seconds, and copied to until that fails.
  const left = async <T>(look: () => Promise<T>, hasLeft: (found: T) => boolean): Promise<T> => {
    let found: T;
    await waitFor("the half is out", async () => hasLeft(found = await look()));
    return found!;
  };
  await left(text, (found) => /memory:16MiB: working\n +nbd\S+: left, because: [^\n]*EIO/.test(found));
  const { state, halves } = await left(mirror, ({ halves }) => halves[1]!.state === "left");
  assertEquals([state, halves.map((one) => one.state)], ["degraded", ["working", "left"]]);
  assertStringIncludes(halves[1]!.error!, "EIO");
  await sh("rm /tmp/switched-bad");
  await waitFor("it is in sync again", async () => (await mirror()).state === "in sync", 60_000);
  assertEquals((await dblock("destroy switched")).status, 0);
  assertEquals((await serving.end()).code, 0);
  half.child.kill("SIGINT");
  assertEquals((await half.end()).code, 0);
});
