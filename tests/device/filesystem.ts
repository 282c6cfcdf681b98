/** A file system on a disk, put to the use that people make of one. */
import { assert, assertEquals } from "@std/assert";
import { sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";

/** What differs between file systems. */
export interface FileSystem {
  readonly type: string;
  readonly mkfs: string;
  /** Checks an unmounted one and ends with 0 only if nothing is wrong. */
  readonly fsck: string;
  /** What of /data is put on it, and so much of that there is at least. */
  readonly folders: readonly string[];
  readonly bytesMin: number;
}

const tree = "/data";
const mountpoint = "/mnt";
const filesMin = 2_000;
/** Kind, mode, owner, link target and modification time of everything. */
const attributes = `-printf '%P %y %m %U:%G %l ' '(' -type f -printf '%s %T@\\n' -o -printf '\\n' ')' | sort`;

/**
 * Makes the file system on a ramdisk, copies a real tree to it, unmounts, checks, mounts again, and compares every file
 * with its original. All of it has left memory in between: the disk's cache goes with the last opener.
 */
export async function survivesRemount({ type, mkfs, fsck, folders, bytesMin }: FileSystem): Promise<void> {
  const all = folders.join(" ");
  await using disk = await Ramdisk.start({ name: type, args: ["--size", "1GiB"] });
  await sh(`${mkfs} ${disk.path} && mount -t ${type} ${disk.path} ${mountpoint}`);
  try {
    const [files, bytes] =
      (await sh(`cd ${tree}; find ${all} -type f -printf '%s\\n' | awk '{ n++; b += $1 } END { print n, b }'`))
        .stdout.split(" ").map(Number) as [number, number];
    assert(files >= filesMin && bytes >= bytesMin, `${tree} has only ${files} files, ${bytes} bytes`);
    await sh(`cd ${tree}; cp --archive ${all} ${mountpoint} && sync -f ${mountpoint}`, { timeoutMs: 90_000 });
    await sh(`umount ${mountpoint}`);
    await sh(`${fsck} ${disk.path}`);
    await sh(`mount -t ${type} -o ro ${disk.path} ${mountpoint}`);
    for (const [folder, file] of [[tree, "/tmp/before"], [mountpoint, "/tmp/after"]]) {
      await sh(`cd ${folder} && (find ${all} ${attributes}) >${file}`, { timeoutMs: 90_000 });
    }
    assertEquals((await sh("diff /tmp/before /tmp/after | head", { check: false })).stdout, "");
    for (const folder of folders) await assertSame(`${tree}/${folder}`, `${mountpoint}/${folder}`);
  } finally {
    await sh(`umount ${mountpoint}`, { check: false });
  }
  assertEquals((await runRamdisk(`-d --name ${type}`)).status, 0);
  assertEquals((await disk.end()).code, 0);
}

/** Checks that two folders have the same files with the same content. */
async function assertSame(before: string, after: string): Promise<void> {
  const { status, stdout, stderr } = await sh(`diff -rq --no-dereference ${before} ${after}`, {
    check: false,
    timeoutMs: 90_000,
  });
  assertEquals([status, stdout, stderr], [0, "", ""]);
}

/** ext4 on a disk that is there keeps a folder, 20 MB of a real tree unless another one is given, across a remount. */
export async function keepsTree(path: string, from = `${tree}/share/perl`): Promise<void> {
  await sh(`mkfs.ext4 -q ${path} && mount ${path} ${mountpoint}`);
  try {
    await sh(`cp --archive ${from} ${mountpoint} && umount ${mountpoint} && fsck.ext4 -fn ${path}`);
    await sh(`mount -o ro ${path} ${mountpoint}`);
    await assertSame(from, `${mountpoint}/${from.slice(from.lastIndexOf("/") + 1)}`);
  } finally {
    await sh(`umount ${mountpoint}`, { check: false });
  }
}
