// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { holdersOf, parseMountInfo } from "../../../src/system/holders.ts";

Deno.test("parseMountInfo() reads device numbers and mount points, spaces and all", () => {
  const text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
    "40 35 259:3 / /media/my\\040disk\\134x rw - ext4 /dev/disk0 rw\n";
  assertEquals(parseMountInfo(text), [
    { device: "98:0", target: "/mnt2" },
    { device: "259:3", target: "/media/my disk\\x" },
  ]);
});

Deno.test("holdersOf() finds nobody for a disk that is not there", () => {
  assertEquals(holdersOf("no-such-disk"), []);
});
