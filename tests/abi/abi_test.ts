// SPDX-License-Identifier: MIT
/**
 * abi.ts against kmod/uapi/dblock.h: every size, offset, constant and ioctl number, in both directions. What the header
 * says is found by asking the C compiler about every name in it. Needs gcc and linux-libc-dev; no root, no module.
 *
 * It does not cover what the kernel does with the fields: that is tests/device.
 */
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { elementBytes } from "../../src/system/struct.ts";
import { compile, dumpHeader, namesOf } from "./header.ts";

const names = namesOf();
const dump = await dumpHeader(names);

Deno.test("abi.ts has every constant of the header, with its value", () => {
  const mirrored: Record<string, string> = {};
  for (const name of names.constants) {
    const value: unknown = Reflect.get(abi, name);
    assert(typeof value === "number" || typeof value === "string", `abi.ts has no ${name}`);
    mirrored[name] = typeof value === "number" ? BigInt(value).toString() : value;
  }
  assertEquals(mirrored, dump.constants);
});

Deno.test("abi.ts has no constant that the header does not have", () => {
  const extra = Object.entries(abi)
    .filter(([name, value]) => name.startsWith("DBLOCK_") && typeof value !== "function")
    .map(([name]) => name)
    .filter((name) => !names.constants.includes(name));
  assertEquals(extra, []);
});

Deno.test("abi.ts has every structure of the header, and no other", () => {
  assertEquals(abi.STRUCTS.map((layout) => layout.name).sort(), Object.keys(names.structs).sort());
  for (const layout of abi.STRUCTS) assertEquals(Reflect.get(abi, layout.name), layout);
});

for (const layout of abi.STRUCTS) {
  Deno.test(`abi.ts has struct ${layout.name} as the compiler lays it out`, () => {
    const mirrored = {
      size: layout.size,
      fields: Object.fromEntries(
        Object.entries(layout.fields).map(([name, field]) => [
          name,
          { offset: field.offset, bytes: elementBytes(field.kind) * field.count },
        ]),
      ),
    };
    assertEquals(mirrored, dump.structs[layout.name]);
  });
}

Deno.test("DBLOCK_RING_BYTES() is the header's, for every depth", () => {
  const mirrored = Array.from({ length: abi.DBLOCK_QUEUE_DEPTH_MAX + 1 }, (_, depth) => abi.DBLOCK_RING_BYTES(depth));
  assertEquals(mirrored, dump.ringBytes);
});

Deno.test("the header has no hole: every structure ends where its last field ends, a multiple of 8", () => {
  for (const layout of abi.STRUCTS) {
    let end = 0;
    for (const [name, field] of Object.entries(layout.fields)) {
      assertEquals(field.offset, end, `a hole before ${layout.name}.${name}`);
      end += elementBytes(field.kind) * field.count;
    }
    assertEquals(end, layout.size, `a hole at the end of ${layout.name}`);
    assertEquals(layout.size % 8, 0, layout.name);
  }
});

Deno.test("the header compiles without padding and without a warning", async () => {
  const { code, stderr } = await compile(["-Wpadded", "-fsyntax-only"]);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
});

const can32 = (await compile(["-m32", "-fsyntax-only"], "")).code === 0;

Deno.test({
  name: `the header is the same for 32-bit programs${can32 ? "" : " (skipped: this gcc has no -m32)"}`,
  ignore: !can32,
  fn: async () => {
    const assertions = Object.entries(dump.structs).flatMap(([name, layout]) => [
      `_Static_assert(sizeof(struct ${name}) == ${layout.size}, "${name}");`,
      ...Object.entries(layout.fields).map(([field, { offset }]) =>
        `_Static_assert(__builtin_offsetof(struct ${name}, ${field}) == ${offset}, "${name}.${field}");`
      ),
    ]);
    const { code, stderr } = await compile(["-m32", "-fsyntax-only"], assertions.join("\n"));
    assertEquals({ code, stderr }, { code: 0, stderr: "" });
  },
});

Deno.test("the comparison sees a name that is added to the header", () => {
  const more = namesOf(
    "#define DBLOCK_NEW 7\nenum dblock_x {\n\tDBLOCK_X_A = 1,\n};\nstruct dblock_y {\n\t__u32 a;\n\t__u64 b[2];\n};\n",
  );
  assertEquals(more, { constants: ["DBLOCK_NEW", "DBLOCK_X_A"], structs: { dblock_y: ["a", "b"] } });
});
