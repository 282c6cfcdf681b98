// SPDX-License-Identifier: MIT
/**
 * Stands in for `@std/assert` where JSR cannot be reached: the assertions the tests here use, with the same names,
 * parameters and errors. The message shows both values in full instead of a coloured difference.
 */
import { isDeepStrictEqual } from "node:util";

/** The constructors of all errors, whatever they take. */
type ErrorClass<E> = abstract new (...args: never[]) => E;
type Falsy = false | 0 | 0n | "" | null | undefined;

/** What every assertion throws. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

function refuse(what: string, msg: string | undefined): never {
  throw new AssertionError(msg ? `${what}: ${msg}` : `${what}.`);
}

function show(value: unknown): string {
  return Deno.inspect(value, { depth: 20, sorted: true, iterableLimit: 200, strAbbreviateSize: 10_000 });
}

function both(actual: unknown, expected: unknown): string {
  return `\n    actual:   ${show(actual)}\n    expected: ${show(expected)}`;
}

/** Deep equality, as assertEquals has it. */
function equal(a: unknown, b: unknown): boolean {
  // 0 and -0 are one value to @std/assert and two to node.
  return a === b || isDeepStrictEqual(a, b);
}

export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

export function assertFalse(expr: unknown, msg = ""): asserts expr is Falsy {
  if (expr) throw new AssertionError(msg);
}

export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) refuse(`Values are not equal${both(actual, expected)}\n`, msg);
}

export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) refuse(`Expected actual: ${show(actual)} not to be: ${show(expected)}`, msg);
}

export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) refuse(`Expected actual: "${actual}" to contain: "${expected}"`, msg);
}

export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!new RegExp(expected).test(actual)) refuse(`Expected actual: "${actual}" to match: "${expected}"`, msg);
}

export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  if (Math.abs(expected - actual) <= allowed) return;
  refuse(`Expected actual: "${actual}" to be close to "${expected}" (at most ${allowed} away)`, msg);
}

export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(fn: () => unknown, ...rest: unknown[]): unknown {
  try {
    fn();
  } catch (error) {
    checkThrown(error, rest);
    return error;
  }
  refuse("Expected function to throw", messageOf(rest));
}

export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(fn: () => PromiseLike<unknown>, ...rest: unknown[]): Promise<unknown> {
  let promise;
  try {
    promise = fn();
  } catch {
    refuse("Function throws when expected to reject", messageOf(rest));
  }
  try {
    await promise;
  } catch (error) {
    checkThrown(error, rest);
    return error;
  }
  refuse("Expected function to reject", messageOf(rest));
}

function checkThrown(error: unknown, rest: readonly unknown[]): void {
  const [expected, includes] = rest;
  if (typeof expected !== "function") return;
  const msg = messageOf(rest);
  if (!(error instanceof Error)) refuse(`Expected "error" to be an Error object`, msg);
  if (!(error instanceof expected)) {
    refuse(`Expected error to be instance of "${expected.name}", but was "${error.constructor.name}"`, msg);
  }
  if (typeof includes === "string" && !error.message.includes(includes)) {
    refuse(`Expected error message to include ${show(includes)}, but got ${show(error.message)}`, msg);
  }
}

function messageOf(rest: readonly unknown[]): string | undefined {
  const message = typeof rest[0] === "function" ? rest[2] : rest[0];
  return typeof message === "string" ? message : undefined;
}
