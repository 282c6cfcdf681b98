/**
 * The stand-in for `@std/cli` does what this table says, and, where JSR answers, the package does the same.
 * Not covered: prompts and spinners, which the stand-in does not have.
 */
import { assertEquals } from "@std/assert";
import * as std from "@std/cli";
import * as standIn from "../../../src/build/standins/cli.ts";
import { Random } from "../../sim/random.ts";

interface Case {
  readonly args: readonly string[];
  readonly options?: standIn.ParseOptions;
  readonly expected: Record<string, unknown>;
}

const CASES: Readonly<Record<string, Case>> = {
  "nothing": { args: [], expected: { _: [] } },
  "a string and its value": {
    args: ["--size", "4GiB", "rest"],
    options: { string: ["size"] },
    expected: { size: "4GiB", _: ["rest"] },
  },
  "a string after =": { args: ["--size=512"], options: { string: ["size"] }, expected: { size: "512", _: [] } },
  "a string with = in it": { args: ["--x=a=b"], options: { string: ["x"] }, expected: { x: "a=b", _: [] } },
  "a string without a value": { args: ["--size"], options: { string: ["size"] }, expected: { size: "", _: [] } },
  "a string with nothing after =": { args: ["--size="], options: { string: ["size"] }, expected: { size: "", _: [] } },
  "a name with nothing after =": { args: ["--x="], expected: { x: "", _: [] } },
  "three dashes": { args: ["---x"], expected: { "-x": true, _: [] } },
  "a string before an option": {
    args: ["--size", "--force"],
    options: { string: ["size"], boolean: ["force"] },
    expected: { size: "", force: true, _: [] },
  },
  "the last of two": { args: ["--n", "1", "--n", "2"], expected: { n: 2, _: [] } },
  "numbers": {
    args: ["--n=5", "--e", "1e3", "--h", "0x10", "7", "x7"],
    expected: { n: 5, e: 1000, h: 16, _: [7, "x7"] },
  },
  "a boolean does not take a value": {
    args: ["--force", "name"],
    options: { boolean: ["force"] },
    expected: { force: true, _: ["name"] },
  },
  "a boolean takes true and false": {
    args: ["--a", "false", "--b=false", "--c", "true"],
    options: { boolean: ["a", "b", "c", "d"] },
    expected: { a: false, b: false, c: true, d: false, _: [] },
  },
  "an alias": {
    args: ["-d"],
    options: { boolean: ["destroy"], alias: { destroy: "d" } },
    expected: { destroy: true, d: true, _: [] },
  },
  "an alias the other way round": {
    args: ["--destroy"],
    options: { boolean: ["destroy"], alias: { d: "destroy" } },
    expected: { destroy: true, d: true, _: [] },
  },
  "an alias of a string": {
    args: ["-n", "a"],
    options: { string: ["name"], alias: { name: "n" } },
    expected: { name: "a", n: "a", _: [] },
  },
  "a default": {
    args: [],
    options: { string: ["name"], default: { name: "disk" } },
    expected: { name: "disk", _: [] },
  },
  "a default that is replaced": {
    args: ["--name", "x"],
    options: { string: ["name"], default: { name: "disk" } },
    expected: { name: "x", _: [] },
  },
  "a default and an alias": {
    args: [],
    options: { alias: { name: "n" }, default: { name: "disk" } },
    expected: { name: "disk", n: "disk", _: [] },
  },
  "collected": {
    args: ["--k", "6.1", "--k=6.12"],
    options: { string: ["k", "z"], collect: ["k", "z"] },
    expected: { k: ["6.1", "6.12"], z: [], _: [] },
  },
  "short ones together": { args: ["-abc", "v"], expected: { a: true, b: true, c: "v", _: [] } },
  "a short one with its number": { args: ["-n5"], expected: { n: 5, _: [] } },
  "a short one after =": { args: ["-n=x"], expected: { n: "x", _: [] } },
  "a single dash": { args: ["-"], expected: { _: ["-"] } },
  "a dash as a value": { args: ["-f", "-"], expected: { f: "-", _: [] } },
  "what follows --": { args: ["a", "--", "--b", "5"], expected: { _: ["a", "--b", "5"] } },
  "unknown ones left out": {
    args: ["--known=1", "--what", "x", "-q", "word"],
    options: { string: ["known"], unknown: () => false },
    expected: { known: "1", _: [] },
  },
};

const isReal = std.parseArgs !== standIn.parseArgs;

for (const [name, { args, options, expected }] of Object.entries(CASES)) {
  Deno.test(`the stand-in's parseArgs() reads ${name}`, () => {
    assertEquals<unknown>(standIn.parseArgs(args, options), expected);
  });
  Deno.test({
    name: `@std/cli's parseArgs() reads ${name}${isReal ? "" : " (skipped: JSR does not answer here)"}`,
    ignore: !isReal,
    fn: () => {
      // Their parameter types differ in readonly only.
      const parse = std.parseArgs as unknown as (args: readonly string[], options?: unknown) => unknown;
      assertEquals<unknown>(parse(args, options), expected);
    },
  });
}

Deno.test("parseArgs() tells the unknown callback the argument, the name and the value", () => {
  const calls: unknown[][] = [];
  const unknown = (...call: unknown[]) => void calls.push(call);
  std.parseArgs(["--size=4", "--wat=5", "-q", "word"], { string: ["size"], unknown });
  assertEquals(calls.map((call) => call.slice(0, 3)), [["--wat=5", "wat", "5"], ["-q", "q", "word"]]);
});

Deno.test("parseArgs() gives types that a program can rely on", () => {
  const args = std.parseArgs(["--name", "a"], {
    string: ["name", "size"],
    boolean: ["force"],
    collect: ["size"],
    default: { name: "disk" },
    alias: { force: "f" },
  });
  const name: string = args.name;
  const sizes: string[] = args.size;
  const force: boolean = args.f;
  assertEquals({ name, sizes, force }, { name: "a", sizes: [], force: false });
});

Deno.test("parseArgs() is not led astray by names of Object's own", () => {
  const args = standIn.parseArgs(["--__proto__=1", "--toString=x"], { string: ["toString"] });
  assertEquals(({} as Record<string, unknown>)[1], undefined);
  assertEquals(args.toString, "x");
});

/** What the commands here know, more or less, and words that meet it in every way. */
const OPTIONS: standIn.ParseOptions = {
  string: ["size", "name", "with"],
  boolean: ["force", "destroy"],
  collect: ["with"],
  alias: { destroy: "d", size: "s" },
  default: { name: "disk" },
};
const WORDS = [
  ...["--size", "--size=", "--size=4G", "--name=a=b", "--with", "--with=x", "--force", "--force=false", "--other"],
  ...["--other=", "--n=5", "-d", "-s", "-s5", "-s=", "-sx", "-dx", "-n", "-n=7", "-ab", "-", "--", "---x"],
  ...["word", "7", "0x10", "true", "false", "", " ", "-5"],
];

Deno.test({
  name: `the stand-in and @std/cli read 20,000 random command lines alike${isReal ? "" : " (skipped: no JSR)"}`,
  ignore: !isReal,
  fn: () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const random = new Random(seed);
    const parse = std.parseArgs as unknown as typeof standIn.parseArgs;
    for (let i = 0; i < 20_000; i++) {
      const args = Array.from({ length: 1 + random.below(5) }, () => WORDS[random.below(WORDS.length)]!);
      for (const options of [OPTIONS, {}]) {
        assertEquals(standIn.parseArgs(args, options), parse(args, options), `seed ${seed}: ${JSON.stringify(args)}`);
      }
    }
  },
});
