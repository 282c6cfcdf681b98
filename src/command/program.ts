// SPDX-License-Identifier: MIT
/**
 * The executable: `dblock`, or `dblock-ramdisk` if that is the name it was called by. Each is a bundle of its own, so that
 * the ramdisk starts as if there were nothing else.
 */
import { basename } from "./path.ts";
import { ramdisk } from "./ramdisk.ts";

/** The name by which this program was called: of a link, or of a copy. */
function calledAs(): string {
  const [called = ""] = Deno.readTextFileSync("/proc/self/cmdline").split("\0");
  return basename(called);
}

if (import.meta.main) {
  if (calledAs().startsWith("dblock-ramdisk")) await ramdisk(Deno.args);
  else {
    const { dblock } = await import(new URL("./main.ts", import.meta.url).href);
    await dblock(Deno.args);
  }
}
