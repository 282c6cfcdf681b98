// time limit: 400 s
// dblock-ramdisk --store: the content outlives the process, discards give space back, fsync() reaches the disk below where
// there is one, a full file system is an I/O error and not the server's death, huge pages work.
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { DblockError, FileBackend } from "../../src/mod.ts";
import { DBLOCK_OPERATION_FLUSH } from "../../src/module/abi.ts";
import { exists, requires, sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

const kibOf = async (path: string) => Number((await sh(`du -k ${path}`)).stdout.split("\t")[0]);

Deno.test("the content is there after the disk was destroyed, and the file is sparse", async () => {
  const args = ["--store", "/dev/shm/kept"];
  {
    await using disk = await Ramdisk.start({ name: "store0", args: [...args, "--size", "64M"] });
    const looked = await kibOf("/dev/shm/kept"); // for partition tables, in more places where the kernel knows more of them
    assert(looked >= 4 && looked <= 64, `an unused disk takes ${looked} KiB`);
    await sh(
      `head -c 8M /dev/urandom >/tmp/in; dd if=/tmp/in of=${disk.path} bs=1M oflag=direct conv=fsync status=none`,
    );
    assertEquals((await runRamdisk("-d --name store0")).status, 0);
    await disk.end();
    assertMatch(disk.stdout, /has ended: destroyed by another process; \/dev\/shm\/kept is kept\n$/);
  }
  await using disk = await Ramdisk.start({ name: "store0", args });
  assertMatch(disk.stdout, /is ready: 64 MiB/);
  await sh(`dd if=${disk.path} bs=1M count=8 iflag=direct status=none | cmp - /tmp/in`);
  assert(await kibOf("/dev/shm/kept") >= 8192);
  await sh(`blkdiscard ${disk.path}`);
  assert(await kibOf("/dev/shm/kept") < 64);
  await sh(`dd if=${disk.path} bs=1M count=8 iflag=direct status=none | cmp - <(head -c 8M /dev/zero)`);
  await sh(`blkdiscard -z -o 512 -l 1536 ${disk.path}`);
  const other = await runRamdisk(`--name store1 --store /dev/shm/kept`);
  assertEquals([other.status, exists("/dev/store1")], [1, false]);
  assertMatch(other.stderr, /Cannot keep a disk in \/dev\/shm\/kept: it is served already/);
  assertEquals((await runRamdisk("-d --name store0")).status, 0);
  await disk.end();
  await sh("rm /dev/shm/kept");
});

const writeCacheOf = async (name: string) => (await sh(`cat /sys/block/${name}/queue/write_cache`)).stdout.trim();

Deno.test("fsync() brings a store's data to the disk below; where there is none, the kernel asks for no flush", async () => {
  await using below = await Ramdisk.start({ name: "below", args: ["--size", "64M"] });
  await sh(`mkfs.ext4 -q ${below.path} && mkdir -p /tmp/below && mount ${below.path} /tmp/below`);
  try {
    await using disk = await Ramdisk.start({ name: "store4", args: ["--store", "/tmp/below/disk", "--size", "16M"] });
    assertEquals(await writeCacheOf("store4"), "write back");
    const words = "this sentence is on the disk below";
    const isBelow = async () => (await sh(`grep -a -c "${words}" ${below.path}`, { check: false })).status === 0;
    const write = `yes "${words}" | dd of=${disk.path} bs=64k count=1 iflag=fullblock oflag=direct status=none`;
    await sh(write);
    assertEquals(await isBelow(), false, "the file's data is in memory only");
    await sh(`${write} conv=fsync`);
    await sh("echo 1 >/proc/sys/vm/drop_caches");
    assertEquals(await isBelow(), true, "the file's data is on its disk");
    assert(infoOf("store4")!.requests[DBLOCK_OPERATION_FLUSH]! > 0);
    assertEquals((await runRamdisk("-d --name store4")).status, 0);
    await disk.end();
  } finally {
    await sh("umount /tmp/below");
  }
  await using disk = await Ramdisk.start({ name: "store5", args: ["--store", "/dev/shm/unflushed", "--size", "16M"] });
  assertEquals(await writeCacheOf("store5"), "write through");
  await sh(`dd if=/dev/zero of=${disk.path} bs=64k count=1 oflag=direct conv=fsync status=none`);
  assertEquals(infoOf("store5")!.requests[DBLOCK_OPERATION_FLUSH], 0);
  assertEquals((await runRamdisk("-d --name store5")).status, 0);
  await disk.end();
  await sh("rm /dev/shm/unflushed");
});

Deno.test("on a full file system writes and zeroes fail, and the server goes on", async () => {
  await sh("mkdir -p /tmp/tiny && mount -t tmpfs -o size=8M tiny /tmp/tiny");
  try {
    await using disk = await Ramdisk.start({ name: "store2", args: ["--store", "/tmp/tiny/disk", "--size", "64M"] });
    const write = `dd if=/dev/urandom of=${disk.path} bs=1M oflag=direct`;
    const full = await sh(write, { check: false });
    assertMatch(full.stderr, /Input\/output error|No space left/);
    const zeroes = await sh(`blkdiscard -z -o 16M -l 16M ${disk.path}`, { check: false });
    assert(zeroes.status !== 0, "there is no space for zeroes that are to be kept");
    assertEquals(disk.ended, undefined);
    // Even a read takes space there: blkid would fail before anything is discarded, hence -f.
    await sh(`blkdiscard -f ${disk.path} && ${write} count=4 seek=40`);
    assertEquals((await runRamdisk("-d --name store2")).status, 0);
    assertEquals((await disk.end()).code, 0);
  } finally {
    await sh("umount /tmp/tiny");
  }
});

/** 2 MiB, or 32 where pages are of 16 KiB. */
const hugeBytes = Number(/^Hugepagesize:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/meminfo"))?.[1] ?? 0) * 1024;

async function hugePages(count: number): Promise<boolean> {
  await sh(`echo ${count} >/proc/sys/vm/nr_hugepages`, { check: false });
  return Number((await sh("cat /proc/sys/vm/nr_hugepages", { check: false })).stdout) >= count;
}

Deno.test({
  name: "a store on hugetlbfs keeps what is written, and gives whole pages back",
  ignore: !requires("16 huge pages", await hugePages(16)),
  fn: async () => {
    await sh("mkdir -p /tmp/huge && mount -t hugetlbfs none /tmp/huge");
    try {
      const odd = await runRamdisk("--name store3 --store /tmp/huge/disk --size 3M");
      assertStringIncludes(odd.stderr, `a positive multiple of ${hugeBytes} there, not 3145728`);
      const large = await runRamdisk("--name store3 --store /tmp/huge/disk --size 1G");
      assertMatch(large.stderr, /1073741824 bytes of it cannot be mapped \(see HugePages_Free in \/proc\/meminfo\)/);
      assertEquals(exists("/tmp/huge/disk"), false);

      const size = String(16 * hugeBytes);
      await using disk = await Ramdisk.start({ name: "store3", args: ["--store", "/tmp/huge/disk", "--size", size] });
      const mib = 4 * hugeBytes / 2 ** 20;
      await sh(`head -c ${mib}M /dev/urandom >/tmp/in; dd if=/tmp/in of=${disk.path} bs=1M oflag=direct status=none`);
      await sh(`dd if=${disk.path} bs=1M count=${mib} iflag=direct status=none | cmp - /tmp/in`);
      // Past the end of a page and into the next but two: the edges are zeroed, the pages between are given back.
      const gone = 3 * hugeBytes;
      await sh(`blkdiscard -o 4k -l ${gone} ${disk.path}`);
      const zeroes = `(head -c 4k /tmp/in; head -c ${gone} /dev/zero; tail -c +${gone + 4097} /tmp/in)`;
      await sh(`dd if=${disk.path} bs=1M count=${mib} iflag=direct status=none | cmp - <${zeroes}; rm /tmp/in`);
      assertEquals((await runRamdisk("-d --name store3")).status, 0);
      await disk.end();
      // By system calls, as a filter or NBD does it.
      using file = await FileBackend.open({ path: "/tmp/huge/disk" });
      file.write(new Uint8Array(8192).fill(7), hugeBytes - 4096);
      const back = new Uint8Array(16384);
      file.read(back, hugeBytes - 8192);
      assertEquals([back.indexOf(7), back[12287], back[12288]], [4096, 7, 0]);
      for (const at of [-512, 16 * hugeBytes]) {
        assertThrows(() => file.write(new Uint8Array(512), at), DblockError, "the disk ends before");
      }
    } finally {
      await sh("umount /tmp/huge; echo 0 >/proc/sys/vm/nr_hugepages");
    }
  },
});
