// SPDX-License-Identifier: MIT
/** Writes the completions: `main.ts FOLDER` makes dblock.bash, _dblock (zsh) and dblock.fish there. */
import { bashCompletion } from "./bash.ts";
import { fishCompletion } from "./fish.ts";
import { zshCompletion } from "./zsh.ts";

if (import.meta.main) {
  const [folder] = Deno.args;
  if (folder === undefined) throw new Error("Usage: main.ts FOLDER");
  Deno.mkdirSync(folder, { recursive: true });
  const scripts = { "dblock.bash": bashCompletion(), "_dblock": zshCompletion(), "dblock.fish": fishCompletion() };
  for (const [file, text] of Object.entries(scripts)) Deno.writeTextFileSync(`${folder}/${file}`, text);
}
