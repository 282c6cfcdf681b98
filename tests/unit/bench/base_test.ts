import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { forgetCheckouts } from "../../bench/base.ts";

Deno.test("forgetCheckouts() keeps the two that were used last, and removes what was built of the others", async () => {
  const buildDir = await Deno.makeTempDir();
  try {
    for (const [i, name] of ["base-0a", "base-1b", "base-2c", "base-3d", "ublk_memory"].entries()) {
      const dir = join(buildDir, "bench", name);
      await Deno.mkdir(join(dir, "src"), { recursive: true });
      await Deno.mkdir(join(buildDir, `kmod-${name}`));
      await Deno.writeTextFile(`${dir}.lock`, "");
      await Deno.utime(dir, 1000 - i, 1000 - i);
    }
    await forgetCheckouts(buildDir);
    const names = (dir: string) => [...Deno.readDirSync(dir)].map(({ name }) => name).sort();
    const kept = ["base-0a", "base-0a.lock", "base-1b", "base-1b.lock", "ublk_memory", "ublk_memory.lock"];
    assertEquals(names(join(buildDir, "bench")), kept);
    assertEquals(names(buildDir), ["bench", "kmod-base-0a", "kmod-base-1b", "kmod-ublk_memory"]);
  } finally {
    await Deno.remove(buildDir, { recursive: true });
  }
});
