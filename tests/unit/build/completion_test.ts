// SPDX-License-Identifier: MIT
// Completion in real shells: TAB in bash and zsh at a terminal, and what fish would offer. The scripts are those that are packaged.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { bashCompletion } from "../../../src/build/completion/bash.ts";
import { fishCompletion } from "../../../src/build/completion/fish.ts";
import { commandWords, filterWords, ramdiskWords, schemeWords } from "../../../src/build/completion/words.ts";
import { zshCompletion } from "../../../src/build/completion/zsh.ts";

const folder = await Deno.makeTempDir();
const scripts = { "dblock.bash": bashCompletion(), "_dblock": zshCompletion(), "dblock.fish": fishCompletion() };
for (const [file, text] of Object.entries(scripts)) await Deno.writeTextFile(`${folder}/${file}`, text);
// Where the disks of the module are; this machine has none.
for (const name of ["scratch", "second"]) await Deno.mkdir(`${folder}/block/${name}/dblock`, { recursive: true });
await Deno.mkdir(`${folder}/block/sda`);
await Deno.mkdir(`${folder}/run`);
const started = { pid: 42, cwd: "/", words: ["memory:1MiB"] };
await Deno.writeTextFile(
  `${folder}/run/kernel.1.json`,
  `${JSON.stringify({ name: "kernel.1", ...started, kernelNbd: 0 })}\n`,
);
await Deno.writeTextFile(`${folder}/run/keeps.json`, `${JSON.stringify({ name: "keeps", ...started })}\n`);
await Deno.mkdir(`${folder}/here`);
for (const name of ["disk.img", "disk.ts"]) await Deno.writeTextFile(`${folder}/here/${name}`, "");

/** A shell at a terminal of its own. */
class Shell implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #count = 0;

  private constructor(command: string) {
    this.#child = new Deno.Command("script", {
      args: ["--quiet", "--command", `stty cols 1000; cd ${folder}/here; exec env PS1="> " ${command}`, "/dev/null"],
      env: { TERM: "dumb", HISTFILE: "/dev/null", HOME: folder },
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.getReader();
  }

  static async start(command: string, setUp: readonly string[]): Promise<Shell> {
    const shell = new Shell(command);
    for (const line of setUp) await shell.#typed(line);
    return shell;
  }

  /** What the terminal shows after a line and TAB: the completed line, or the words that it could be. */
  async tab(line: string): Promise<string> {
    return await this.#typed(`${line}\t\x15`);
  }

  /** Types, and returns what is shown before the end of the next command's output. */
  async #typed(text: string): Promise<string> {
    const mark = `end-${++this.#count}`;
    // A mark that is not its own echo.
    await this.#writer.write(
      new TextEncoder().encode(`${text}${text.endsWith("\x15") ? "" : "\n"}echo e""nd-${this.#count}\n`),
    );
    let shown = "";
    const decoder = new TextDecoder();
    // The prompt after it: what is typed before that, the terminal would take instead of the shell.
    while (!/> $/.test(plain(shown.slice(shown.indexOf(mark)))) || !shown.includes(mark)) {
      const { value, done } = await this.#reader.read();
      if (done) throw new Error(`the shell has ended: ${shown}`);
      shown += decoder.decode(value, { stream: true });
    }
    return plain(shown);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.write(new TextEncoder().encode("exit\n"));
    await this.#writer.close().catch(() => {});
    await this.#child.status;
    await this.#reader.cancel();
  }
}

/** Without colours and bells. */
function plain(shown: string): string {
  // deno-lint-ignore no-control-regex
  return shown.replaceAll(/\x1b\[[0-9;?]*[a-zA-Z]|\r|\x07/g, "");
}

/** What is typed, and every word that the terminal then shows; one that it must not. */
const TYPED: readonly [line: string, shown: readonly string[], not?: string][] = [
  ["dblock ser", ["dblock serve "]],
  ["dblock re", ["resize", "recover", "reload"], "destroy"],
  ["dblock info s", ["scratch", "second"], "sda"],
  ["dblock destroy sc", ["dblock destroy scratch "]],
  ["dblock destroy ke", ["dblock destroy kernel.1 "], "keeps"],
  ["dblock destroy --fo", ["--force "]],
  ["dblock serve memory:1MiB --on-death ho", ["--on-death hold "]],
  ["dblock serve memory:1MiB --transport n", ["--transport nbd "]],
  ["dblock serve memory:1MiB --tra", ["--transport"]],
  ["dblock serve mem", ["memory:"]],
  ["dblock serve ./disk.i", ["./disk.img"]],
  ["dblock serve memory:1MiB --with de", ["--with delay"]],
  ["dblock serve memory:1MiB --with delay=re", ["--with delay=read="]],
  ["dblock serve memory:1MiB --with delay=read=5ms,ji", ["--with delay=read=5ms,jitter="]],
  ["dblock help fil", ["dblock help filters "]],
  ["dblock-ramdisk --sto", ["--store"]],
  ["dblock-ramdisk --on-death f", ["--on-death fail "]],
];

/** A terminal's line, drawn again and again as TAB fills it in, has every word. */
function assertShown(said: string, [line, shown, not]: (typeof TYPED)[number]): void {
  for (const word of shown) assertStringIncludes(said, word, `${line}: ${JSON.stringify(said)}`);
  if (not !== undefined) assert(!said.includes(not), `${line}: ${JSON.stringify(said)}`);
}

Deno.test("TAB in bash completes subcommands, disks, options, kinds of disk, filters and their options", async () => {
  await using bash = await Shell.start("bash --norc --noprofile -i", [
    `bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'; __dblock_sys=${folder}/block __dblock_run=${folder}/run`,
    `source ${folder}/dblock.bash`,
  ]);
  for (const typed of TYPED) assertShown(await bash.tab(typed[0]), typed);
  assertShown(await bash.tab("dblock serve ./disk.img?di"), ["", ["./disk.img?direct"]]);
  assertShown(await bash.tab("dblock serve memory:1GiB?hu"), ["", ["memory:1GiB?hugepages"]]);
});

Deno.test("TAB in zsh does the same", async () => {
  await using zsh = await Shell.start("zsh -f -i", [
    `unsetopt zle_bracketed_paste prompt_sp; LISTMAX=1000; __dblock_sys=${folder}/block __dblock_run=${folder}/run`,
    `fpath=(${folder} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt menu_complete auto_menu; setopt list_ambiguous no_list_beep`,
    "bindkey -e",
  ]);
  for (const typed of TYPED) assertShown(await zsh.tab(typed[0]), typed);
});

Deno.test("fish offers the same", async () => {
  for (const [line, shown, not] of TYPED) {
    const script =
      `set __dblock_sys ${folder}/block; set __dblock_run ${folder}/run; source ${folder}/dblock.fish; complete -C '${line}'`;
    const { stdout, stderr } = await new Deno.Command("fish", {
      args: ["--no-config", "--command", script],
      cwd: `${folder}/here`,
      env: { HOME: folder },
    }).output();
    const offered = new TextDecoder().decode(stdout).split("\n").map((row) => row.split("\t")[0]!);
    assertEquals(new TextDecoder().decode(stderr), "");
    for (const word of shown) {
      const last = word.trim().split(" ").at(-1)!;
      assert(offered.some((one) => one === last || one.startsWith(last)), `${line}: ${offered.join(" ")}`);
    }
    if (not !== undefined) assertEquals(offered.includes(not), false, line);
  }
});

Deno.test("every option's value has a kind: policies, filters, files, words", () => {
  const commands = new Map(commandWords().map((command) => [command.name, command]));
  const kindOf = (command: string, name: string) => commands.get(command)!.options.find((one) => one.name === name)!;
  assertEquals(kindOf("serve", "on-death").words, ["remove", "fail", "hold"]);
  assertEquals(kindOf("serve", "with").kind, "filter");
  assertEquals([kindOf("serve", "config").kind, kindOf("serve", "name").kind], ["file", "any"]);
  assertEquals(["list", "info", "recover", "serve", "help"].map((name) => commands.get(name)!.operands), [
    ...["none", "disk", "disk", "spec", "command"],
  ]);
  assertEquals(ramdiskWords().find(({ name }) => name === "store")!.kind, "file");
  assertEquals([filterWords().length > 8, schemeWords()[0]!.prefixes], [true, ["file:"]]);
});
