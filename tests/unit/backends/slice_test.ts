// SPDX-License-Identifier: MIT
// slice(): ranges and partitions. What every backend does is in contract_test.ts.
import { assertEquals, assertRejects } from "@std/assert";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { slice } from "../../../src/backends/slice.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";

const MIB = 2 ** 20;
const plain = requestOptions();

/** sgdisk -n 1:2048:4095 -n 3:6144:+1M, on 8 MiB; an image that is nearly all zeroes shrinks best when it is zipped twice. */
const GPT_IMAGE =
  "H4sICE6UCWsCA2dwdC5pbWcuZ3oAk+/mYAABJua3l/Q9VBJFGD7kf32SE81j9l/FUSdbKNLVhd13U8VZpZyLK5QqujcsOqgyrTtJgCd8TZLITaW4qCtPFLXFEh3FEidXa9eJ97Cz8dfbV5zZ832v+Yc0NZZ/6boLb31TnZp1z9Ttf+2v2+c7T658N3PjnRyOlQbX10ypq/n7r2hSl2z9/FvSn2fP2B72nv9XH/uy7/PauaYuWXtH6Hy3IdfTXwvXf/4om+r98uzapSnpursL5q65X/qk/XxZddbJk/++5T5TLBe99bh+wj+Z39/7bXSvyfsfNz+nH6Y/Xbt5ofG7+1/L9OSfHfYyZhgFo2AUjIJRMApGwSgYBaNgFIyCUTAKRsEoGAWjYBSMglEwCkbBKBgFo2AUjIJRMApGAZ1Bw/fiKbpLzbdPmzR365tDpZvqrk+Ut7v9dqWq+u/b22e23wnNqH+bvcT++L+/yv7dX49f/tj7ufvq6aenEl70/C7fO/d0+88Nl3jQzKzgF54cfNc4eedNgaDEdTOvd82M1/967MXrSq1vX4+99l2Dtvzgj/U1yPKD7b8//mVkyDOoBjqLAQBG+n2nMCEAAA==";
/** parted mklabel msdos mkpart primary 1MiB 2MiB mkpart extended 3MiB 7MiB mkpart logical 4MiB 5MiB, and 6MiB 7MiB. */
const MBR_IMAGE =
  "H4sICFKUCWsCA21ici5pbWcuZ3oAk+/mYAABJua3FxZ6OTOKsD0oLi/dnVCgsOLsa2kOscX8CjOmfeXNK8x9eCqXy9uuKTOzI3GRz2RHgR67w2LXRdpuxyVEzHn4+9RPfwv1P/HNGWX28xbZd7yoK4vf136xsu+X8xW17Yv/Vh0puGERlZ0fsv7s6ZdbLs7r2f4+++8TQ6vyp1ddi2qDqu9Luaon2fD+O3f7bKLhfM/NXp/3nkgzjH7DPjsz7sg7nWen92+pmsXCMApGwSgYBaNgFIyCUTAKRsEoGG4gTNdy3aU/Jpsiz4j9vlk1S/ypn8tM3f15X004RsNmFIyCUTAKRsEoGAWjYBSMgkEHDmipPg8Ftttt0vaPNttHwSgYBaNgFIyCUUAE+CNur7RjywoGhgYGAFr4Di6eIAAA";

async function diskOf(image: string): Promise<MemoryBackend> {
  const unzip = () => new DecompressionStream("gzip");
  const zipped = new Blob([Uint8Array.fromBase64(image)]).stream();
  const bytes = await new Response(zipped.pipeThrough(unzip()).pipeThrough(unzip())).bytes();
  const disk = new MemoryBackend({ sizeBytes: bytes.length });
  disk.write(bytes, 0);
  return disk;
}

async function partitionOf(disk: MemoryBackend, partition: number): Promise<[offset: number, size: number]> {
  const { offsetBytes, sizeBytes } = await slice(disk, { partition });
  return [offsetBytes, sizeBytes];
}

Deno.test("slice() takes a partition of a GPT, by its number and not by its place in the table", async () => {
  using disk = await diskOf(GPT_IMAGE);
  assertEquals(await partitionOf(disk, 1), [MIB, MIB]);
  assertEquals(await partitionOf(disk, 3), [3 * MIB, MIB]);
  const error = await assertRejects(() => partitionOf(disk, 2), DblockError);
  assertEquals(error.message, "Cannot take partition 2 of a disk: there is no such partition (it has 1, 3)");
  const part = await slice(disk, { partition: 3 });
  await part.write(new Uint8Array(512).fill(5), MIB - 512, plain);
  assertEquals([disk.bytes().indexOf(5, 3 * MIB), disk.bytes().lastIndexOf(5, 7 * MIB)], [4 * MIB - 512, 4 * MIB - 1]);
});

for (const [what, at] of [["header", 512 + 40], ["table", 1024 + 32]] as const) {
  Deno.test(`slice() reads the copy of a GPT whose ${what} is damaged, and refuses the disk if both are`, async () => {
    using disk = await diskOf(GPT_IMAGE);
    disk.bytes()[at]! ^= 1;
    assertEquals(await partitionOf(disk, 3), [3 * MIB, MIB]);
    // The copy: its header is in the last sector, its table before that.
    const copy = what === "header" ? 8 * MIB - 512 + 40 : 8 * MIB - 33 * 512 + 32;
    disk.bytes()[copy]! ^= 1;
    await assertRejects(() => partitionOf(disk, 3), DblockError, "both copies of its GPT are damaged");
  });
}

Deno.test("slice() takes primary and logical partitions of an MBR", async () => {
  using disk = await diskOf(MBR_IMAGE);
  assertEquals(await partitionOf(disk, 1), [MIB, MIB]);
  assertEquals(await partitionOf(disk, 5), [4 * MIB, MIB]);
  assertEquals(await partitionOf(disk, 6), [6 * MIB, MIB]);
  await assertRejects(() => partitionOf(disk, 2), DblockError, "(it has 1, 5, 6)");
});

Deno.test("slice() refuses a chain of logical partitions that leads back, and one behind the disk's end", async () => {
  using disk = await diskOf(MBR_IMAGE);
  const sectors = new DataView(disk.bytes().buffer);
  // The second sector of the chain says that the next one is the first.
  const second = 5 * MIB;
  const chain = [3 * MIB, second].map((at) => at + 446 + 16);
  const places = chain.map((at) => sectors.getUint32(at + 8, true));
  assertEquals(places[0]! > 0, true);
  const next = 3 * MIB + places[0]! * 512;
  sectors.setUint8(next + 446 + 16 + 4, 5);
  sectors.setUint32(next + 446 + 16 + 8, 0, true);
  sectors.setUint32(next + 446 + 16 + 12, 2048, true);
  assertEquals(await partitionOf(disk, 6), [6 * MIB, MIB]);
  sectors.setUint32(446 + 12, 16 * 2048, true);
  await assertRejects(() => partitionOf(disk, 5), DblockError, "partition 1 has 16777216 bytes at 1048576: not inside");
});

Deno.test("slice() finds no table on a disk that has none: zeroes, or a file system's boot sector", async () => {
  using disk = new MemoryBackend({ sizeBytes: MIB });
  await assertRejects(() => partitionOf(disk, 1), DblockError, "there is neither a GPT nor an MBR");
  disk.bytes()[510] = 0x55;
  disk.bytes()[511] = 0xaa;
  await assertRejects(() => partitionOf(disk, 1), DblockError, "Cannot take partition 1 of a disk: it has none");
  disk.bytes()[446 + 16] = 0x33; // code, where an entry would say whether it can be booted
  await assertRejects(() => partitionOf(disk, 1), DblockError, "there is neither a GPT nor an MBR");
});

Deno.test("slice() refuses ranges that are not inside the disk, or not whole blocks", async () => {
  using disk = new MemoryBackend({ sizeBytes: MIB });
  const open = (options: Parameters<typeof slice>[1]) => slice(disk, options);
  assertEquals((await open({ offsetBytes: MIB - 512 })).sizeBytes, 512);
  assertEquals((await open({})).sizeBytes, MIB);
  for (const [offsetBytes, sizeBytes] of [[MIB, 512], [-512, 512], [512, MIB], [0, 0], [NaN, 512]] as const) {
    const error = await assertRejects(() => open({ offsetBytes, sizeBytes }), DblockError, "the disk has 1 MiB");
    assertEquals(error.code, "EINVAL");
  }
  await assertRejects(() => open({ offsetBytes: 100, sizeBytes: 512 }), DblockError, "no whole blocks of 512");
  await assertRejects(() => open({ offsetBytes: 512, partition: 1 }), RangeError, "a range or a partition");
});
