// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { deviceNumber, holdersOf, parseMountInfo, Search } from "../../../src/system/holders.ts";

Deno.test("parseMountInfo() reads device numbers, mount points and sources, spaces and all", () => {
  const text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
    "40 35 259:3 / /media/my\\040disk\\134x rw - ext4 /dev/disk0 rw\n";
  assertEquals(parseMountInfo(text), [
    { device: "98:0", target: "/mnt2", type: "ext3", source: "/dev/root" },
    { device: "259:3", target: "/media/my disk\\x", type: "ext4", source: "/dev/disk0" },
  ]);
});

Deno.test("deviceNumber() takes a dev_t apart, with the upper bits of both numbers", () => {
  assertEquals(deviceNumber(0x0800), "8:0");
  assertEquals(deviceNumber(0x103_03), "259:3");
  // makedev(0x1234, 0x56789) of glibc.
  assertEquals(deviceNumber(0x1000_5672_3489), "4660:354185");
});

/** A machine of files: /proc and /sys as far as they are looked at. */
async function machine(files: Readonly<Record<string, string>>): Promise<{ root: string } & AsyncDisposable> {
  const root = await Deno.makeTempDir();
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(`${root}${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
    if (!path.endsWith("/")) await Deno.writeTextFile(root + path, text);
  }
  return { root, [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }) };
}

const disk = { "/sys/class/block/a/dev": "252:0\n" };
const mountinfo = (line: string) => ({ "/proc/self/mountinfo": `${line}\n` });

const cases: [what: string, files: Record<string, string>, holders: string[]][] = [
  [
    "a mount of a partition",
    {
      ...disk,
      "/sys/class/block/a/a1/partition": "1\n",
      "/sys/class/block/a1/dev": "259:1\n",
      ...mountinfo("1 2 259:1 / /mnt rw - ext4 /dev/root rw"),
    },
    ["mounted on /mnt"],
  ],
  [
    "a btrfs of two disks, mounted by the name of the other one",
    {
      ...disk,
      "/sys/fs/btrfs/0f/devices/a": "",
      "/sys/fs/btrfs/0f/devices/b": "",
      "/sys/fs/btrfs/1f/devices/c": "",
      ...mountinfo("1 2 0:52 / /mnt rw - btrfs /dev/b rw"),
    },
    ["mounted on /mnt"],
  ],
  [
    "a file system that names all its disks",
    { ...disk, ...mountinfo("1 2 0:60 / /mnt rw - bcachefs /dev/b:/dev/a rw") },
    ["mounted on /mnt"],
  ],
  ["another btrfs", {
    ...disk,
    "/sys/fs/btrfs/1f/devices/c": "",
    ...mountinfo("1 2 0:52 / /mnt rw - btrfs /dev/c rw"),
  }, []],
  [
    "a logical volume, mounted",
    {
      ...disk,
      "/sys/class/block/a/holders/dm-1": "",
      "/sys/class/block/dm-1/dev": "253:1\n",
      "/sys/class/block/dm-1/dm/name": "vg-lv\n",
      ...mountinfo("1 2 253:1 / /srv rw - xfs /dev/mapper/vg-lv rw"),
    },
    ["part of /dev/mapper/vg-lv, which is mounted on /srv"],
  ],
  [
    "swap on a logical volume on a RAID, and another volume that nobody uses",
    {
      ...disk,
      "/sys/class/block/a/holders/md0": "",
      "/sys/class/block/md0/dev": "9:0\n",
      "/sys/class/block/md0/holders/dm-1": "",
      "/sys/class/block/md0/holders/dm-10": "",
      "/sys/class/block/dm-1/dev": "253:1\n",
      "/sys/class/block/dm-10/dev": "253:10\n",
      "/proc/swaps": "Filename Type Size Used Priority\n/dev/dm-1 partition 1 0 -2\n",
    },
    ["part of /dev/dm-1, which is swap", "part of /dev/md0", "part of /dev/dm-10"],
  ],
  ["swap", { ...disk, "/proc/swaps": "Filename\n/dev/a partition 1 0 -2\n" }, ["/dev/a is swap"]],
  [
    "a loop device",
    { ...disk, "/sys/class/block/loop3/loop/backing_file": "/dev/a\n", "/sys/class/block/loop3/dev": "7:3\n" },
    ["behind /dev/loop3"],
  ],
];
for (const [what, files, holders] of cases) {
  Deno.test(`holdersOf() finds ${what}${holders.length === 0 ? ": not ours" : ""}`, async () => {
    await using made = await machine(files);
    const found = await new Search(made.root).holdersOf("a");
    assertEquals(found.toSorted(), holders.toSorted());
  });
}

Deno.test("holdersOf() names five at most, and says how many more", async () => {
  const lines = Array.from({ length: 7 }, (_, i) => `1 2 252:0 / /mnt${i} rw - ext4 /dev/a rw`).join("\n");
  await using made = await machine({ ...disk, ...mountinfo(lines) });
  const found = await new Search(made.root).holdersOf("a");
  assertEquals([found.length, found[0], found[5]], [6, "mounted on /mnt0", "and 2 more"]);
});

Deno.test("holdersOf() finds nobody for a disk that is not there", async () => {
  assertEquals(await holdersOf("no-such-disk"), []);
});

Deno.test("holdersOf() looks at no open file outside of /dev, whose file system may wait for the disk", async () => {
  await using made = await machine({ ...disk, "/proc/7/fd/": "", "/proc/7/comm": "fio\n", "/file": "" });
  await Deno.symlink(`${made.root}/file`, `${made.root}/proc/7/fd/3`);
  await Deno.symlink("/dev/null", `${made.root}/proc/7/fd/4`);
  const { statSync } = Deno;
  const looked: string[] = [];
  Deno.statSync = (path) => {
    looked.push(String(path));
    return statSync(path);
  };
  try {
    assertEquals(await new Search(made.root).holdersOf("a"), []);
  } finally {
    Deno.statSync = statSync;
  }
  assertEquals(looked, [`${made.root}/proc/7/fd/4`]);
});

Deno.test("holdersOf() lets other work of its thread go on between two processes", async () => {
  await using made = await machine({ ...disk, "/proc/7/fd/": "", "/proc/8/fd/": "", "/proc/9/fd/": "" });
  const { readDirSync } = Deno;
  const turns: number[] = [];
  let turn = 0;
  const work = () => {
    turn++;
    next = setImmediate(work);
  };
  let next = setImmediate(work);
  Deno.readDirSync = (path) => {
    if (String(path).endsWith("/fd")) turns.push(turn);
    return readDirSync(path);
  };
  try {
    await new Search(made.root).holdersOf("a");
  } finally {
    Deno.readDirSync = readDirSync;
    clearImmediate(next);
  }
  assertEquals([turns.length, new Set(turns).size], [3, 3]);
});

Deno.test("holdersOf() tells what it has found when a list of mounts does not come", async () => {
  await using made = await machine({
    ...disk,
    "/proc/self/": "",
    "/proc/swaps": "Filename\n/dev/a partition 1 0 -2\n",
  });
  const mounts = `${made.root}/proc/self/mountinfo`;
  await new Deno.Command("mkfifo", { args: [mounts] }).output(); // reading it waits for a writer
  const late = Promise.withResolvers<string[]>();
  const timer = setTimeout(late.resolve, 30_000, ["nothing for 30 s"]);
  const found = await Promise.race([new Search(made.root).holdersOf("a"), late.promise]);
  clearTimeout(timer);
  await Deno.writeTextFile(mounts, ""); // the thread that reads it ends
  assertEquals(found, ["/dev/a is swap"]);
});

Deno.test("Search says that it is incomplete when /proc does not answer in time", async () => {
  await using there = await machine({ ...disk, "/proc/self/": "" });
  const fifo = `${there.root}/proc/self/mountinfo`;
  await new Deno.Command("mkfifo", { args: [fifo] }).output();
  const search = new Search(there.root);
  assertEquals([await search.holdersOf("a", 50), search.isIncomplete], [[], true]);
  // Nobody may wait for it behind the test's back; and with an answer it is complete.
  await Deno.writeTextFile(fifo, "1 2 252:0 / /mnt rw - ext4 /dev/a rw\n");
  await Deno.remove(fifo);
  await Deno.writeTextFile(fifo, "1 2 252:0 / /mnt rw - ext4 /dev/a rw\n");
  const next = new Search(there.root);
  assertEquals([await next.holdersOf("a"), next.isIncomplete], [["mounted on /mnt"], false]);
});
