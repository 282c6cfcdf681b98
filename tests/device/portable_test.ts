// The header alone is enough to write a server: tests/portable/server.c takes a disk through its life, in C, as
// tests/portable/smoke.sh says. On a 32-bit machine, where Deno is not, smoke.sh runs by itself: make test KERNEL=6.1-armhf.
// dmesg may have: (EXT4-fs|Buffer I/O|JBD2).*
import { assertEquals } from "@std/assert";
import { sh } from "./harness.ts";

Deno.test("a server in C, made from nothing but uapi/dblock.h, takes a disk through its life", async () => {
  const { status, stdout } = await sh("bash tests/portable/smoke.sh", { timeoutMs: 100_000, check: false });
  console.log(stdout);
  assertEquals(status, 0, stdout);
  assertEquals(stdout.split("\n").filter((line) => line.startsWith("ok - ")).length, 19);
});
