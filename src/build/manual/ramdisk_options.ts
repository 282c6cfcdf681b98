// SPDX-License-Identifier: MIT
/** The options of dblock-ramdisk, whose `--help` is a text: read from it, so that nothing is said twice. */
import type { Option } from "../../command/command.ts";
import { HELP } from "../../command/ramdisk.ts";

const ROW = /^ {2}(?:-(\w), )?--([\w-]+)(?: ([A-Z]+))? {2,}(.*)$/;

/** Every option of `dblock-ramdisk --help`. */
export function ramdiskOptions(help: string = HELP): Option[] {
  const options: Option[] = [];
  for (const line of partOf(help, "Options:").split("\n")) {
    const [, letter, name, value, text] = ROW.exec(line) ?? [];
    const last = options.at(-1);
    if (name !== undefined) {
      const shown = { ...(letter === undefined ? {} : { letter }), ...(value === undefined ? {} : { value }) };
      options.push({ name, ...shown, text: text!.replaceAll(/ +/g, " ") });
    } else if (last !== undefined && /^ {21}/.test(line)) {
      options[options.length - 1] = { ...last, text: `${last.text} ${line.trim().replaceAll(/ +/g, " ")}` };
    }
  }
  return options;
}

/** The lines between a heading and the next empty line. */
function partOf(help: string, heading: string): string {
  const at = help.indexOf(`\n${heading}\n`);
  if (at < 0) throw new Error(`unreachable: --help has no ${heading}`);
  const start = at + heading.length + 2;
  return help.slice(start, help.indexOf("\n\n", start));
}
