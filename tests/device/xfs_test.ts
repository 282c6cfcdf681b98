// XFS on a ramdisk takes a real tree of more than 60 MB and 2,000 files, and gives every byte back after a remount. More bytes
// are ext4's business.
// time limit: 180 s
import { survivesRemount } from "./filesystem.ts";

Deno.test("XFS keeps a real tree across a remount", async () => {
  const folders = ["share"];
  await survivesRemount({ type: "xfs", mkfs: "mkfs.xfs -q", fsck: "xfs_repair -n", folders, bytesMin: 60e6 });
});
