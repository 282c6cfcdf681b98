// A child that inherited the server's open files does not keep a dead server alive: its death is noticed within 1 s.
import { assertEquals } from "@std/assert";
import { assertWithin, exists, sh, waitFor } from "./harness.ts";
import { infoOf } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const holders = "ls -l /proc/*/fd 2>/dev/null | grep -c /dev/inherited-ctl || true";

Deno.test("kill -9 of a server whose child holds its files", async () => {
  await using server = await ServerProcess.start({ name: "inherited", inherited: true, childSeconds: 30 });
  await server.holdAll();
  const reading = sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  await waitFor("the read is with the server", () => infoOf("inherited")!.handed_count === 1);
  assertEquals((await sh(holders)).stdout.trim(), "2");

  await server.kill();
  const killedAt = performance.now();
  await waitFor("the device is gone", () => infoOf("inherited") === undefined, 5_000);
  assertWithin(1_000, performance.now() - killedAt, "gone");
  const { status, stderr } = await reading;
  // removed_test.ts says which of the two on which kernel.
  assertEquals([status, /Input\/output error|No such device/.test(stderr)], [1, true], stderr);
  assertEquals([exists("/dev/inherited"), exists("/dev/inherited-ctl")], [false, false]);
  // The child is there still, with the file of a device that has gone.
  assertEquals((await sh(holders)).stdout.trim(), "1");
  await sh("pkill -KILL -x sleep");
  await waitFor("the child is gone", async () => (await sh(holders)).stdout.trim() === "0");
});

Deno.test("a child that closes its copy of the server's file does not end the server", async () => {
  await using server = await ServerProcess.start({ name: "inherited", inherited: true, childSeconds: 3 });
  assertEquals((await sh(holders)).stdout.trim(), "2");
  await waitFor("the child is gone", async () => (await sh(holders)).stdout.trim() === "1");
  await sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals(infoOf("inherited")!.state, 2);
});
