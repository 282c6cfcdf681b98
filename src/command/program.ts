// SPDX-License-Identifier: MIT
/**
 * The executable: `dblock`, or `dblock-ramdisk` if that is the name it was called by. What each of them does is in bundles of
 * their own: this one says which, and the others are not read.
 */
import { CALLED_AS, partOf } from "./part_names.ts";
import { basename } from "../system/path.ts";

/**
 * The name by which this program was called: of a link, or of a copy. A service that starts its successor says it, as the file
 * may have the other name.
 */
function calledAs(): string {
  const said = Deno.env.get(CALLED_AS);
  if (said !== undefined) return said;
  const [called = ""] = Deno.readTextFileSync("/proc/self/cmdline").split("\0");
  return basename(called);
}

async function run(words: readonly string[]): Promise<void> {
  if (calledAs().startsWith("dblock-ramdisk")) {
    const { ramdisk } = await import(new URL("./ramdisk.ts", import.meta.url).href);
    return await ramdisk(words);
  }
  switch (partOf(words)) {
    case "light":
      return await (await import(new URL("./light.ts", import.meta.url).href)).light(words);
    case "serving":
      return await (await import(new URL("./serving.ts", import.meta.url).href)).serving(words);
    case "main":
      return await (await import(new URL("./main.ts", import.meta.url).href)).dblock(words);
  }
}

if (import.meta.main) await run(Deno.args);
