/** A folder on a real file system: that of /tmp is in memory, where O_DIRECT is not there (before 6.6), or is only said to be. */
import { sh } from "./harness.ts";
import { Serving } from "./serving.ts";

const FOLDER = "/tmp/ext4-folder";

/** Mounts an ext4 of 128 MiB, on a disk of a server of its own, until it is disposed. */
export async function ext4Folder(): Promise<AsyncDisposable & { readonly path: string }> {
  const serving = await Serving.start(["serve", "memory:128MiB", "--name", "ext4folder"]);
  await sh(`mkfs.ext4 -q /dev/ext4folder && mkdir -p ${FOLDER} && mount /dev/ext4folder ${FOLDER}`);
  return {
    path: FOLDER,
    async [Symbol.asyncDispose]() {
      await sh(`umount ${FOLDER}`);
      await serving[Symbol.asyncDispose]();
    },
  };
}
