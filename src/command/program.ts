// SPDX-License-Identifier: MIT
/**
 * The executable: `dblock`, or `dblock-ramdisk` if that is the name it was called by. Most of `dblock`
 * is a bundle of its own, so that the ramdisk and what opens no disk start as if there were nothing else.
 */
import { isLight, LIGHT_COMMANDS, runDblock } from "./command_line.ts";
import { CALLED_AS } from "./cli.ts";
import { basename } from "./path.ts";
import { ramdisk } from "./ramdisk.ts";

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

if (import.meta.main) {
  if (calledAs().startsWith("dblock-ramdisk")) await ramdisk(Deno.args);
  else if (isLight(Deno.args)) await runDblock(Deno.args, LIGHT_COMMANDS);
  else {
    const { dblock } = await import(new URL("./main.ts", import.meta.url).href);
    await dblock(Deno.args);
  }
}
