// udev, with kmod/60-dblock.rules, makes a link by name to each disk and its partitions, and takes it away again; its own
// reading of the disk is in nobody's way. Hard case D6.
import { assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, requires, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { MIB } from "./server.ts";

const daemon = "/usr/lib/systemd/systemd-udevd";
const ignore = !requires("udev", exists(daemon));
const link = (name: string) => `/dev/disk/by-id/dblock-${name}`;

/** A running udev with the rules of this project, for as long as this object lives. */
class Udev implements AsyncDisposable {
  static async start(): Promise<Udev> {
    await sh(`mkdir -p /run/udev/rules.d && cp kmod/60-dblock.rules /run/udev/rules.d`);
    await sh(`${daemon} --daemon --resolve-names=never && udevadm control --ping --timeout=20`);
    return new Udev();
  }

  /** Waits until it has done what there was to do. */
  async settle(): Promise<void> {
    await sh("udevadm settle --timeout=20");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await sh("udevadm control --exit --timeout=20");
    await waitFor("udev ends", async () => (await sh("pidof systemd-udevd", { check: false })).status !== 0);
    await sh("rm -r /run/udev");
  }
}

Deno.test({
  name: "each disk and partition has a link by its name, as long as it is there",
  ignore,
  async fn() {
    await using udev = await Udev.start();
    await using disk = await Ramdisk.start({ name: "udev0", args: ["--size", "64M"] });
    await waitFor("the disk's link", () => exists(link("udev0")));
    assertEquals(await Deno.realPath(link("udev0")), disk.path);

    await sh(`printf ',16M\\n,16M\\n' | sfdisk --quiet --label gpt ${disk.path}`);
    await udev.settle();
    for (const part of [1, 2]) {
      await waitFor("the partition's link", () => exists(`${link("udev0")}-part${part}`));
      assertEquals(await Deno.realPath(`${link("udev0")}-part${part}`), `${disk.path}p${part}`);
    }
    await sh(`mkfs.ext4 -q ${link("udev0")}-part2 && mount ${link("udev0")}-part2 /mnt && umount /mnt`);

    const { status, stderr } = await runRamdisk("-d --name udev0");
    assertEquals([status, stderr], [0, ""]);
    await waitFor("all links are gone", () => {
      return ["", "-part1", "-part2"].every((end) => !exists(`${link("udev0")}${end}`));
    });
    // A disk of another driver has none: the links are not for everybody.
    await sh("udevadm trigger --action=change --sysname-match='vd*'");
    await udev.settle();
    assertEquals((await sh("ls /dev/disk/by-id", { check: false })).stdout.match(/dblock/), null);
  },
});

Deno.test({
  name: "a server of a single thread starts and ends under udev's eyes",
  ignore,
  async fn() {
    await using udev = await Udev.start();
    for (let round = 0; round < 5; round++) {
      const started = performance.now();
      await using disk = await TestDisk.start({ name: "udev1", size_bytes: 16 * MIB });
      await waitFor("the disk's link", () => exists(link("udev1")));
      assertWithin(10_000, performance.now() - started, "created and linked");
      assertEquals(await Deno.realPath(link("udev1")), disk.path);
      disk.rule = () => ({ error: 5 }); // udev looks at a change that it cannot read.
      await sh(`udevadm trigger --action=change --sysname-match=udev1`);
      await udev.settle();
      assertEquals(await Deno.realPath(link("udev1")), disk.path);
    }
    await waitFor("the link is gone", () => !exists(link("udev1")));
  },
});
