// The first program of src/README.md, exactly as it stands there, is a disk that takes a file system.
import { assert, assertEquals } from "@std/assert";
import { exists, sh, waitFor } from "./harness.ts";
import { runRamdisk } from "./ramdisk.ts";

const mapping = "--import-map=src/build/standins/import_map.json";

Deno.test("the example of src/README.md works", async () => {
  const readme = await Deno.readTextFile("src/README.md");
  const program = /```ts\n([^]*?)```/.exec(readme)?.[1];
  assert(program !== undefined, "src/README.md has no program");
  const name = /name: "([^"]+)"/.exec(program)?.[1];
  assert(name !== undefined, "the program gives its disk no name");
  // Beside mod.ts, as a reader would put it.
  await Deno.writeTextFile("src/.readme-example.ts", program);
  const child = new Deno.Command("deno", {
    args: ["run", "--allow-all", "--no-check", mapping, "src/.readme-example.ts"],
    stdin: "null",
  }).spawn();
  try {
    await waitFor(`/dev/${name} appears`, () => exists(`/dev/${name}`));
    await sh(`mkfs.ext4 -q /dev/${name} && mount /dev/${name} /mnt && cp src/*.ts /mnt && umount /mnt`);
    await sh(
      `fsck.ext4 -fn /dev/${name}; mount -o ro /dev/${name} /mnt; cmp src/module/abi.ts /mnt/abi.ts; umount /mnt`,
    );
    assertEquals((await runRamdisk(`-d --name ${name}`)).status, 0);
    assertEquals((await child.status).code, 0);
  } finally {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await child.status;
  }
  await waitFor(`/dev/${name} is gone`, () => !exists(`/dev/${name}`));
});
