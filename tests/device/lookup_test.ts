// Nobody who comes to end a wait for a held disk waits for it: while a CREATE reads a folder of that very disk, the disk's
// server can come back, devices are listed, and a force destroy works.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { Control, destroyDevice, type Info, infoOf, MIB, params } from "./server.ts";
import { encode } from "../../src/system/struct.ts";
import { Memory } from "./syscall.ts";

const options = { name: "lookup0", size_bytes: 64 * MIB, on_death: abi.DBLOCK_ON_DEATH_HOLD };

/** CREATE of another device by a process whose /dev is a folder of the held disk. Perl, as Deno needs its own files. */
function createInside(folder: string): Promise<{ stdout: string }> {
  const hex = encode(abi.dblock_create, params("lookup1")).toHex();
  const program = `
    open(my $control, "+<", "/dev/dblockctl") or die "open: $!";
    chroot($ARGV[0]) or die "chroot: $!";
    my $argument = pack("H*", "${hex}");
    print ioctl($control, ${abi.DBLOCK_IOC_CREATE}, $argument) ? "made" : "errno " . int($!);`;
  return sh(`perl -e '${program}' ${folder}`, { timeoutMs: 60_000 });
}

/** A held disk with a file system, whose empty /dev nobody has in memory any more, and a CREATE that reads that. */
async function holdCreate(store: Memory): Promise<Promise<{ stdout: string }>[]> {
  const disk = await TestDisk.start({ ...options, store });
  await sh(
    `mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt && mkdir /mnt/dev && umount /mnt && mount ${disk.path} /mnt`,
  );
  await sh("sync");
  await disk.abandon();
  await disk.untilState(abi.DBLOCK_STATE_HELD);
  await sh("echo 3 >/proc/sys/vm/drop_caches");
  const creating = createInside("/mnt");
  await waitFor("CREATE reads the held disk", () => infoOf("lookup0")!.waiting_count > 0);
  return [creating];
}

function assertLists(): void {
  using control = new Control();
  const infos: Info[] = control.list();
  assert(infos.some(({ name }) => name === "lookup0"));
}

Deno.test("a server returns to a held disk that a CREATE waits for", async () => {
  using store = new Memory(options.size_bytes);
  const [creating] = await holdCreate(store);
  assertLists();
  await using _disk = await TestDisk.start({ ...options, existing: true, store });
  assertEquals((await creating)!.stdout, "made");
  assertEquals(await destroyDevice("lookup1"), 0);
  await sh("umount /mnt");
});

Deno.test("a held disk that a CREATE waits for is destroyed by force", async () => {
  using store = new Memory(options.size_bytes);
  const [creating] = await holdCreate(store);
  assertLists();
  const started = performance.now();
  assertEquals(await destroyDevice("lookup0", { force: true }), 0);
  assertWithin(5_000, performance.now() - started, "destroyed by force");
  await creating;
  await destroyDevice("lookup1");
  await sh("umount /mnt");
});
