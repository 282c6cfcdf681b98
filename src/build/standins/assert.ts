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
export function equal(a: unknown, b: unknown): boolean {
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

export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  if (!Object.is(actual, expected)) refuse(`Values are not strictly equal${both(actual, expected)}\n`, msg);
}

export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (Object.is(actual, expected)) refuse(`Expected "actual" to not be strictly equal to: ${show(actual)}`, msg);
}

export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual === undefined || actual === null) {
    refuse(`Expected actual: "${actual}" to not be null or undefined`, msg);
  }
}

export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) refuse(`Expected actual: "${actual}" to contain: "${expected}"`, msg);
}

export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void {
  const missing = Array.from(expected).filter((wanted) => !Array.from(actual).some((one) => equal(one, wanted)));
  if (missing.length > 0) refuse(`Expected actual: ${show(actual)} to include: ${show(missing)}`, msg);
}

export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!new RegExp(expected).test(actual)) refuse(`Expected actual: "${actual}" to match: "${expected}"`, msg);
}

export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  if (new RegExp(expected).test(actual)) refuse(`Expected actual: "${actual}" to not match: "${expected}"`, msg);
}

export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  if (Math.abs(expected - actual) <= allowed) return;
  refuse(`Expected actual: "${actual}" to be close to "${expected}" (at most ${allowed} away)`, msg);
}

export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) refuse(`Expect ${show(actual)} > ${show(expected)}`, msg);
}

export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual >= expected)) refuse(`Expect ${show(actual)} >= ${show(expected)}`, msg);
}

export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) refuse(`Expect ${show(actual)} < ${show(expected)}`, msg);
}

export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual <= expected)) refuse(`Expect ${show(actual)} <= ${show(expected)}`, msg);
}

export function assertInstanceOf<T>(actual: unknown, expectedType: ErrorClass<T>, msg?: string): asserts actual is T {
  if (actual instanceof expectedType) return;
  const kind = actual === null || typeof actual !== "object" ? show(actual) : actual.constructor?.name ?? "Object";
  refuse(`Expected object to be an instance of "${expectedType.name}" but was "${kind}"`, msg);
}

export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) refuse(`Expected "error" to be an Error object`, msg);
  if (ErrorClass && !(error instanceof ErrorClass)) {
    refuse(`Expected error to be instance of "${ErrorClass.name}", but was "${error.constructor.name}"`, msg);
  }
  const { message } = error;
  const matches = msgMatches instanceof RegExp ? msgMatches.test(message) : message.includes(msgMatches ?? "");
  if (!matches) refuse(`Expected error message to include ${show(msgMatches)}, but got ${show(message)}`, msg);
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
  assertIsError(error, expected as ErrorClass<Error>, typeof includes === "string" ? includes : "", messageOf(rest));
}

function messageOf(rest: readonly unknown[]): string | undefined {
  const message = typeof rest[0] === "function" ? rest[2] : rest[0];
  return typeof message === "string" ? message : undefined;
}

export function fail(msg?: string): never {
  refuse("Failed assertion", msg);
}

export function unreachable(msg?: string): never {
  refuse("Unreachable", msg);
}

export function unimplemented(msg?: string): never {
  refuse("Unimplemented", msg);
}
