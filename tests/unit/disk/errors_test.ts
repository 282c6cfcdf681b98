// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { DblockError, describe, ERRNO, errnoName, errnoOf, received, withHint } from "../../../src/disk/errors.ts";

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
  const refused = assertThrows(() => Deno.readTextFileSync("/nowhere/at all"));
  assertEquals(describe(refused), "No such file or directory: readfile '/nowhere/at all'");
});

Deno.test("errnoOf() finds the errno in an error's code", () => {
  assertEquals(errnoOf(new DblockError("ENOSPC", "a", "b")), 28);
  assertEquals(errnoOf(Object.assign(new Error(), { code: "EROFS" })), 30);
  assertEquals(errnoOf(Object.assign(new Error(), { code: "ENOTSUP" })), 95); // Deno's name of it
  for (const none of [new Error(), null, undefined, "EIO", { code: 5 }, { code: "constructor" }, { code: "EWHAT" }]) {
    assertEquals(errnoOf(none), undefined);
  }
});

Deno.test("errnoOf() takes the number of a DblockError that has no name, and nothing that is no errno", () => {
  assertEquals([errnoOf(new DblockError(38)), errnoOf(new DblockError(4095))], [38, 4095]);
  for (const none of [0, -5, 4096, NaN]) assertEquals(errnoOf(new DblockError(none)), undefined);
});

Deno.test("DblockError takes as many words as there are", () => {
  assertEquals([new DblockError("ENOSPC").message, new DblockError("ENOSPC").wrong], ["ENOSPC", "ENOSPC"]);
  assertEquals(new DblockError(38).message, "errno 38");
  assertEquals(new DblockError("EIO", "Cannot read").message, "Cannot read: EIO");
  assertEquals(new DblockError("EIO", "", "it is broken", { hint: "mend it" }).message, "it is broken (mend it)");
});

Deno.test("DblockError says what was tried, what is wrong and what to do", () => {
  const error = new DblockError("EEXIST", "Cannot create /dev/a", "the name is in use", { hint: "take another" });
  assertEquals(error.message, "Cannot create /dev/a: the name is in use (take another)");
  assertEquals([error.code, error.errno, error.name], ["EEXIST", 17, "DblockError"]);
  assertEquals(withHint(error, "b").message, "Cannot create /dev/a: the name is in use (b)");
  assertEquals(new DblockError(4000, "a", "b").code, "errno 4000");
  const heard = received({ errno: 17, message: error.message });
  assertEquals([heard.code, heard.message], ["EEXIST", error.message]);
});
