// SPDX-License-Identifier: MIT
/** Completion for bash: a script that needs nothing but bash 4. */
import { commandWords, filterWords, type OptionWords, ramdiskWords, schemeWords } from "./words.ts";

/** The script. */
export function bashCompletion(): string {
  const commands = commandWords();
  const [file, ...others] = schemeWords();
  return `# Completion of dblock and dblock-ramdisk for bash. Made by src/build/completion/main.ts from the tables of --help.

# The disks that there are, whoever serves them.
__dblock_disks() {
    local disk
    for disk in "\${__dblock_sys:-/sys/block}"/*/dblock; do
        [ -e "$disk" ] || continue
        disk=\${disk%/dblock}
        echo "\${disk##*/}"
    done
    # Those of the kernel's NBD client (--transport nbd). Only root can look there.
    for disk in "\${__dblock_run:-/run/dblock}"/*.json; do
        grep -qs '"kernelNbd"' "$disk" || continue
        disk=\${disk##*/}
        echo "\${disk%.json}"
    done
}

# What a SPEC's parameters are: of the scheme that it begins with, or of a file.
__dblock_parameters() {
    case $1 in
${
    others.map(({ prefixes, parameters }) =>
      `    ${prefixes.map((one) => `${one}*`).join(" | ")}) echo "${parameters.join(" ")}" ;;`
    ).join("\n")
  }
    *) echo "${file!.parameters.join(" ")}" ;;
    esac
}

# The options of a filter.
__dblock_filter_options() {
    case $1 in
${
    filterWords().map(([name, options]) => `    ${name}) echo "${options.map((one) => `${one}=`).join(" ")}" ;;`).join(
      "\n",
    )
  }
    esac
}

# Offers words that begin with what is typed behind a prefix that stays; bash replaces what follows the last "=" or ":" alone.
__dblock_offer() {
    local prefix=$1 typed=$2 word
    shift 2
    for word in "$@"; do
        [[ $word == "$typed"* ]] || continue
        word=$prefix$word
        case $word in *= | *:) ;; *) [ -n "$__dblock_open" ] || word="$word " ;; esac
        COMPREPLY+=("\${word#"$__dblock_strip"}")
    done
}

__dblock_files() {
    local path
    compopt -o filenames 2>/dev/null
    while read -r path; do COMPREPLY+=("\${path#"$__dblock_strip"}"); done < <(compgen -f -- "$1")
}

# NAME or NAME=OPTION=VALUE,OPTION=...
__dblock_filter() {
    local typed=$1 name options
    if [[ $typed != *=* ]]; then
        __dblock_open=1 __dblock_offer "" "$typed" ${filterWords().map(([name]) => name).join(" ")}
        return
    fi
    name=\${typed%%=*}
    options=\${typed#*=}
    local last=\${options##*,}
    case $last in
    *=*) ;;
    *) __dblock_offer "$name=\${options%"$last"}" "$last" $(__dblock_filter_options "$name") ;;
    esac
}

__dblock_spec() {
    local typed=$1
    if [[ $typed == *\\?* ]]; then
        local given=\${typed#*\\?}
        local last=\${given##*&}
        __dblock_open=1 __dblock_offer "\${typed%"$last"}" "$last" $(__dblock_parameters "$typed")
        return
    fi
    __dblock_offer "" "$typed" ${schemeWords().flatMap(({ prefixes }) => prefixes).join(" ")}
    # As names of files the others would be quoted.
    [ "\${#COMPREPLY[@]}" -gt 0 ] || __dblock_files "$typed"
}

# The value of an option, if the word before is one that has a value. $1: the option with its command, $2: what is typed.
__dblock_value() {
    case $1 in
${
    commands.flatMap(({ name, options }) => options.map((option) => valueCase(name, option))).filter((line) =>
      line !== ""
    ).join("\n")
  }
${ramdiskWords().map((option) => valueCase("ramdisk", option)).filter((line) => line !== "").join("\n")}
    *) return 1 ;;
    esac
}

# Sets "typed", the word at the cursor, and "words", those before it: divided by blanks alone.
__dblock_read_line() {
    local line=\${COMP_LINE:0:COMP_POINT}
    typed=\${line##*[[:space:]]}
    read -ra words <<<"\${line%"$typed"}"
    __dblock_open=
    __dblock_strip=
    [[ $typed == *[=:]* ]] && __dblock_strip=\${typed%"\${typed##*[=:]}"}
    COMPREPLY=()
    compopt -o nospace 2>/dev/null
}

__dblock() {
    local typed words __dblock_open __dblock_strip word command=
    __dblock_read_line
    for word in "\${words[@]:1}"; do
        [[ $word == -* ]] || { command=$word && break; }
    done
    if [ -z "$command" ]; then
        __dblock_offer "" "$typed" ${commands.map(({ name }) => name).join(" ")} --help --version
        return
    fi
    [[ $typed == --*=* ]] && __dblock_value "$command \${typed%%=*}" "\${typed#*=}" "\${typed%%=*}=" && return
    __dblock_value "$command \${words[-1]}" "$typed" && return
    case "$command $typed" in
${
    commands.map(({ name, options }) =>
      `    "${name} -"*) __dblock_offer "" "$typed" ${options.map((one) => `--${one.name}`).join(" ")} ;;`
    ).join("\n")
  }
${commands.map(({ name, operands }) => operandCase(name, operands)).filter((line) => line !== "").join("\n")}
    esac
}

__dblock_ramdisk() {
    local typed words __dblock_open __dblock_strip
    __dblock_read_line
    __dblock_value "ramdisk \${words[-1]}" "$typed" && return
    __dblock_offer "" "$typed" ${ramdiskWords().map((one) => `--${one.name}`).join(" ")}
}

complete -F __dblock dblock
complete -F __dblock_ramdisk dblock-ramdisk
`;
}

function valueCase(command: string, { name, kind, words }: OptionWords): string {
  const pattern = `    "${command} --${name}")`;
  switch (kind) {
    case "none":
      return "";
    case "words":
      return `${pattern} __dblock_offer "$3" "$2" ${words.join(" ")} ;;`;
    case "filter":
      return `${pattern} __dblock_filter "$2" ;;`;
    case "file":
      return `${pattern} __dblock_files "$2" ;;`;
    case "any":
      return command === "ramdisk" && name === "name"
        ? `${pattern} __dblock_offer "" "$2" $(__dblock_disks) ;;`
        : `${pattern} ;;`;
  }
}

function operandCase(command: string, operands: "disk" | "spec" | "command" | "none"): string {
  const pattern = `    "${command} "*)`;
  switch (operands) {
    case "disk":
      return `${pattern} __dblock_offer "" "$typed" $(__dblock_disks) ;;`;
    case "spec":
      return `${pattern} __dblock_spec "$typed" ;;`;
    case "command":
      return `${pattern} __dblock_offer "" "$typed" ${commandWords().map(({ name }) => name).join(" ")} filters ;;`;
    case "none":
      return "";
  }
}
