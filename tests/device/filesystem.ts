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
}

const tree = "/data";
const folders = "lib share";
const mountpoint = "/mnt";
const bytesMin = 200 * 10 ** 6;
const filesMin = 2_000;
/** Content, kind, mode, owner, link target and modification time of everything. */
const digest = `
  find ${folders} -type f -print0 | sort -z | xargs -0 md5sum
  find ${folders} -printf '%P %y %m %U:%G %l ' '(' -type f -printf '%s %T@\\n' -o -printf '\\n' ')' | sort`;

/**
 * Makes the file system on a ramdisk, copies a real tree to it, unmounts, checks, mounts again, and compares every file
 * with its original. All of it has left memory in between: the disk's cache goes with the last opener.
 */
export async function survivesRemount({ type, mkfs, fsck }: FileSystem): Promise<void> {
  await using disk = await Ramdisk.start({ name: type, args: ["--size", "1GiB"] });
  await sh(`${mkfs} ${disk.path} && mount -t ${type} ${disk.path} ${mountpoint}`);
  try {
    const [files, bytes] =
      (await sh(`cd ${tree}; find ${folders} -type f -printf '%s\\n' | awk '{ n++; b += $1 } END { print n, b }'`))
        .stdout.split(" ").map(Number) as [number, number];
    assert(files >= filesMin && bytes >= bytesMin, `${tree} has only ${files} files, ${bytes} bytes`);
    await sh(`cd ${tree}; cp --archive ${folders} ${mountpoint} && sync -f ${mountpoint}`, { timeoutMs: 90_000 });
    await sh(`umount ${mountpoint}`);
    await sh(`${fsck} ${disk.path}`);
    await sh(`mount -t ${type} -o ro ${disk.path} ${mountpoint}`);
    for (const [folder, file] of [[tree, "/tmp/before"], [mountpoint, "/tmp/after"]]) {
      await sh(`cd ${folder} && (${digest}) >${file}`, { timeoutMs: 90_000 });
    }
    assertEquals((await sh("diff /tmp/before /tmp/after | head", { check: false })).stdout, "");
  } finally {
    await sh(`umount ${mountpoint}`, { check: false });
  }
  assertEquals((await runRamdisk(`-d --name ${type}`)).status, 0);
  assertEquals((await disk.end()).code, 0);
}

/** ext4 on a disk that is there keeps 20 MB of a real tree across a remount. */
export async function keepsTree(path: string): Promise<void> {
  await sh(`mkfs.ext4 -q ${path} && mount ${path} ${mountpoint}`);
  try {
    await sh(`cp --archive ${tree}/share/perl ${mountpoint} && umount ${mountpoint} && fsck.ext4 -fn ${path}`);
    await sh(`mount -o ro ${path} ${mountpoint}`);
    const { stdout } = await sh(`diff -r --no-dereference ${tree}/share/perl ${mountpoint}/perl`, { check: false });
    assertEquals(stdout, "");
  } finally {
    await sh(`umount ${mountpoint}`, { check: false });
  }
}
