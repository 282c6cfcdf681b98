// SPDX-License-Identifier: MIT
/** The table of subcommands, in the order in which help shows them. */
import { BENCH } from "./bench.ts";
import type { Command } from "./command.ts";
import { DESTROY } from "./destroy.ts";
import { DOCTOR } from "./doctor.ts";
import { helpOver } from "./help.ts";
import { INFO } from "./info.ts";
import { LIST } from "./list.ts";
import { METRICS } from "./metrics.ts";
import { RECOVER } from "./recover.ts";
import { RELOAD } from "./reload.ts";
import { RESIZE } from "./resize.ts";
import { SERVE } from "./serve.ts";
import { TOP } from "./top.ts";

/** Every subcommand. */
export const COMMANDS: readonly Command[] = [
  SERVE,
  LIST,
  INFO,
  DESTROY,
  RESIZE,
  RECOVER,
  RELOAD,
  TOP,
  METRICS,
  BENCH,
  DOCTOR,
  helpOver(() => COMMANDS),
];
