// SPDX-License-Identifier: MIT
/** The subcommands of `dblock` that open no disk, without the others. */
import { runDblock } from "./command_line.ts";
import type { Command } from "./command.ts";
import { DESTROY } from "./destroy.ts";
import { DOCTOR } from "./doctor.ts";
import { INFO } from "./info.ts";
import { LIST } from "./list.ts";
import { RELOAD } from "./reload.ts";
import { RESIZE } from "./resize.ts";

/** Their table. */
export const LIGHT_COMMANDS: readonly Command[] = [LIST, INFO, DESTROY, RESIZE, RELOAD, DOCTOR];

/** Runs `dblock list …` and the like, and ends the program. */
export async function light(words: readonly string[]): Promise<never> {
  return await runDblock(words, LIGHT_COMMANDS);
}
