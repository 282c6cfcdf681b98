// SPDX-License-Identifier: MIT
/**
 * Stands in for `@std/cli` where JSR cannot be reached: `parseArgs` with the options that are used here, and with the
 * package's results and types for them. tests/unit/build/cli_test.ts holds both against each other.
 *
 * `node:util` has a parser, too. It refuses or reorders what `@std/cli` accepts (numbers, `-n5`, `--x true`, aliases as
 * separate keys), and loading it costs an executable start-up time.
 */

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions<
  B extends string = string,
  S extends string = string,
  C extends string = string,
  D extends Readonly<Record<string, unknown>> = Readonly<Record<string, unknown>>,
  A extends Aliases = Aliases,
> {
  /** Other names of an option. */
  alias?: A;
  /** Options without a value. They are `false` unless given. */
  boolean?: readonly B[];
  /** Values of options that are not given. */
  default?: D;
  /** Options whose value stays a string, even if it looks like a number. */
  string?: readonly S[];
  /** Options that may be given several times; their value is an array. */
  collect?: readonly C[];
  /** Called with whatever no other option names; on `false` it is left out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

type Aliases = Readonly<Record<string, string>>;

type Values<B extends string, S extends string, C extends string> =
  & { [K in B]: K extends C ? boolean[] : boolean }
  & { [K in S as K extends C ? K : never]: string[] }
  & { [K in S as K extends C ? never : K]?: string };

type WithDefaults<V, D> =
  & Omit<V, keyof D>
  & { -readonly [K in keyof D]: K extends keyof V ? NonNullable<V[K]> | D[K] : unknown };

type WithAliases<V, A> = { [K in keyof V as K extends keyof A ? K | (A[K] & string) : K]: V[K] };

/** What {@linkcode parseArgs} returns. */
export type Args<V = Record<string, unknown>> = V & Record<string, unknown> & { _: (string | number)[] };

/** Lazy, so that the name ends at the first `=`. */
const LONG = /^--(?<name>.+?)(?:=(?<value>.*))?$/s;
const SHORT = /^-[^-]/s;

/**
 * Parses command line arguments.
 *
 * @param args Usually `Deno.args`.
 * @param options What the program knows.
 * @returns The options by name, and all other arguments in `_`.
 *
 * @example
 * ```ts
 * import { parseArgs } from "@std/cli";
 *
 * const args = parseArgs(["--size", "4GiB", "-d", "x"], { string: ["size"], boolean: ["destroy"], alias: { destroy: "d" } });
 * console.assert(args.size === "4GiB" && args.destroy && args._[0] === "x");
 * ```
 */
export function parseArgs<
  const B extends string = never,
  const S extends string = never,
  const C extends string = never,
  const D extends Readonly<Record<string, unknown>> = Record<never, never>,
  const A extends Aliases = Record<never, never>,
>(
  args: readonly string[],
  options: ParseOptions<B, S, C, D, A> = {},
): Args<WithAliases<WithDefaults<Values<B, S, C>, D>, A>> {
  const end = args.indexOf("--");
  const parser = new Parser(options, end < 0 ? args : args.slice(0, end));
  const result = parser.run(end < 0 ? [] : args.slice(end + 1));
  // The types above describe what Parser builds by name; the compiler cannot follow that.
  return result as Args<WithAliases<WithDefaults<Values<B, S, C>, D>, A>>;
}

/** One run over the arguments. */
class Parser {
  readonly #options: ParseOptions;
  readonly #args: readonly string[];
  readonly #peers = new Map<string, readonly string[]>();
  readonly #booleans: ReadonlySet<string>;
  readonly #strings: ReadonlySet<string>;
  readonly #collected: ReadonlySet<string>;
  readonly #values = new Map<string, unknown>();
  readonly #rest: (string | number)[] = [];
  #next = 0;

  constructor(options: ParseOptions, args: readonly string[]) {
    this.#options = options;
    this.#args = args;
    for (const [name, other] of Object.entries(options.alias ?? {})) {
      this.#peers.set(name, [name, other]).set(other, [other, name]);
    }
    const named = (names: readonly string[] = []) => new Set(names.flatMap((name) => this.#namesOf(name)));
    this.#booleans = named(options.boolean);
    this.#strings = named(options.string);
    this.#collected = named(options.collect);
  }

  #namesOf(name: string): readonly string[] {
    return this.#peers.get(name) ?? [name];
  }

  /** Parses everything; what came after "--" is not parsed. */
  run(afterDashes: readonly string[]): Record<string, unknown> {
    while (this.#next < this.#args.length) {
      const arg = this.#args[this.#next++] ?? "";
      const long = LONG.exec(arg)?.groups;
      if (long?.name !== undefined) this.#long(arg, long.name, long.value);
      else if (SHORT.test(arg)) this.#short(arg);
      else if (this.#options.unknown?.(arg) !== false) this.#rest.push(numberOr(arg));
    }
    for (const [name, value] of Object.entries(this.#options.default ?? {})) {
      if (!this.#values.has(name)) this.#store(name, value);
    }
    for (const name of this.#booleans) if (!this.#values.has(name)) this.#values.set(name, false);
    for (const name of this.#collected) if (!this.#values.get(name)) this.#values.set(name, []);
    return { ...Object.fromEntries(this.#values), _: [...this.#rest, ...afterDashes] };
  }

  #long(arg: string, name: string, value: string | undefined): void {
    if (value === undefined) this.#set(arg, name, this.#takeValue(name, /^-/));
    else this.#set(arg, name, this.#booleans.has(name) ? value !== "false" : value);
  }

  /** `-abc`, `-n5`, `-n=5`, `-n 5`. */
  #short(arg: string): void {
    for (let at = 1; at < arg.length; at++) {
      const name = arg.charAt(at);
      const tail = arg.slice(at + 1);
      if (tail === "") {
        this.#set(arg, name, this.#takeValue(name, /^--?[^-]/));
      } else if (tail === "-") {
        return this.#set(arg, name, "-");
      } else if (/[A-Za-z]/.test(name) && tail.startsWith("=")) {
        return this.#set(arg, name, this.#booleans.has(name) ? tail !== "=false" : tail.slice(1));
      } else if ((/[A-Za-z]/.test(name) && /^-?\d+(\.\d*)?(e-?\d+)?$/.test(tail)) || /^\W/.test(tail)) {
        return this.#set(arg, name, tail);
      } else {
        this.#set(arg, name, this.#strings.has(name) ? "" : true);
      }
    }
  }

  /** The value of an option without `=`: the next argument where that can be one. */
  #takeValue(name: string, looksLikeOption: RegExp): string | boolean {
    const next = this.#args[this.#next];
    if (next && !this.#booleans.has(name) && !looksLikeOption.test(next)) {
      this.#next++;
      return next;
    }
    if (next === "true" || next === "false") {
      this.#next++;
      return next === "true";
    }
    return this.#strings.has(name) ? "" : true;
  }

  #set(arg: string, name: string, value: string | boolean): void {
    const known = this.#booleans.has(name) || this.#strings.has(name) || this.#peers.has(name);
    if (!known && this.#options.unknown?.(arg, name, value) === false) return;
    this.#store(name, typeof value === "string" && !this.#strings.has(name) ? numberOr(value) : value);
  }

  #store(name: string, value: unknown): void {
    for (const one of this.#namesOf(name)) {
      const before = this.#values.get(one);
      if (!this.#collected.has(one)) this.#values.set(one, value);
      else if (Array.isArray(before)) before.push(value);
      else this.#values.set(one, [value]);
    }
  }
}

function numberOr(text: string): string | number {
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
