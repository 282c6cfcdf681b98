// SPDX-License-Identifier: MIT
/** Completion for fish. */
import { commandWords, filterWords, type OptionWords, ramdiskWords, schemeWords } from "./words.ts";

/** The script. */
export function fishCompletion(): string {
  const commands = commandWords();
  const names = commands.map(({ name }) => name).join(" ");
  const lines = commands.flatMap(({ name, text, options, operands }) => {
    const seen = `-n '__fish_seen_subcommand_from ${name}'`;
    const own = options.map((option) => `complete -c dblock ${seen} ${optionOf(option)}`);
    const isFirst = `complete -c dblock -n 'not __fish_seen_subcommand_from ${names}' -f -a ${name} -d ${quoted(text)}`;
    switch (operands) {
      case "disk":
        return [isFirst, ...own, `complete -c dblock ${seen} -f -a '(__dblock_disks)' -d disk`];
      case "spec":
        return [
          isFirst,
          ...own,
          `complete -c dblock ${seen} -F -a '${schemeWords().flatMap(({ prefixes }) => prefixes).join(" ")}'`,
        ];
      case "command":
        return [isFirst, ...own, `complete -c dblock ${seen} -f -a '${names} filters'`];
      case "none":
        return [isFirst, ...own, `complete -c dblock ${seen} -f`];
    }
  });
  return `# Completion of dblock and dblock-ramdisk for fish. Made by src/build/completion/main.ts from the tables of --help.

function __dblock_disks --description 'The disks that there are'
    for disk in (set -q __dblock_sys; and echo $__dblock_sys; or echo /sys/block)/*/dblock
        basename (dirname $disk)
    end
    # Those of the kernel's NBD client (--transport nbd). Only root can look there.
    for started in (set -q __dblock_run; and echo $__dblock_run; or echo /run/dblock)/*.json
        grep -qs '"kernelNbd"' $started; and basename $started .json
    end
end

function __dblock_filters --description 'Filters, and the options of the one that is typed'
    set -l typed (commandline -ct | string replace -r '^--with=' '')
    switch $typed
${
    filterWords().filter(([, options]) => options.length > 0).map(([name, options]) =>
      `        case '${name}=*'
            set -l before (string replace -r '[^=,]*$' '' -- $typed)
            string match -qr ',[^=]*$|^${name}=[^=]*$' -- $typed; and for option in ${options.join(" ")}
                echo $before$option=
            end`
    ).join("\n")
  }
        case '*'
            for name in ${filterWords().map(([name]) => name).join(" ")}
                echo $name
            end
    end
end

${lines.join("\n")}
${ramdiskWords().map((option) => `complete -c dblock-ramdisk ${optionOf(option)}`).join("\n")}
complete -c dblock-ramdisk -l name -x -a '(__dblock_disks)'
`;
}

function optionOf({ name, letter, text, kind, words }: OptionWords): string {
  const value = {
    none: "-f",
    words: `-x -a '${words.join(" ")}'`,
    filter: "-x -a '(__dblock_filters)'",
    file: "-r -F",
    any: "-x",
  }[kind];
  return `-l ${name}${letter === undefined ? "" : ` -s ${letter}`} ${value} -d ${quoted(text)}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
