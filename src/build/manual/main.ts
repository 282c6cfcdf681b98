// SPDX-License-Identifier: MIT
/**
 * Writes the manual: `main.ts FOLDER` makes dblock.1, dblock-ramdisk.1, dblock.conf.5 and dblock.4 there. The date in them is
 * SOURCE_DATE_EPOCH, so that the same sources give the same pages.
 */
import { pages } from "./pages.ts";
import { readModuleSources } from "./module_sources.ts";

if (import.meta.main) {
  const [folder] = Deno.args;
  if (folder === undefined) throw new Error("Usage: main.ts FOLDER");
  const seconds = Number(Deno.env.get("SOURCE_DATE_EPOCH") ?? Date.now() / 1000);
  Deno.mkdirSync(folder, { recursive: true });
  const kmod = `${import.meta.dirname}/../../../kmod`;
  for (const { file, text } of pages(new Date(seconds * 1000), readModuleSources(kmod))) {
    Deno.writeTextFileSync(`${folder}/${file}`, text);
  }
}
