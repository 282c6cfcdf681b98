// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { readAt, writeAt } from "../../../src/system/file.ts";
import { linux, O_RDONLY, O_RDWR } from "../../../src/system/libc.ts";
import { folder } from "../backends/stores.ts";

Deno.test("writeAt() and readAt() move all of it, at any place of a file", () => {
  using dir = folder();
  Deno.writeFileSync(`${dir.path}/a`, new Uint8Array(100));
  const fd = linux.open(`${dir.path}/a`, O_RDWR);
  writeAt(fd, new Uint8Array(10).fill(3), 2 ** 33 + 1);
  const bytes = new Uint8Array(12);
  writeAt(fd, new Uint8Array(1), 2 ** 33 + 11);
  readAt(fd, bytes, 2 ** 33);
  assertEquals([...bytes], [0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0]);
  assertThrows(() => readAt(fd, bytes, 2 ** 33 + 1), DblockError, "the file ends before");
  linux.close(fd);
});

Deno.test("writeAt() does not write to a file that was opened to be read, whoever asks", () => {
  using dir = folder();
  Deno.writeFileSync(`${dir.path}/a`, new Uint8Array(100));
  const fd = linux.open(`${dir.path}/a`, O_RDONLY);
  const error = assertThrows(() => writeAt(fd, new Uint8Array(1).fill(1), 0), DblockError, "open to read");
  assertEquals([error.code, Deno.readFileSync(`${dir.path}/a`)[0]], ["EBADF", 0]);
  linux.close(fd);
});

Deno.test("an error of a file has its errno, found the second time", () => {
  const full = linux.open("/dev/full", O_RDWR);
  const error = assertThrows(() => writeAt(full, new Uint8Array(512), 0), DblockError, "Cannot write 512 bytes at 0");
  assertEquals(error.code, "ENOSPC");
  linux.close(full);
});
