// rmmod is refused while a device, an open node or a mounted disk is there, works when nothing is, and racing it against
// CREATE harms nobody. Hard case C7.
import { assert, assertEquals } from "@std/assert";
import { exists, figure, scaled, sh, waitFor } from "./harness.ts";
import { createDevice, destroyDevice, infoOf, params } from "./server.ts";
import { ServerProcess } from "./server_process.ts";
import { close, O_RDWR, open } from "./syscall.ts";

async function refused(why: string): Promise<void> {
  const { status, stderr } = await sh("rmmod dblock", { check: false });
  assertEquals([why, status, /in use/.test(stderr)], [why, 1, true]);
}

Deno.test("rmmod is refused while anything is in use", async () => {
  const control = open("/dev/dblockctl", O_RDWR);
  await refused("an open control node");
  createDevice(params("rmmod0"));
  close(control);
  await refused("a device");
  const node = open("/dev/rmmod0-ctl", O_RDWR);
  assertEquals(await destroyDevice("rmmod0"), 0);
  await refused("an open server node of a device that is gone");
  close(node);
  await sh("rmmod dblock");
  await sh("insmod kmod/dblock.ko");
});

Deno.test("rmmod is refused while a disk is mounted, even one that is gone", async () => {
  await using server = await ServerProcess.start({ name: "rmmod2" });
  await sh(`mkfs.ext4 -q ${server.path} && mount ${server.path} /mnt`);
  try {
    await refused("a mounted disk");
    await server.kill();
    await waitFor("the device is gone", () => infoOf("rmmod2") === undefined && !exists("/dev/rmmod2-ctl"));
    // No device and no open node is left: the mount alone holds the module.
    await refused("a mounted disk that is gone");
  } finally {
    await sh("umount /mnt");
  }
  await sh("rmmod dblock");
  await sh("insmod kmod/dblock.ko");
});

const races = scaled(25);

Deno.test(`rmmod races CREATE and DESTROY ${races} times`, async () => {
  const script = "deno run -A --no-check --import-map=src/build/standins/import_map.json tests/device/rmmod_main.ts";
  const racer = sh(`exec ${script}`, { timeoutMs: 60_000 * Math.max(1, races / 25) });
  let unloads = 0;
  for (let i = 0; i < races; i++) {
    const { status } = await sh("rmmod dblock && insmod kmod/dblock.ko", { check: false });
    if (status === 0) unloads++;
  }
  await Deno.writeTextFile("/tmp/rmmod-over", "");
  const created = Number((await racer).stdout);
  await sh("rm /tmp/rmmod-over");
  figure({ "rmmod races": races, "of these unloaded": unloads });
  assert(unloads > 0 && created > 0, `${unloads} unloads, ${created} devices: no race`);
});
