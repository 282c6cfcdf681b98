// SPDX-License-Identifier: MIT
import { assertEquals, assertMatch, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { helpOf } from "../../../src/command/command.ts";
import { COMMANDS } from "../../../src/command/commands.ts";
import { readConfig } from "../../../src/command/config.ts";
import { readItems } from "../../../src/command/command.ts";
import { DISK_OPTIONS, exportNames, readDisks } from "../../../src/command/disk_plan.ts";
import { overview } from "../../../src/command/command_line.ts";
import { LIGHT_COMMANDS } from "../../../src/command/light.ts";
import { LIGHT_NAMES, partOf, SERVING_NAMES } from "../../../src/command/part_names.ts";
import { SERVING_COMMANDS } from "../../../src/command/serving.ts";
import { readCommandLine } from "../../../src/command/main.ts";
import { plansOf as plansToRecover } from "../../../src/command/recover.ts";
import { SERVE } from "../../../src/command/serve.ts";
import { splitWords } from "../../../src/command/words.ts";
import { filters } from "../../../src/filters/table.ts";

for (const command of COMMANDS) {
  Deno.test(`every example of dblock ${command.name} --help can be typed`, () => {
    for (const { words } of command.examples) {
      assertEquals(words.split(" ")[0], command.name);
      assertEquals(typeof readCommandLine(splitWords(words)), "function", words);
    }
    assertEquals(command.examples.length > 0, true);
  });

  Deno.test(`dblock ${command.name} --help has every option, and fits on a terminal`, () => {
    const help = helpOf(command);
    for (const { name } of command.options) assertStringIncludes(help, `--${name}`);
    assertEquals(help.split("\n").filter((line) => line.length > 84), []);
    assertStringIncludes(overview(COMMANDS), `dblock ${command.name}`);
  });
}

/** What is typed wrongly, and what is said. */
const WRONG: readonly [words: string, said: string][] = [
  ["", "a command is missing"],
  ["serv", "there is no command serv; did you mean serve?"],
  ["--json list", "stands before the command"],
  ["serve", "a SPEC is missing"],
  ["serve --name a", "the SPEC is missing"],
  ["resize a -5", "there is no option -5"],
  ["serve slice:memory:1MiB?offset=1 --name a", "offset 1 is 1 bytes, not a multiple of 512"],
  ["serve memory:1MiB --nmae a", "there is no option --nmae; did you mean --name?"],
  ["serve memory:1MiB --name", "--name needs a value: --name NAME"],
  ["serve memory:1MiB --name a/b", '"a/b" cannot be a disk\'s name'],
  ["serve memory:1MiB --read-only=yes", "--read-only takes no value"],
  ["serve memory:1MiB --timeout 5000", '"5000" is not a timeout'],
  ["serve memory:1MiB --timeout 1 --timeout 2", "--timeout is there twice"],
  ["serve memory:1MiB --name a null:1MiB --name a", "--name a is there twice"],
  ["serve memory:1MiB --on-death hold", "--on-death hold needs a disk whose content outlives this program"],
  ["serve ./a.img --on-death hodl", "did you mean hold?"],
  ["serve memory:1MiB --take-over", "--take-over needs a disk whose content outlives"],
  ["serve memory:1MiB --watch", "--watch is for modules, such as ./disk.ts, and memory:1MiB is none"],
  ["serve memory:1MiB --with dealy=read=5ms", "did you mean delay?"],
  ["serve memory:1MiB --with delay=raed=5ms", "did you mean read?"],
  ["serve memory:1MiB --with delay=read=soon", '"soon"'],
  ["serve memory:1MiB --nbd host:0x", "NBD"],
  ["serve null:1MiB --nbd nbd://h/x null:512 --nbd nbd://h/x", 'the export "x" is there twice at h:10809'],
  ["info", "the NAME of a disk is missing"],
  ["destroy", "the NAME of a disk is missing"],
  ["list a", "there is one word too many: a"],
  ["list --json --json", "--json is there twice"],
  ["reload", "it takes a NAME, or --server PID"],
  ["reload a --server 1", "it takes a NAME, or --server PID"],
  ["reload --server 0", "process"],
  ["resize a", "it takes a NAME and a SIZE"],
  ["resize a 1000", "not a multiple of 512 (near it: 512 or 1024)"],
  ["top now", "there is one word too many: now"],
  ["top --count 0", "seconds"],
  ["top --cuont 1", "did you mean --count?"],
  ["bench", "a SPEC is missing"],
  ["bench memory:1GiB null:1GiB", "there is one SPEC too many: null:1GiB"],
  ["bench memory:1GiB --name a", "there is no option --name"],
  ["bench memory:1GiB --seconds 0", "seconds"],
  ["bench memory:1GiB --seconds 1 --seconds 2", "--seconds is there twice"],
  ["bench memory:1GiB --area 1000", "not a multiple of 1048576"],
  ["bench memory:1GiB --area 1MiB", "it takes at least 8 MiB"],
  ["bench ./a.img --overwrite --read-only", "--overwrite and --read-only are there both"],
  ["bench memory:1GiB --jobs raed-1MiB-8", "there is no job raed-1MiB-8; did you mean read-1MiB-8?"],
  ["bench memroy:1GiB", "did you mean memory?"],
  ["help serv", "did you mean serve?"],
];

for (const [words, said] of WRONG) {
  Deno.test(`"dblock ${words}" is refused with what to type`, () => {
    const { message } = assertThrows(() => readCommandLine(splitWords(words)), UsageError);
    assertStringIncludes(message, said);
    assertEquals(message.includes("\n"), false);
  });
}

/** What a command line that only prints has printed. */
async function printedBy(words: string): Promise<string> {
  const print = console.log;
  const lines: string[] = [];
  console.log = (...said) => void lines.push(said.join(" "));
  try {
    await readCommandLine(splitWords(words))();
  } finally {
    console.log = print;
  }
  return lines.join("\n");
}

Deno.test("dblock help has all subcommands, help serve and serve --help all about serving, help filters all filters", async () => {
  const overall = await printedBy("help");
  for (const { name, summary } of COMMANDS) assertMatch(overall, new RegExp(`\\b${name}\\b.* ${summary}`));
  const serving = await printedBy("help serve");
  assertStringIncludes(serving, "A SPEC says where the content is");
  assertEquals(await printedBy("serve --help"), serving);
  const all = await printedBy("help filters");
  for (const { example } of Object.values(filters)) assertStringIncludes(all, `--with ${example}`);
});

const plansOf = (words: string) => readDisks(readItems(splitWords(words), DISK_OPTIONS));

Deno.test("options belong to the SPEC before them; those before the first SPEC to the first", () => {
  const plans = plansOf(
    "--timeout 5 memory:1MiB --name a --name b null:1MiB --read-only --nbd nbd://localhost/x --name c --depth=4",
  );
  const seen = plans.map(({ source, exits, timeoutMs, readOnly, depth }) => [
    source.text,
    exits.map((exit) => exit.kind === "nbd" ? `nbd ${exit.exportName}` : exit.name),
    timeoutMs,
    readOnly,
    depth,
  ]);
  assertEquals(seen, [
    ["memory:1MiB", ["a", "b"], 5_000, false, undefined],
    ["null:1MiB", ["nbd x", "c"], 30_000, true, 4],
  ]);
  assertEquals(plansOf("null:512")[0]!.exits, [{ kind: "device", name: undefined }]);
});

Deno.test("--transport nbd gives names to the kernel's NBD client, and takes nothing that needs the module", () => {
  assertEquals(plansOf("null:1MiB --name a --transport nbd")[0]!.exits, [{ kind: "kernel-nbd", name: "a" }]);
  for (
    const [words, wrong] of [
      ["null:1MiB --transport nbd", "--name NAME"],
      ["null:1MiB --name a --transport ublk", "there is: nbd"],
      ["a.img --name a --transport nbd --on-death hold", "--on-death hold needs dblock.ko"],
      ["a.img --name a --transport nbd --take-over", "--take-over needs dblock.ko"],
      ["null:1MiB --name a --transport nbd --queues 2", "--queues needs dblock.ko"],
      ["null:1MiB --name a --transport nbd null:1MiB --name a", "--name a is there twice"],
    ] as const
  ) {
    assertThrows(() => plansOf(words), UsageError, wrong);
  }
});

Deno.test("a disk that only NBD clients have takes no option that needs one in /dev", () => {
  for (
    const option of ["--on-death hold", "--on-death fail", "--take-over", "--timeout 5", "--queues 2", "--depth 4"]
  ) {
    const wrong = `${option.replace(/ \d$/, "")} needs a disk in /dev`;
    assertThrows(() => plansOf(`a.img ${option} --nbd unix:/x`), UsageError, wrong);
    plansOf(`a.img ${option} --nbd unix:/x --name a`);
  }
  const late = "clients have this one, whose time limits are their own; leave it out, or add --name NAME";
  assertThrows(() => plansOf("a.img --timeout 5 --nbd unix:/x"), UsageError, late);
  plansOf("a.img --on-death remove --nbd unix:/x");
  // New code has to be there within half of it.
  assertEquals(plansOf("./a.ts --watch --timeout 5 --nbd unix:/x")[0]!.timeoutMs, 5_000);
});

Deno.test("exports of one address have names of their own: the typed one, the disk's, or diskN", () => {
  const namesOf = (words: string) => {
    const plans = plansOf(words);
    const names = exportNames(plans);
    return plans.flatMap(({ exits }) => exits).flatMap((exit) => exit.kind === "nbd" ? [names.get(exit)] : []);
  };
  assertEquals(namesOf("null:512 --nbd unix:/x"), [""]);
  assertEquals(namesOf("null:512 --nbd unix:/x null:512 --nbd unix:/y"), ["", ""]);
  assertEquals(namesOf("null:512 --nbd h null:512 --nbd h"), ["disk0", "disk1"]);
  assertEquals(namesOf("null:512 --nbd h null:512 --nbd nbd://h/disk0"), ["disk1", "disk0"]);
  assertEquals(namesOf("null:512 --nbd nbd://h/disk1 null:512 --nbd h null:512 --nbd h"), ["disk1", "disk2", "disk3"]);
  assertEquals(namesOf("null:512 --name a --name b --nbd h null:512 --nbd nbd://h/b"), ["a", "b"]);
  assertEquals(namesOf("null:512 --nbd nbd://h/a null:512 --nbd nbd://h:1/a"), ["a", "a"]);
  for (
    const words of [
      "null:512 --nbd nbd://h/a null:512 --nbd nbd://h/a",
      "null:512 --nbd nbd://h/a --nbd nbd://h:10809/a",
      "null:512 --name a --nbd unix:/x null:512 --nbd nbd+unix:///a?socket=/x",
    ]
  ) {
    assertThrows(() => plansOf(words), UsageError, 'the export "a" is there twice at');
  }
});

Deno.test("the words of a plan mean the same plan", () => {
  const [plan] = plansOf("./a b.img --name x --on-death hold --with stats".replace("a b", "ab"));
  const { words } = plan!;
  assertEquals(words, ["./ab.img", "--name", "x", "--on-death", "hold", "--with", "stats"]);
  assertEquals(readDisks(readItems(words, DISK_OPTIONS))[0]!.words, words);
});

Deno.test("--config without its value is /etc/dblock, at the end and in front of an option", () => {
  const valuesOf = (words: string) =>
    readItems(splitWords(words), SERVE.options).flatMap((item) => item.kind === "option" ? [item.value] : [item.text]);
  assertEquals(valuesOf("--config"), ["/etc/dblock"]);
  assertEquals(valuesOf("--config --timeout 5"), ["/etc/dblock", "5"]);
  assertEquals(valuesOf("--config /x null:1MiB"), ["/x", "null:1MiB"]);
  assertEquals(valuesOf("--config=/x"), ["/x"]);
  assertThrows(() => valuesOf("--config="), UsageError, "needs a value");
});

Deno.test("a name that is in a file and on the command line is refused before anything is opened", async () => {
  const file = Deno.makeTempFileSync();
  Deno.writeTextFileSync(file, "null:1MiB --name a");
  const serve = readCommandLine(["serve", "null:1MiB", "--name", "a", "--config", file]);
  await assertRejects(serve, UsageError, "--name a is there twice");
  Deno.writeTextFileSync(file, "null:1MiB --nbd nbd+unix:///x?socket=/nowhere/s");
  const other = readCommandLine(["serve", "null:1MiB", "--nbd", "nbd+unix:///x?socket=/nowhere/s", "--config", file]);
  await assertRejects(other, UsageError, 'the export "x" is there twice at unix:/nowhere/s');
  Deno.removeSync(file);
});

Deno.test("a disk of a file is kept by default if its content outlives the program", () => {
  const file = Deno.makeTempFileSync();
  const policyOf = (words: string) => {
    Deno.writeTextFileSync(file, words);
    return readConfig(file)[0]!.onDeath;
  };
  assertEquals(policyOf("/a.img --name a"), "hold");
  assertEquals(policyOf("/a.img --name a --on-death fail"), "fail");
  assertEquals(policyOf("/a.img --name a --on-death remove"), "remove");
  assertEquals(policyOf("/a.img --name a --transport nbd"), "remove");
  assertEquals(policyOf("/a.img --nbd unix:/x"), "remove");
  assertEquals(policyOf("memory:1MiB --name a"), "remove");
  assertEquals(plansOf("/a.img --name a")[0]!.onDeath, "remove");
  Deno.removeSync(file);
});

Deno.test("a disk of a file that is recovered has the policy that the file gave it", () => {
  const file = Deno.makeTempFileSync();
  for (const [text, policy] of [["/a.img", "hold"], ["/a.img --on-death fail", "fail"]] as const) {
    Deno.writeTextFileSync(file, text);
    assertEquals(plansToRecover(readConfig(file)).map(({ onDeath }) => onDeath), [policy]);
  }
  Deno.removeSync(file);
});

Deno.test("a disk with two names is recovered once, and two disks do not have one name", () => {
  const words = "./a.img --name a --name b --on-death hold".split(" ");
  const other = ["./c.img", "--name", "c"];
  const plans = plansToRecover([{ words }, { words: other }, { words: [...words, "--take-over"] }]);
  const exits = plans.map((
    { exits, takeOver },
  ) => [exits.map((exit) => exit.kind === "device" && exit.name), takeOver]);
  assertEquals(exits, [[["a", "b"], false], [["c"], false]]);
  assertThrows(
    () => plansToRecover([{ words }, { words: ["./b.img", "--name", "b"] }]),
    UsageError,
    "--name b is there twice",
  );
});

Deno.test("--take-over without a SPEC is about the disks of --config, which have to outlive the program", async () => {
  const file = Deno.makeTempFileSync();
  Deno.writeTextFileSync(file, "memory:1MiB --name a");
  const serve = readCommandLine(["serve", "--config", file, "--take-over"]);
  await assertRejects(
    serve,
    UsageError,
    "--take-over needs a disk whose content outlives this program, and memory:1MiB",
  );
  assertThrows(() => readCommandLine(["serve", "--take-over"]), UsageError, "the SPEC is missing");
  assertThrows(() => readCommandLine(["serve", "--config", file, "--read-only"]), UsageError, "the SPEC is missing");
  Deno.removeSync(file);
});

Deno.test("readConfig() names a disk by its file, reads folders, and says in which file something is wrong", () => {
  const dir = Deno.makeTempDirSync();
  Deno.writeTextFileSync(`${dir}/b.disk`, "memory:1MiB  # scratch\n  --timeout 9\n");
  Deno.writeTextFileSync(`${dir}/a`, "null:1MiB --name other");
  Deno.writeTextFileSync(`${dir}/.hidden`, "nonsense:");
  Deno.writeTextFileSync(`${dir}/a~`, "nonsense:");
  Deno.writeTextFileSync(`${dir}/a.dpkg-old`, "nonsense:");
  Deno.mkdirSync(`${dir}/folder`);
  const names = readConfig(dir).map(({ exits: [exit] }) => exit!.kind === "device" ? exit!.name : "");
  assertEquals(names, ["other", "b"]);
  Deno.writeTextFileSync(`${dir}/c`, "memroy:1MiB");
  assertThrows(() => readConfig(dir), UsageError, `${dir}/c: memroy:1MiB: there is no scheme memroy`);
  Deno.writeTextFileSync(`${dir}/c`, "# nothing");
  assertThrows(() => readConfig(`${dir}/c`), UsageError, "there is no SPEC in it");
  assertThrows(() => readConfig(`${dir}/none`), Error, "there is no such file or folder");
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("subcommands that open no disk start without filters, NBD and what SPECs mean", async () => {
  for (const [commands, names] of [[LIGHT_COMMANDS, LIGHT_NAMES], [SERVING_COMMANDS, SERVING_NAMES]] as const) {
    assertEquals(commands.filter((command) => !COMMANDS.includes(command)), []);
    assertEquals(commands.map(({ name }) => name), names);
  }
  assertEquals(
    [["list"], ["--version"], ["serve"], ["recover"], ["top"], ["--help"], []].map(partOf),
    ["light", "light", "serving", "serving", "main", "main", "main"],
  );
  const deno = new URL("../../../src/build/deno.sh", import.meta.url).pathname;
  const modulesOf = async (name: string) => {
    const path = new URL(`../../../src/command/${name}`, import.meta.url).pathname;
    const { stdout } = await new Deno.Command(deno, { args: ["info", "--json", "--no-lock", path] }).output();
    return (JSON.parse(new TextDecoder().decode(stdout)) as { modules: { specifier: string }[] }).modules;
  };
  const light = await modulesOf("light.ts");
  const heavy = light.filter(({ specifier }) => /\/(nbd|filters)\/|\/schemes\.ts$/.test(specifier));
  assertEquals([light.length > 20, heavy], [true, []]);
  // What each start reads first.
  assertEquals((await modulesOf("program.ts")).length, 3);
});
