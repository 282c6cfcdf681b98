// udev, with kmod/60-dblock.rules beside the rules of the distribution, knows each disk and partition and what is on it, keeps
// the links up to date, and takes them away again; its own reading of the disk is in nobody's way. Hard case D6.
// time limit: 240 s
import { assert, assertEquals } from "@std/assert";
import { DBLOCK_ON_DEATH_HOLD, DBLOCK_STATE_HELD } from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, requires, sh, waitFor, waitForLink } from "./harness.ts";
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

  /** Runs a command that changes what is on a disk. udev would not hear of it amid its own look at the change before. */
  async change(command: string): Promise<void> {
    await this.settle();
    await sh(command);
  }

  /** What it has found out about a disk or partition. */
  async properties(path: string): Promise<Map<string, string>> {
    const { stdout } = await sh(`udevadm info --query=property ${path}`);
    const pairs = stdout.trimEnd().split("\n").map((line) => line.split("=", 2) as [string, string]);
    return new Map(pairs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settle();
    await sh("udevadm control --exit --timeout=20");
    // A worker ends its event first; where many share the machine, that takes its time.
    const isGone = async () => (await sh("pidof systemd-udevd", { check: false })).status !== 0;
    try {
      await waitFor("udev ends", isGone, 3_000);
    } catch {
      // Now and then it misses the end of a worker, and waits for it for ever. One that our disk holds cannot be killed.
      console.log((await sh("ps -eo pid,stat,wchan:32,args | grep [s]ystemd-udevd; pkill -KILL systemd-udevd")).stdout);
      await waitFor("udev dies", isGone);
    }
    await sh("rm -r /run/udev");
  }
}

Deno.test({
  name: "each disk and partition has a link by its name, as long as it is there",
  ignore,
  async fn() {
    await using udev = await Udev.start();
    await using disk = await Ramdisk.start({ name: "udev0", args: ["--size", "64M"] });
    await waitForLink(link("udev0"), disk.path);

    await sh(`printf ',16M\\n,16M\\n' | sfdisk --quiet --label gpt ${disk.path}`);
    await udev.settle();
    for (const part of [1, 2]) {
      await waitForLink(`${link("udev0")}-part${part}`, `${disk.path}p${part}`);
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

const uuids = ["6e0d9f4c-5a0e-4d57-9a54-6a3c1f0b7e11", "0b0f7c2e-93f2-4c0f-8f0a-2d6f3f4c8a22"] as const;

// The second name is one that the rules of the distribution take for a disk of virtio.
for (const name of ["udev2", "vdu"]) {
  Deno.test({
    name: `mkfs and sfdisk on a disk that is there already bring its links by UUID, label and partition (${name})`,
    ignore,
    async fn() {
      assert(exists("/usr/lib/udev/rules.d/60-persistent-storage.rules"), "the rules of the distribution are there");
      await using udev = await Udev.start();
      await using disk = await TestDisk.start({ name, size_bytes: 64 * MIB });
      await waitForLink(link(name), disk.path);
      await waitForLink(
        `/dev/disk/by-diskseq/${Deno.readTextFileSync(`/sys/block/${name}/diskseq`).trim()}`,
        disk.path,
      );

      await udev.change(`mkfs.ext4 -q -U ${uuids[0]} -L "first try" ${disk.path}`);
      await waitForLink(`/dev/disk/by-uuid/${uuids[0]}`, disk.path);
      await waitForLink("/dev/disk/by-label/first\\x20try", disk.path);
      const found = await udev.properties(disk.path);
      const wanted = ["ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_MODEL", "ID_SERIAL", "ID_SERIAL_SHORT"];
      assertEquals(
        wanted.map((key) => found.get(key)),
        ["ext4", "filesystem", uuids[0], "dblock", `dblock-${name}`, name],
      );
      assertEquals((await sh(`lsblk -dno MODEL,SERIAL ${disk.path}`)).stdout.trim().split(/\s+/), ["dblock", name]);
      await udev.change(`mount UUID=${uuids[0]} /mnt && umount /mnt`);

      await udev.change(`wipefs -q -a ${disk.path}`);
      if (name === "udev2") {
        await udev.change(`mkswap -q -U ${uuids[1]} ${disk.path}`);
        await waitForLink(`/dev/disk/by-uuid/${uuids[1]}`, disk.path);
        await waitFor("the links of what was there before are gone", () => {
          return !exists(`/dev/disk/by-uuid/${uuids[0]}`) && !exists("/dev/disk/by-label/first\\x20try");
        });
        await udev.change(`wipefs -q -a ${disk.path}`);
      }

      await udev.change(
        `printf 'size=16M, name=one\\nsize=16M, name=two, uuid=${uuids[1]}\\n' | sfdisk -q --label gpt ${disk.path}`,
      );
      const separator = /[0-9]$/.test(name) ? "p" : "";
      const part = (number: number) => `${disk.path}${separator}${number}`;
      await waitForLink("/dev/disk/by-partlabel/one", part(1));
      await waitForLink("/dev/disk/by-partlabel/two", part(2));
      await waitForLink(`/dev/disk/by-partuuid/${uuids[1]}`, part(2));
      await udev.change(`mkfs.ext4 -q -U ${uuids[0]} ${part(2)}`);
      await waitForLink(`/dev/disk/by-uuid/${uuids[0]}`, part(2));
      const ofPart = await udev.properties(part(2));
      assertEquals(
        ["ID_SERIAL", "ID_PART_TABLE_TYPE", "ID_PART_ENTRY_NAME", "ID_FS_TYPE"].map((key) => ofPart.get(key)),
        [`dblock-${name}`, "gpt", "two", "ext4"],
      );
      await udev.settle();
      await disk[Symbol.asyncDispose]();
      await waitFor("all links are gone", async () => {
        const links = (await sh("find /dev/disk -type l -printf '%l\\n'", { check: false })).stdout;
        return !links.split("\n").some((target) => target.startsWith(`../../${name}`));
      });
    },
  });
}

Deno.test({
  name: "udev keeps what it knows of a disk whose server died, without waiting for the next server",
  ignore,
  async fn() {
    await using udev = await Udev.start();
    const held = { name: "udev3", size_bytes: 64 * MIB, on_death: DBLOCK_ON_DEATH_HOLD };
    await using first = await TestDisk.start(held);
    await udev.change(`mkfs.ext4 -q -U ${uuids[0]} -L held ${first.path}`);
    await waitForLink("/dev/disk/by-label/held", first.path);
    await udev.settle();
    await first.abandon();
    await first.untilState(DBLOCK_STATE_HELD);
    const readCount = first.seen.length;
    await sh("udevadm trigger --action=change --sysname-match=udev3");
    await udev.settle();
    assertEquals((await udev.properties(first.path)).get("ID_FS_UUID"), uuids[0]);
    assertEquals(await Deno.realPath("/dev/disk/by-label/held"), first.path);
    assertEquals(await Deno.realPath(`/dev/disk/by-uuid/${uuids[0]}`), first.path);
    assertEquals([first.info().waiting_count, first.seen.length], [0, readCount], "nobody waits for the next server");
  },
});

Deno.test({
  name: "a server of a single thread starts and ends under udev's eyes",
  ignore,
  async fn() {
    await using udev = await Udev.start();
    for (let round = 0; round < 3; round++) {
      const started = performance.now();
      await using disk = await TestDisk.start({ name: "udev1", size_bytes: 16 * MIB });
      await waitForLink(link("udev1"), disk.path);
      assertWithin(10_000, performance.now() - started, "created and linked");
      disk.rule = () => ({ error: 5 }); // udev looks at a change that it cannot read.
      await sh(`udevadm trigger --action=change --sysname-match=udev1`);
      await udev.settle();
      assertEquals(await Deno.realPath(link("udev1")), disk.path);
    }
    await waitFor("the link is gone", () => !exists(link("udev1")));
  },
});
