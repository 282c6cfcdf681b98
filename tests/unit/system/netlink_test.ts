// SPDX-License-Identifier: MIT
// Messages of generic netlink, and the kernel's own family that says which others there are: no root, no module.
import { assertEquals } from "@std/assert";
import { ERRNO } from "../../../src/disk/errors.ts";
import { attribute, attributesOf, GenericNetlink } from "../../../src/system/netlink.ts";

Deno.test("attribute() pads to four bytes, and attributesOf() finds each, a group's members too", () => {
  const bytes = [attribute(1, 7), attribute(2, 2n ** 40n), attribute(3, "ab"), attribute(4, [attribute(9, 5)])];
  assertEquals(bytes.map(({ length }) => length), [8, 12, 8, 12]);
  const all = new Uint8Array(bytes.flatMap((piece) => [...piece]));
  const found = attributesOf(all);
  assertEquals([...found.keys()], [1, 2, 3, 4]);
  assertEquals([found.get(1)!.getUint32(0, true), found.get(2)!.getBigUint64(0, true)], [7, 2n ** 40n]);
  assertEquals(found.get(3)!.byteLength, 3);
  const group = found.get(4)!;
  const inner = attributesOf(new Uint8Array(group.buffer, group.byteOffset, group.byteLength));
  assertEquals(inner.get(9)!.getUint32(0, true), 5);
  assertEquals([...attributesOf(all.subarray(0, 15)).keys()], [1]);
});

Deno.test("GenericNetlink calls a family that is there, and there is none of another name", () => {
  assertEquals(GenericNetlink.open("dblock-none"), undefined);
  using control = GenericNetlink.open("nlctrl");
  const familyNamed = 2;
  const { errno, attributes } = control!.call(3, 2, [attribute(familyNamed, "nlctrl")]);
  assertEquals([errno, attributes.get(1)?.getUint16(0, true)], [0, 16]);
  assertEquals(control!.call(3, 2, [attribute(familyNamed, "dblock-none")]).errno, ERRNO.ENOENT);
});
