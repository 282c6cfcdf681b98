// In delivered mode the server gets the data of a write in its slot, and a read gets what the server put there.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";

Deno.test("delivered mode moves data both ways", async () => {
  await using disk = await TestDisk.start({ name: "delivered0" });
  await sh(`tr '\\0' a </dev/zero | dd of=${disk.path} bs=64k count=1 seek=3 oflag=direct iflag=fullblock status=none`);
  const write = disk.seen.at(-1)!;
  assertEquals(write.operation, abi.DBLOCK_OPERATION_WRITE);
  assertEquals([write.offsetBytes, write.lengthBytes], [3 * 65536, 65536]);
  assertEquals(isFilled(disk.store.bytes.subarray(3 * 65536, 4 * 65536), 97), true);
  disk.store.bytes.fill(98, 512, 1024);
  const { stdout } = await sh(`dd if=${disk.path} bs=512 count=1 skip=1 iflag=direct status=none`);
  assertEquals(stdout, "b".repeat(512));
  await disk.assertIdle();
});
