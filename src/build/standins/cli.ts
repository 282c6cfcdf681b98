// SPDX-License-Identifier: MIT
/**
 * Stands in for `@std/cli` where JSR cannot be reached: `parseArgs` with the same options, results and types for what a
 * program here uses. Prompts, spinners and the rest of that package are not here.
 *
 * It is not built on `node:util`'s parser: that one refuses or reorders what `@std/cli` accepts (numbers, `-n5`,
 * `--x true`, aliases as separate keys), and loading it costs an executable start-up time.
 *
 * Types are a little stricter than the package's: what compiles against this compiles against that.
 */

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions<
  B extends string = string,
  S extends string = string,
  C extends string = string,
  N extends string = string,
  D extends Readonly<Record<string, unknown>> = Readonly<Record<string, unknown>>,
  A extends Aliases = Aliases,
  DoubleDash extends boolean = boolean,
> {
  /** Keep what follows `--` apart, in the result's `"--"`. @default {false} */
  "--"?: DoubleDash;
  /** Other names of an option. */
  alias?: A;
  /** Options without a value. They are `false` unless given. `true`: every `--name` without `=`. */
  boolean?: boolean | B | readonly B[];
  /** Values of options that are not given. */
  default?: D;
  /** Everything from the first argument that is no option goes to `_`. @default {false} */
  stopEarly?: boolean;
  /** Options whose value stays a string, even if it looks like a number. */
  string?: S | readonly S[];
  /** Options that may be given several times; their value is an array. */
  collect?: C | readonly C[];
  /** Options that `--no-NAME` sets to `false`. */
  negatable?: N | readonly N[];
  /** Called with whatever no other option names; on `false` it is left out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

type Aliases = Readonly<Record<string, string | readonly string[]>>;

type Values<B extends string, S extends string, C extends string, N extends string> =
  & { [K in B]: K extends C ? boolean[] : boolean }
  & { [K in S as K extends C ? K : never]: string[] }
  & { [K in S as K extends C ? never : K]?: K extends N ? string | false : string }
  & { [K in Exclude<C, B | S>]: unknown[] };

type WithDefaults<V, D> =
  & Omit<V, keyof D>
  & { -readonly [K in keyof D]: K extends keyof V ? NonNullable<V[K]> | D[K] : unknown };

type WithAliases<V, A> = {
  [K in keyof V as K extends keyof A ? K | (A[K] extends readonly (infer E)[] ? E & string : A[K] & string) : K]: V[K];
};

/** What {@linkcode parseArgs} returns. */
export type Args<V = Record<string, unknown>, DoubleDash extends boolean = false> =
  & V
  & Record<string, unknown>
  & { _: (string | number)[] }
  & (DoubleDash extends true ? { "--": string[] } : Record<never, never>);

// Lazy, so that `--name=` is an option called "name=", as in the package.
const LONG = /^--(?<name>.+?)(?:=(?<value>.+))?$/s;
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
  const N extends string = never,
  const D extends Readonly<Record<string, unknown>> = Record<never, never>,
  const A extends Aliases = Record<never, never>,
  DoubleDash extends boolean = false,
>(
  args: readonly string[],
  options: ParseOptions<B, S, C, N, D, A, DoubleDash> = {},
): Args<WithAliases<WithDefaults<Values<B, S, C, N>, D>, A>, DoubleDash> {
  const end = args.indexOf("--");
  const parser = new Parser(options, end < 0 ? args : args.slice(0, end));
  parser.run();
  const result = parser.finish(end < 0 ? [] : args.slice(end + 1));
  // The types above describe what Parser builds by name; the compiler cannot follow that.
  return result as Args<WithAliases<WithDefaults<Values<B, S, C, N>, D>, A>, DoubleDash>;
}

/** One run over the arguments. */
class Parser {
  readonly #options: ParseOptions;
  readonly #args: readonly string[];
  readonly #peers = new Map<string, Set<string>>();
  readonly #booleans: Set<string>;
  readonly #strings: Set<string>;
  readonly #collected: Set<string>;
  readonly #negatable: Set<string>;
  readonly #values: Record<string, unknown> = {};
  readonly #rest: (string | number)[] = [];
  #next = 0;

  constructor(options: ParseOptions, args: readonly string[]) {
    this.#options = options;
    this.#args = args;
    for (const [name, others] of Object.entries(options.alias ?? {})) {
      const group = [name, ...(typeof others === "string" ? [others] : others)];
      for (const one of group) this.#peers.set(one, new Set(group.filter((other) => other !== one)));
    }
    this.#booleans = this.#withPeers(typeof options.boolean === "boolean" ? [] : options.boolean);
    this.#strings = this.#withPeers(options.string);
    this.#collected = this.#withPeers(options.collect);
    this.#negatable = this.#withPeers(options.negatable);
  }

  #withPeers(names: string | readonly string[] | undefined): Set<string> {
    const list = names === undefined ? [] : typeof names === "string" ? [names] : names;
    return new Set(list.flatMap((name) => [name, ...(this.#peers.get(name) ?? [])]));
  }

  run(): void {
    while (this.#next < this.#args.length) {
      const arg = this.#args[this.#next++] ?? "";
      const long = LONG.exec(arg)?.groups;
      if (long) this.#long(arg, long.name ?? "", long.value);
      else if (SHORT.test(arg)) this.#short(arg);
      else if (this.#other(arg)) break;
    }
  }

  /** Returns true when nothing after it is to be parsed. */
  #other(arg: string): boolean {
    if (this.#options.unknown?.(arg) !== false || this.#options.unknown === undefined) {
      this.#rest.push(this.#strings.has("_") ? arg : numberOr(arg));
    }
    if (!this.#options.stopEarly) return false;
    this.#rest.push(...this.#args.slice(this.#next));
    return true;
  }

  #long(arg: string, name: string, value: string | undefined): void {
    if (value !== undefined) {
      this.#set(arg, name, this.#booleans.has(name) ? value !== "false" : value);
    } else if (name.startsWith("no-") && this.#negatable.has(name.slice(3))) {
      this.#set(arg, name.slice(3), false, false);
    } else {
      this.#set(arg, name, this.#takeValue(name, this.#options.boolean === true, /^-/));
    }
  }

  /** `-abc`, `-n5`, `-n=5`, `-n 5`. */
  #short(arg: string): void {
    for (let at = 1; at < arg.length; at++) {
      const name = arg.charAt(at);
      const tail = arg.slice(at + 1);
      if (tail === "") {
        this.#set(arg, name, this.#takeValue(name, false, /^--?[^-]/));
      } else if (tail === "-") {
        return this.#set(arg, name, "-");
      } else if (/[A-Za-z]/.test(name) && /^=./s.test(tail)) {
        return this.#set(arg, name, this.#booleans.has(name) ? tail !== "=false" : tail.slice(1));
      } else if ((/[A-Za-z]/.test(name) && /^-?\d+(\.\d*)?(e-?\d+)?$/.test(tail)) || /^\W/.test(tail)) {
        return this.#set(arg, name, tail);
      } else {
        this.#set(arg, name, this.#strings.has(name) ? "" : true);
      }
    }
  }

  /** The value of an option without `=`: the next argument where that can be one. */
  #takeValue(name: string, isBoolean: boolean, looksLikeOption: RegExp): string | boolean {
    const next = this.#args[this.#next];
    if (next !== undefined && next !== "") {
      if (!isBoolean && !this.#booleans.has(name) && !looksLikeOption.test(next)) {
        this.#next++;
        return next;
      }
      if (next === "true" || next === "false") {
        this.#next++;
        return next === "true";
      }
    }
    return this.#strings.has(name) ? "" : true;
  }

  #set(arg: string, name: string, value: string | boolean, collect = true): void {
    const known = this.#booleans.has(name) || this.#strings.has(name) || this.#peers.has(name) ||
      (this.#options.boolean === true && /^--[^=]+$/.test(arg));
    if (!known && this.#options.unknown?.(arg, name, value) === false) return;
    const converted = typeof value === "string" && !this.#strings.has(name) ? numberOr(value) : value;
    for (const one of [name, ...(this.#peers.get(name) ?? [])]) {
      this.#store(one, converted, collect && this.#collected.has(one));
    }
  }

  /** A dot in a name means an object in an object. */
  #store(name: string, value: unknown, collect: boolean): void {
    const { holder, key } = this.#find(name, true);
    if (holder === undefined) return;
    const before = holder[key];
    if (!collect) holder[key] = value;
    else if (Array.isArray(before)) before.push(value);
    else holder[key] = [value];
  }

  #find(name: string, create: boolean): { holder: Record<string, unknown> | undefined; key: string } {
    const keys = name.split(".");
    const key = keys.pop() ?? "";
    let holder: Record<string, unknown> = this.#values;
    for (const outer of keys) {
      let inner = Object.hasOwn(holder, outer) ? holder[outer] : undefined;
      if (!isRecord(inner)) {
        if (!create) return { holder: undefined, key };
        inner = {};
        define(holder, outer, inner);
      }
      if (!isRecord(inner)) return { holder: undefined, key };
      holder = inner;
    }
    if (create && !Object.hasOwn(holder, key)) define(holder, key, undefined);
    return { holder, key };
  }

  #has(name: string): boolean {
    const { holder, key } = this.#find(name, false);
    return holder !== undefined && Object.hasOwn(holder, key);
  }

  finish(afterDoubleDash: readonly string[]): Record<string, unknown> {
    for (const [name, value] of Object.entries(this.#options.default ?? {})) {
      if (this.#has(name)) continue;
      for (const one of [name, ...(this.#peers.get(name) ?? [])]) this.#store(one, value, false);
    }
    for (const name of [...this.#booleans, ...this.#strings, ...this.#collected]) {
      if (this.#has(name)) continue;
      if (this.#collected.has(name)) this.#store(name, [], false);
      else if (this.#booleans.has(name)) this.#store(name, false, false);
    }
    if (this.#options["--"]) return { ...this.#values, _: this.#rest, "--": [...afterDoubleDash] };
    return { ...this.#values, _: [...this.#rest, ...afterDoubleDash] };
  }
}

/** An own property even under names such as `__proto__`. */
function define(holder: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, configurable: true, enumerable: true, writable: true });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function numberOr(text: string): string | number {
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
