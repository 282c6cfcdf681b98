// Destroy from everywhere at once, from the serving thread itself, and again: it succeeds once, and hangs never.
// Hard cases C1, C4.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh } from "./harness.ts";
import { call, Control, createDevice, destroyDevice, infoOf, params } from "./server.ts";

Deno.test("eight destroys at once all return, and the device is gone once", async () => {
  for (let round = 0; round < 5; round++) {
    const disk = await TestDisk.start({ name: "race1" });
    const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k iflag=direct`, { check: false });
    const errnos = await Promise.all(Array.from({ length: 8 }, () => destroyDevice("race1")));
    assertEquals(errnos.filter((errno) => errno !== 0 && errno !== ERRNO.ENOENT), []);
    assert(errnos.includes(0));
    await reading;
    await disk.abandon();
    assertEquals(infoOf("race1"), undefined);
    assertEquals(await destroyDevice("race1"), ERRNO.ENOENT);
  }
});

Deno.test("the thread that serves may destroy its own disk, with requests in its hands", async () => {
  const disk = await TestDisk.start({ name: "race2" });
  disk.rule = () => "hold";
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  await disk.untilHeld(1);
  await disk.pause();
  using control = new Control();
  const started = performance.now();
  // On this very thread, so nobody serves meanwhile.
  const { errno } = call(control.fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, {
    name: "race2",
    flags: abi.DBLOCK_DESTROY_FORCE,
  });
  assertEquals(errno, 0);
  assertWithin(5_000, performance.now() - started, "destroyed");
  assertEquals((await reading).status, 1);
  await disk.abandon();
});

Deno.test("CREATE of a name follows its DESTROY at once", async () => {
  for (let round = 0; round < 20; round++) {
    createDevice(params("race3"));
    assertEquals(await destroyDevice("race3", { force: false }), 0);
  }
});

Deno.test("a submitter that is killed with I/O in flight harms nobody else", async () => {
  await using disk = await TestDisk.start({ name: "race4" });
  disk.rule = () => "hold";
  const killed = new Deno.Command("dd", {
    args: [`if=${disk.path}`, "of=/dev/null", "bs=4k", "iflag=direct"],
    stderr: "null",
  })
    .spawn();
  const other = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=9 iflag=direct status=none`);
  await disk.untilHeld(2);
  killed.kill("SIGKILL");
  disk.rule = () => "serve";
  disk.releaseAll();
  await other;
  assertEquals((await killed.status).signal, "SIGKILL");
  await disk.assertIdle();
  assertEquals(disk.info().error_count, 0);
});
