/**
 * The stand-in for `@std/assert` passes and fails where this table says, and, where JSR answers, so does the package.
 * A test suite whose assertions pass by mistake says nothing, so every assertion is tried both ways.
 * Not covered: the wording of messages beyond the parts named here.
 */
import * as std from "@std/assert";
import * as standIn from "../../../src/build/standins/assert.ts";

type Library = Omit<typeof standIn, "AssertionError"> & { readonly AssertionError: new (message: string) => Error };

interface Case {
  readonly passes: (library: Library) => unknown;
  readonly fails: (library: Library) => unknown;
}

const thrower = (error: unknown) => () => {
  throw error;
};

const CASES: Readonly<Record<string, Case>> = {
  assert: { passes: (a) => a.assert(1), fails: (a) => a.assert("") },
  assertFalse: { passes: (a) => a.assertFalse(0), fails: (a) => a.assertFalse("x") },
  "assertEquals, primitives": {
    passes: (a) => a.assertEquals(NaN, NaN),
    fails: (a) => a.assertEquals<unknown>(1, "1"),
  },
  "assertEquals, zeros": { passes: (a) => a.assertEquals(0, -0), fails: (a) => a.assertEquals(0, 1) },
  "assertEquals, deep": {
    passes: (a) => a.assertEquals({ a: [1, { b: 2n }] }, { a: [1, { b: 2n }] }),
    fails: (a) => a.assertEquals({ a: [1, { b: 2n }] }, { a: [1, { b: 3n }] }),
  },
  "assertEquals, key order": {
    passes: (a) => a.assertEquals({ a: 1, b: 2 }, { b: 2, a: 1 }),
    fails: (a) => a.assertEquals<unknown>({ a: 1 }, { a: 1, b: 2 }),
  },
  "assertEquals, an undefined key": {
    passes: (a) => a.assertEquals({ a: undefined }, { a: undefined }),
    fails: (a) => a.assertEquals<unknown>({ a: undefined }, {}),
  },
  "assertEquals, bytes": {
    passes: (a) => a.assertEquals(new Uint8Array([1, 2]), new Uint8Array([1, 2])),
    fails: (a) => a.assertEquals(new Uint8Array([1, 2]), new Uint8Array([1, 3])),
  },
  "assertEquals, types of arrays": {
    passes: (a) => a.assertEquals([1], [1]),
    fails: (a) => a.assertEquals<unknown>(new Uint8Array([1]), new Uint16Array([1])),
  },
  "assertEquals, maps and sets": {
    passes: (a) => a.assertEquals(new Map([["k", new Set([1, 2])]]), new Map([["k", new Set([2, 1])]])),
    fails: (a) => a.assertEquals(new Map([["k", 1]]), new Map([["k", 2]])),
  },
  "assertEquals, dates": {
    passes: (a) => a.assertEquals(new Date(5), new Date(5)),
    fails: (a) => a.assertEquals(new Date(5), new Date(6)),
  },
  assertNotEquals: { passes: (a) => a.assertNotEquals([1], [2]), fails: (a) => a.assertNotEquals([1], [1]) },
  assertStringIncludes: {
    passes: (a) => a.assertStringIncludes("abc", "b"),
    fails: (a) => a.assertStringIncludes("abc", "d"),
  },
  assertMatch: { passes: (a) => a.assertMatch("a1", /\d/), fails: (a) => a.assertMatch("a", /\d/) },
  assertAlmostEquals: {
    passes: (a) => a.assertAlmostEquals(0.1 + 0.2, 0.3),
    fails: (a) => a.assertAlmostEquals(1, 1.001),
  },
  "assertAlmostEquals, tolerance": {
    passes: (a) => a.assertAlmostEquals(10, 11, 1),
    fails: (a) => a.assertAlmostEquals(10, 12, 1),
  },
  assertThrows: { passes: (a) => a.assertThrows(thrower(new Error())), fails: (a) => a.assertThrows(() => 1) },
  "assertThrows, class": {
    passes: (a) => a.assertThrows(thrower(new RangeError("x")), RangeError),
    fails: (a) => a.assertThrows(thrower(new Error("x")), RangeError),
  },
  "assertThrows, message": {
    passes: (a) => a.assertThrows(thrower(new Error("abc")), Error, "b"),
    fails: (a) => a.assertThrows(thrower(new Error("abc")), Error, "d"),
  },
  assertRejects: {
    passes: (a) => a.assertRejects(() => Promise.reject(new RangeError("x")), RangeError, "x"),
    fails: (a) => a.assertRejects(() => Promise.resolve(1)),
  },
  "assertRejects, thrown at once": {
    passes: (a) => a.assertRejects(() => Promise.reject(new Error())),
    fails: (a) => a.assertRejects(thrower(new Error())),
  },
  "assertRejects, class": {
    passes: (a) => a.assertRejects(() => Promise.reject(new RangeError()), RangeError),
    fails: (a) => a.assertRejects(() => Promise.reject(new Error()), RangeError),
  },
};

/** Without any assertion of the library that is tested. */
async function outcome(run: () => unknown): Promise<unknown> {
  try {
    await run();
    return undefined;
  } catch (error) {
    return error;
  }
}

async function check({ passes, fails }: Case, library: Library): Promise<void> {
  const unexpected = await outcome(() => passes(library));
  if (unexpected !== undefined) throw new Error(`failed and should pass: ${unexpected}`);
  const error = await outcome(() => fails(library));
  if (!(error instanceof library.AssertionError)) throw new Error(`should throw an AssertionError, gave: ${error}`);
  if (error.name !== "AssertionError") throw new Error(`its name is ${error.name}`);
}

const real = std as unknown as Library;
const isReal = std.assert !== standIn.assert;

for (const [name, testCase] of Object.entries(CASES)) {
  Deno.test(`the stand-in's ${name} passes and fails`, () => check(testCase, standIn));
  Deno.test({
    name: `@std/assert's ${name} passes and fails${isReal ? "" : " (skipped: JSR does not answer here)"}`,
    ignore: !isReal,
    fn: () => check(testCase, real),
  });
}

Deno.test("assertThrows() and assertRejects() return the error", async () => {
  const error = new RangeError("abc");
  if (std.assertThrows(thrower(error), RangeError) !== error) throw new Error("assertThrows() returned another");
  if (await std.assertRejects(() => Promise.reject(error), RangeError) !== error) {
    throw new Error("assertRejects() did");
  }
});

Deno.test("assertEquals() shows both values and the message", async () => {
  const error = await outcome(() => standIn.assertEquals({ a: 1 }, { a: 2 }, "after the second write"));
  for (const part of ["{ a: 1 }", "{ a: 2 }", "after the second write"]) {
    if (!String(error).includes(part)) throw new Error(`${part} is not in: ${error}`);
  }
});
