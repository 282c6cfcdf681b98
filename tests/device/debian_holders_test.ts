// Whoever keeps a disk from being destroyed is named, with the place: a btrfs of two disks, a logical volume, a RAID, swap, and
// a volume on a RAID, all real ones, as udev and systemd leave them.
// machine: debian
// time limit: 240 s
import { assertEquals, assertMatch } from "@std/assert";
import { isDebian } from "./debian.ts";
import { sh, waitFor } from "./harness.ts";
import { runRamdisk } from "./ramdisk.ts";
import { Serving } from "./serving.ts";

const ignore = !isDebian();
const names = ["holders0", "holders1"] as const;
const [a, b] = ["/dev/holders0", "/dev/holders1"] as const;
const place = "/srv/held";

interface Use {
  readonly what: string;
  readonly begin: string;
  readonly end: string;
  /** What is said of each of the two disks. */
  readonly said: readonly [string, string];
}

const uses: readonly Use[] = [
  {
    what: "a btrfs of two disks",
    begin: `mkfs.btrfs -q -f -m raid1 -d raid1 ${a} ${b} && mount ${a} ${place}`,
    end: `umount ${place} && wipefs -q -a ${a} ${b}`,
    said: [`mounted on ${place}`, `mounted on ${place}`],
  },
  {
    what: "a logical volume that is mounted, and another one",
    begin:
      `vgcreate -qq vg0 ${a} ${b} && lvcreate -qq -y -n data -L 40M vg0 ${a} && lvcreate -qq -y -n idle -L 40M vg0 ${b} &&
      mkfs.ext4 -q /dev/vg0/data && mount /dev/vg0/data ${place}`,
    end: `umount ${place} && vgremove -qq -f -y vg0 && pvremove -qq ${a} ${b}`,
    said: [`part of /dev/mapper/vg0-data, which is mounted on ${place}`, "part of /dev/mapper/vg0-idle"],
  },
  {
    what: "a RAID that is mounted",
    begin: `mdadm --quiet --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 ${a} ${b} &&
      mkfs.ext4 -q /dev/md0 && mount /dev/md0 ${place}`,
    end: `umount ${place} && mdadm --quiet --stop /dev/md0 && mdadm --quiet --zero-superblock ${a} ${b}`,
    said: [`part of /dev/md0, which is mounted on ${place}`, `part of /dev/md0, which is mounted on ${place}`],
  },
  {
    what: "swap on a disk, and on a partition",
    begin: `printf ',\\n' | sfdisk -q --label gpt ${b} && udevadm settle &&
      mkswap -q ${a} && mkswap -q ${b}p1 && swapon ${a} ${b}p1`,
    end: `swapoff ${a} ${b}p1 && wipefs -q -a ${a} ${b}p1 ${b}`,
    said: [`${a} is swap`, `${b}p1 is swap`],
  },
  {
    what: "a logical volume on a RAID, which is swap",
    begin: `mdadm --quiet --create /dev/md/both --run --level=0 --raid-devices=2 --metadata=1.2 ${a} ${b} &&
      vgcreate -qq vg1 /dev/md/both && lvcreate -qq -y -n swap -L 40M vg1 && mkswap -q /dev/vg1/swap && swapon /dev/vg1/swap`,
    end:
      `swapoff /dev/vg1/swap && vgremove -qq -f -y vg1 && pvremove -qq /dev/md/both && mdadm --quiet --stop /dev/md/both &&
      mdadm --quiet --zero-superblock ${a} ${b}`,
    said: ["part of /dev/mapper/vg1-swap, which is swap", "part of /dev/mapper/vg1-swap, which is swap"],
  },
];

/** The search for who uses a disk ends after 2 s, found or not; a machine with other work is asked again. */
async function isNamed(name: string, said: string): Promise<void> {
  let words = "";
  const isSaid = async () => {
    const { status, stdout, stderr } = await runRamdisk(`-d --name ${name}`);
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, new RegExp(`^dblock-ramdisk: Cannot destroy /dev/${name}: it is in use.*\\n$`));
    words = stderr;
    return stderr.includes(said);
  };
  await waitFor(`${name} is said to be ${said}`, isSaid, 30_000).catch((error) => {
    throw new Error(`${error.message}; instead: ${words}`);
  });
  console.log(words.trimEnd());
}

Deno.test({
  name: "who uses a disk is named with the place",
  ignore,
  async fn(t) {
    await using _both = await Serving.start(["serve", ...names.flatMap((name) => ["memory:160MiB", "--name", name])]);
    await sh(`mkdir -p ${place}`);
    for (const { what, begin, end, said } of uses) {
      await t.step(what, async () => {
        try {
          await sh(begin, { timeoutMs: 60_000 });
          await sh("udevadm settle");
          for (const [i, name] of names.entries()) await isNamed(name, said[i]!);
        } finally {
          await sh(end, { check: false });
        }
      });
    }
    for (const name of names) {
      await waitFor(`/dev/${name} can go`, async () => (await runRamdisk(`-d --name ${name}`)).status === 0, 30_000);
    }
    await sh(`rmdir ${place}`);
  },
});
