// SPDX-License-Identifier: MIT
/** Which part of the executable has a command line: nothing else is needed to say so, and the other parts are not read. */

/** The variable that says by which name the program was called, where its file's name may be the other one. */
export const CALLED_AS = "DBLOCK_CALLED_AS";

/** Subcommands that open no disk: they need little, and so they start faster by themselves than with all the others. */
export const LIGHT_NAMES: readonly string[] = ["list", "info", "destroy", "resize", "reload", "doctor"];
/** Subcommands that serve disks: somebody may wait for the disk. */
export const SERVING_NAMES: readonly string[] = ["serve", "recover"];

/** The part that has these words. */
export function partOf([name = ""]: readonly string[]): "light" | "serving" | "main" {
  if (name === "--version" || LIGHT_NAMES.includes(name)) return "light";
  return SERVING_NAMES.includes(name) ? "serving" : "main";
}
