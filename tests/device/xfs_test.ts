// XFS on a ramdisk takes a real tree of more than 200 MB and 2,000 files, and gives every byte back after a remount.
// time limit: 180 s
import { survivesRemount } from "./filesystem.ts";

Deno.test("XFS keeps a real tree across a remount", async () => {
  await survivesRemount({ type: "xfs", mkfs: "mkfs.xfs -q", fsck: "xfs_repair -n" });
});
