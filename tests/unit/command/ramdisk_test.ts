// SPDX-License-Identifier: MIT
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { failure, parseRamdiskArgs } from "../../../src/command/ramdisk.ts";

Deno.test("parseRamdiskArgs() has defaults for everything", () => {
  assertEquals(parseRamdiskArgs([]), {
    action: "serve",
    name: "dblockramdisk",
    sizeBytes: undefined,
    store: undefined,
    onDeath: "remove",
    takeOver: false,
    grow: false,
    queues: undefined,
    timeoutMs: 30_000,
    force: false,
    json: false,
  });
});

Deno.test("parseRamdiskArgs() reads every option, both ways", () => {
  const expected = {
    action: "serve",
    name: "a1",
    sizeBytes: 2 ** 29,
    store: "/dev/shm/a1",
    onDeath: "hold",
    takeOver: true,
    grow: true,
    queues: 3,
    timeoutMs: 0,
    force: false,
    json: false,
  } as const;
  const args = "--name=a1 --size=512M --store=/dev/shm/a1 --on-death=hold --queues=3 --timeout=0 --take-over --grow"
    .split(" ");
  assertEquals(parseRamdiskArgs(args), expected);
  assertEquals(parseRamdiskArgs(args.flatMap((arg) => arg.split("="))), expected);
  assertEquals(parseRamdiskArgs(["--name", "007"]).name, "007");
});

Deno.test("parseRamdiskArgs() knows what to do", () => {
  const actionOf = (...args: string[]) => parseRamdiskArgs(args).action;
  assertEquals(
    [
      actionOf("-d"),
      actionOf("--destroy"),
      actionOf("--help"),
      actionOf("-h"),
      actionOf("--version"),
      actionOf("--list"),
    ],
    ["destroy", "destroy", "help", "help", "version", "list"],
  );
  assertEquals(parseRamdiskArgs(["-d", "--force", "--name", "x"]), {
    ...parseRamdiskArgs(["-d"]),
    name: "x",
    force: true,
  });
});

const mistakes: [args: string[], message: string][] = [
  [["-d", "--size", "1G"], "--size does not go with -d"],
  [["--list", "--take-over", "--store", "x"], "--store does not go with --list"],
  [["--size", "0"], "size 0: a disk has at least 4096 bytes"],
  [["--size", "4095"], "size 4095 is 4095 bytes, not a multiple of 4096 (near it: 4096)"],
  [["--size", "4097"], "not a multiple of 4096 (near it: 4096 or 8192)"],
  [["--size", "16P"], "size 16P is too big"],
  [["--size", "big"], '"big" is not a size'],
  [["--size"], "--size needs a value"],
  [["--name", ""], "--name needs a value"],
  [["--name", "a/b"], '"a/b" cannot be a disk\'s name'],
  [["--name", ".a"], '".a" cannot be a disk\'s name'],
  [["--name", "x".repeat(32)], "it takes at most 31 characters, not 32"],
  [["--name", "a-ctl"], 'it cannot end in "-ctl"'],
  [["--queues", "0"], '"0" is not a number of queues (1 to 64)'],
  [["--queues", "65"], '"65" is not a number of queues (1 to 64)'],
  [["--timeout", "1201"], '"1201" is not a timeout (0 for none, or 1 to 1200 seconds)'],
  [["--sise", "1"], "there is no option --sise"],
  [["-x"], "there is no option -x"],
  [["512M"], "there is no argument 512M"],
  [["--force"], "--force goes with -d"],
  [["--json"], "--json goes with --list"],
  [["--list", "-d"], "--list and -d do not go together"],
  [["--store"], "--store needs a value"],
  [["--on-death", "resurrect", "--store", "a"], '"resurrect" is not a policy for --on-death (remove, fail, hold)'],
  [["--on-death", "hold"], "--on-death hold needs --store PATH"],
  [["--on-death", "fail"], "--on-death fail needs --store PATH"],
  [["--take-over"], "--take-over needs --store PATH"],
];
for (const [args, message] of mistakes) {
  Deno.test(`parseRamdiskArgs() refuses ${args.join(" ").slice(0, 40)}`, () => {
    const error = assertThrows(() => parseRamdiskArgs(args), UsageError);
    assertStringIncludes(error.message, message);
    assertEquals(error.message.includes("\n"), false);
  });
}

async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const script = new URL("../../../src/build/deno.sh", import.meta.url).pathname;
  const program = new URL("../../../src/command/ramdisk.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(script, {
    args: ["run", "-A", "--no-check", program, ...args],
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("ramdisk.ts ends with 2 and one line on stderr for a mistake", async () => {
  const { code, stdout, stderr } = await run("--size", "1");
  assertEquals({ code, stdout, lines: stderr.trimEnd().split("\n").length }, { code: 2, stdout: "", lines: 1 });
  assertStringIncludes(stderr, "dblock-ramdisk: size 1 is 1 bytes");
});

const serving = ["--name", "--size", "--store", "--on-death", "--take-over", "--queues", "--timeout"];

Deno.test("ramdisk.ts says what it can do, and its version", async () => {
  const [help, version] = await Promise.all([run("--help"), run("--version")]);
  assertEquals([help.code, help.stderr, version.code, version.stderr], [0, "", 0, ""]);
  for (
    const option of [...serving, "--destroy", "--force", "--list", "--json", "--help", "--version", "SIGTERM", "SIGHUP"]
  ) {
    assertStringIncludes(help.stdout, option);
  }
  assertEquals(/^dblock-ramdisk \d+\.\d+\.\d+ \(ABI 2\)\n$/.test(version.stdout), true);
});

Deno.test("failure() says whether the disk waits for a server, and what to type then", () => {
  const gone = failure("a", "boom", { info: undefined, store: undefined });
  assertEquals(gone.message, "Cannot serve /dev/a any more: boom (the disk has ended)");
  const held = failure("a", "boom", { info: { state: "held" }, store: "/dev/shm/a" });
  assertStringIncludes(
    held.message,
    "it waits for a server: go on with ./dblock-ramdisk --store /dev/shm/a --name a, or",
  );
});

Deno.test({
  name: "ramdisk.ts says that the module is not loaded, and where the command that loads it stands",
  ignore: hasModule(),
  fn: async () => {
    for (const args of [[], ["-d"]]) {
      const { code, stderr } = await run(...args);
      assertEquals(code, 1);
      assertStringIncludes(stderr, "the dblock module is not loaded");
      assertStringIncludes(stderr, "dblock doctor says how to load it");
      assertEquals(stderr.trimEnd().split("\n").length, 1);
    }
  },
});

function hasModule(): boolean {
  try {
    Deno.statSync("/dev/dblockctl");
    return true;
  } catch {
    return false;
  }
}

Deno.test("dblock-ramdisk loads no module of Node's: that would take longer than the rest of its start", () => {
  const visited = new Map<string, string>();
  const visit = (file: URL): void => {
    if (visited.has(file.href)) return;
    const text = Deno.readTextFileSync(file);
    visited.set(file.href, text);
    // What is only a type, or imported when it is needed, is not loaded at the start.
    for (const [, path] of text.matchAll(/^(?:import|export) (?!type )(?:[^;"]* from )?"(\.[^"]+)";/gm)) {
      visit(new URL(path!, file));
    }
  };
  visit(new URL("../../../src/command/ramdisk.ts", import.meta.url));
  const loaders = [...visited].filter(([, text]) => /^import (?!type )[^;]*from "node:/m.test(text)).map(([href]) =>
    href
  );
  const hasFile = [...visited.keys()].some((href) => href.endsWith("/backends/file.ts"));
  assertEquals([hasFile, loaders], [true, []]);
});
