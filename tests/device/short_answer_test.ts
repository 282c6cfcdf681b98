// A short or failed answer is an I/O error with the errno the block layer allows, and never stale memory as data.
// Hard case B5.
import { assertEquals, assertMatch } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { done } from "./server.ts";

Deno.test("a read that was answered short returns nothing at all", async () => {
  for (const flags of [0, abi.DBLOCK_DEVICE_DIRECT]) {
    await using disk = await TestDisk.start({ name: "short0", flags });
    disk.store.bytes.fill(65);
    for (const lengthBytes of [0, 512, 4095]) {
      disk.rule = (request) => ({ ...disk.fulfil(request), length_bytes: lengthBytes });
      const { status, stdout, stderr } = await sh(`dd if=${disk.path} bs=4k count=1 iflag=direct`, { check: false });
      assertEquals([lengthBytes, status, stdout], [lengthBytes, 1, ""]);
      assertMatch(stderr, /Input\/output error/);
    }
    disk.rule = () => "serve";
    assertEquals((await sh(`dd if=${disk.path} bs=4k count=1 iflag=direct status=none`)).stdout, "A".repeat(4096));
  }
});

Deno.test("a write that was answered short fails", async () => {
  await using disk = await TestDisk.start({ name: "short1" });
  disk.rule = (request) => ({ ...done(request), length_bytes: request.lengthBytes - 512 });
  const { status } = await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false });
  assertEquals(status, 1);
  disk.rule = () => "serve";
});

Deno.test("a page-cache read that fails does not show what was in memory before", async () => {
  await using disk = await TestDisk.start({ name: "short2" });
  disk.rule = () => ({ error: ERRNO.EIO });
  const { status, stdout } = await sh(`dd if=${disk.path} bs=4k count=1`, { check: false });
  assertEquals([status, stdout], [1, ""]);
  disk.rule = () => "serve";
  assertEquals((await sh(`dd if=${disk.path} bs=4k count=1 status=none`)).stdout, "\0".repeat(4096));
});

Deno.test("an errno of the server's reaches the caller if the block layer knows it, else as EIO", async () => {
  await using disk = await TestDisk.start({ name: "short3" });
  const said: [number, RegExp][] = [
    [ERRNO.ENOSPC, /No space left on device/],
    [ERRNO.ETIMEDOUT, /Connection timed out/],
    [ERRNO.EOPNOTSUPP, /Operation not supported/],
    [ERRNO.ENOMEM, /Cannot allocate memory/],
    [ERRNO.ENODATA, /No data available/],
    [ERRNO.ENOLINK, /Link has been severed/],
    [ERRNO.EREMOTEIO, /Remote I\/O error/],
    [ERRNO.EBADE, /Invalid exchange/],
    [ERRNO.EILSEQ, /Invalid or incomplete multibyte or wide character/],
    [ERRNO.EIO, /Input\/output error/],
    [ERRNO.EROFS, /Input\/output error/],
    [ERRNO.EACCES, /Input\/output error/],
    [ERRNO.EDQUOT, /Input\/output error/],
    [ERRNO.ENETUNREACH, /Input\/output error/],
    // These mean something inside the kernel: a server cannot make it try again, or restart a call.
    [ERRNO.EAGAIN, /Input\/output error/],
    [ERRNO.EBUSY, /Input\/output error/],
    [512, /Input\/output error/],
    [4095, /Input\/output error/],
  ];
  for (const [error, text] of said) {
    disk.rule = () => ({ error });
    const { status, stderr } = await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false });
    assertEquals([error, status], [error, 1]);
    assertMatch(stderr, text, String(error));
  }
  await disk.assertIdle();
});
