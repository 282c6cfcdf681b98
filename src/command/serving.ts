// SPDX-License-Identifier: MIT
/** The subcommands of `dblock` that serve disks, without the others. */
import { runDblock } from "./command_line.ts";
import type { Command } from "./command.ts";
import { RECOVER } from "./recover.ts";
import { SERVE } from "./serve.ts";

/** Their table. */
export const SERVING_COMMANDS: readonly Command[] = [SERVE, RECOVER];

/** Runs `dblock serve …` or `dblock recover …` and ends the program. */
export async function serving(words: readonly string[]): Promise<never> {
  return await runDblock(words, SERVING_COMMANDS);
}
