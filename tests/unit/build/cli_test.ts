/**
 * The stand-in for `@std/cli` does what this table says, and, where JSR answers, the package does the same.
 * Not covered: prompts and spinners, which the stand-in does not have.
 */
import { assertEquals } from "@std/assert";
import * as std from "@std/cli";
import * as standIn from "../../../src/build/standins/cli.ts";

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
  "a string after =": { args: ["--size=512"], options: { string: "size" }, expected: { size: "512", _: [] } },
  "a string with = in it": { args: ["--x=a=b"], options: { string: "x" }, expected: { x: "a=b", _: [] } },
  "a string without a value": { args: ["--size"], options: { string: "size" }, expected: { size: "", _: [] } },
  "a name with nothing after =": { args: ["--size="], options: { string: "size" }, expected: { "size=": true, _: [] } },
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
  "all booleans": { args: ["--a", "x"], options: { boolean: true }, expected: { a: true, _: ["x"] } },
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
  "several aliases": {
    args: ["-n", "a"],
    options: { string: ["name"], alias: { name: ["n", "label"] } },
    expected: { name: "a", n: "a", label: "a", _: [] },
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
  "negated": {
    args: ["--no-color", "--no-other"],
    options: { boolean: ["color"], negatable: ["color"], default: { color: true } },
    expected: { color: false, "no-other": true, _: [] },
  },
  "short ones together": { args: ["-abc", "v"], expected: { a: true, b: true, c: "v", _: [] } },
  "a short one with its number": { args: ["-n5"], expected: { n: 5, _: [] } },
  "a short one after =": { args: ["-n=x"], expected: { n: "x", _: [] } },
  "a single dash": { args: ["-"], expected: { _: ["-"] } },
  "a dash as a value": { args: ["-f", "-"], expected: { f: "-", _: [] } },
  "what follows --": { args: ["a", "--", "--b", "5"], expected: { _: ["a", "--b", "5"] } },
  "what follows --, apart": {
    args: ["a", "--", "--b", "5"],
    options: { "--": true },
    expected: { _: ["a"], "--": ["--b", "5"] },
  },
  "an early stop": {
    args: ["-v", "--", "run"],
    options: { boolean: ["v"], stopEarly: true },
    expected: { v: true, _: ["run"] },
  },
  "nothing after the first argument": {
    args: ["run", "--flag", "7"],
    options: { stopEarly: true },
    expected: { _: ["run", "--flag", "7"] },
  },
  "unknown ones left out": {
    args: ["--known=1", "--what", "x", "-q", "word"],
    options: { string: ["known"], unknown: () => false },
    expected: { known: "1", _: [] },
  },
  "a dotted name": { args: ["--a.b", "1", "--a.c=2"], expected: { a: { b: 1, c: 2 }, _: [] } },
  "arguments that stay strings": { args: ["7"], options: { string: ["_"] }, expected: { _: ["7"] } },
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
  const args = standIn.parseArgs(["--__proto__.polluted=1", "--toString=x"], { string: ["toString"] });
  assertEquals(({} as Record<string, unknown>).polluted, undefined);
  assertEquals(args.toString, "x");
});
