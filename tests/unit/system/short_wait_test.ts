import { assertEquals } from "@std/assert";
import { libc } from "../../../src/system/library.ts";
import { linux } from "../../../src/system/libc.ts";
import { Patience } from "../../../src/system/patience.ts";
import { ShortWait } from "../../../src/system/short_wait.ts";

const EFD_NONBLOCK = 0o4000;

Deno.test("Patience is worth it until four times in vain, then once in sixteen, and again after a success", () => {
  const patience = new Patience();
  const tries = (count: number) =>
    Array.from({ length: count }, () => {
      const { isWorthIt } = patience;
      patience.told(false);
      return isWorthIt;
    });
  assertEquals(tries(4), [true, true, true, true]);
  assertEquals(tries(32).filter(Boolean).length, 2);
  patience.told(true);
  assertEquals(tries(5), [true, true, true, true, false]);
});

Deno.test("ShortWait finds what was written once, and does not wait once that was in vain again and again", () => {
  const fd = libc().eventfd(0, EFD_NONBLOCK);
  try {
    const wait = new ShortWait(fd);
    libc().eventfd_write(fd, 1n);
    libc().eventfd_write(fd, 1n);
    assertEquals([wait.hasCome(), wait.hasCome()], [true, false]);
    libc().eventfd_write(fd, 1n);
    assertEquals(wait.hasCome(), true);
    for (let i = 0; i < 4; i++) assertEquals(wait.hasCome(), false);
    libc().eventfd_write(fd, 1n);
    for (let i = 0; i < 12; i++) assertEquals(wait.hasCome(), false); // it does not look
    assertEquals(wait.hasCome(), true);
  } finally {
    linux.close(fd);
  }
});
