// SPDX-License-Identifier: MIT
/** Completion for zsh. */
import { type CommandWords, commandWords, filterWords, type OptionWords, ramdiskWords, schemeWords } from "./words.ts";

/** The script, a file that is called _dblock. */
export function zshCompletion(): string {
  const commands = commandWords();
  const schemes = schemeWords().flatMap(({ prefixes }) => prefixes);
  return `#compdef dblock dblock-ramdisk
# Completion of dblock and dblock-ramdisk for zsh. Made by src/build/completion/main.ts from the tables of --help.

__dblock_disks() {
    local -a disks
    disks=(\${__dblock_sys:-/sys/block}/*/dblock(N:h:t))
    # Those of the kernel's NBD client (--transport nbd). Only root can look there.
    local started
    for started in \${__dblock_run:-/run/dblock}/*.json(N); do
        if grep -qs '"kernelNbd"' $started; then
            disks+=(\${started:t:r})
        fi
    done
    compadd -a disks
}

# NAME or NAME=OPTION=VALUE,OPTION=...
__dblock_filters() {
    if compset -P 1 '*='; then
        local filter=\${IPREFIX%=}
        filter=\${filter##*=}
        compset -P '*,'
        if compset -P '*='; then
            return 1
        fi
        case $filter in
${filterWords().map(([name, options]) => `        ${name}) compadd -S = -- ${options.join(" ")} ;;`).join("\n")}
        esac
    else
        compadd -S '' -- ${filterWords().map(([name]) => name).join(" ")}
    fi
}

__dblock_specs() {
    _files
    compadd -S '' -- ${schemes.join(" ")}
}

__dblock_commands() {
    local -a names
    names=(
${commands.map(({ name, text }) => `        ${quoted(`${name}:${text}`)}`).join("\n")}
    )
    _describe -t commands command names
}

__dblock_topics() {
    __dblock_commands
    compadd -- filters
}

_dblock() {
    local context state line
    typeset -A opt_args
    if [[ $service == dblock-ramdisk ]]; then
        _arguments -S \\
${ramdiskWords().map((option) => `            ${optionOf(option, false)}`).join(" \\\n")}
        return
    fi
    if (( CURRENT == 2 )); then
        __dblock_commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
${commands.map(caseOf).join("\n")}
    esac
}

_dblock "$@"
`;
}

function caseOf({ name, options, operands }: CommandWords): string {
  const words = [
    ...options.map((option) => optionOf(option, operands === "spec")),
    ...{
      disk: ["'*:disk:__dblock_disks'"],
      spec: ["'*:disk:__dblock_specs'"],
      command: ["':command:__dblock_topics'"],
      none: [],
    }[operands],
  ];
  return `    ${name})\n        _arguments -S \\\n${
    words.map((word) => `            ${word}`).join(" \\\n")
  }\n        ;;`;
}

/** @param isRepeated it may be there once for each disk */
function optionOf({ name, letter, text, kind, words }: OptionWords, isRepeated: boolean): string {
  const help = `[${text.replaceAll(/[\[\]]/g, "\\$&").replaceAll(":", "\\:")}]`;
  const value = {
    none: "",
    words: `:value:(${words.join(" ")})`,
    filter: ":filter:__dblock_filters",
    file: ":file:_files",
    any: ":value: ",
  }[kind];
  const star = isRepeated ? "*" : "";
  const long = quoted(`${star}--${name}${kind === "none" ? "" : "="}${help}${value}`);
  return letter === undefined ? long : `${quoted(`${star}-${letter}${help}${value}`)} ${long}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
