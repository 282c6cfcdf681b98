// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { DblockError, describe, ERRNO, errnoName, errnoOf } from "../../../src/disk/errors.ts";

Deno.test("ERRNO has the numbers of this machine's headers", async () => {
  const { stdout } = await new Deno.Command("gcc", {
    args: ["-dM", "-E", "-x", "c", "-include", "errno.h", "/dev/null"],
  })
    .output();
  const defines = Object.fromEntries(
    [...new TextDecoder().decode(stdout).matchAll(/^#define (E[A-Z0-9]+) ([0-9]+)$/gm)].map(([, name, number]) => [
      name,
      Number(number),
    ]),
  );
  const wanted = Object.fromEntries(Object.keys(ERRNO).map((name) => [name, defines[name]]));
  assertEquals({ ...ERRNO }, wanted);
});

Deno.test("errnoName() names what is in the table, and numbers what is not", () => {
  assertEquals([errnoName(16), errnoName(4000)], ["EBUSY", "errno 4000"]);
});

Deno.test("describe() has words for whatever is thrown", () => {
  const hostile = {
    toString() {
      throw new Error("no");
    },
  };
  const things = [
    new Error("a"),
    new DblockError("EIO", "Cannot b", "c"),
    "d",
    undefined,
    Object.create(null),
    hostile,
  ];
  const nothing = "something that has no description";
  assertEquals(things.map(describe), ["Error: a", "Cannot b: c", "d", "undefined", nothing, nothing]);
});

Deno.test("errnoOf() finds the errno in an error's code", () => {
  assertEquals(errnoOf(new DblockError("ENOSPC", "a", "b")), 28);
  assertEquals(errnoOf(Object.assign(new Error(), { code: "EROFS" })), 30);
  for (const none of [new Error(), null, undefined, "EIO", { code: 5 }, { code: "constructor" }, { code: "EWHAT" }]) {
    assertEquals(errnoOf(none), undefined);
  }
});

Deno.test("DblockError says what was tried, what is wrong and what to do", () => {
  const error = new DblockError("EEXIST", "Cannot create /dev/a", "the name is in use", { hint: "take another" });
  assertEquals(error.message, "Cannot create /dev/a: the name is in use (take another)");
  assertEquals([error.code, error.errno, error.name], ["EEXIST", 17, "DblockError"]);
  assertEquals(error.withHint("b").message, "Cannot create /dev/a: the name is in use (b)");
  assertEquals(new DblockError(4000, "a", "b").code, "errno 4000");
  const received = DblockError.received({ errno: 17, message: error.message });
  assertEquals([received.code, received.message], ["EEXIST", error.message]);
});
