// ext4 on a ramdisk takes a real tree of more than 200 MB and 2,000 files, and gives every byte back after a remount.
// time limit: 180 s
import { survivesRemount } from "./filesystem.ts";

Deno.test("ext4 keeps a real tree across a remount", async () => {
  const folders = ["lib", "share"];
  await survivesRemount({ type: "ext4", mkfs: "mkfs.ext4 -q", fsck: "fsck.ext4 -fn", folders, bytesMin: 200e6 });
});
