// /usr moves to a disk of dblock. What an initial ramdisk cannot serve is one line of the hook that makes it; then it is made with
// all that the next boot needs.
// time limit: 1200 s
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DBLOCK_ABI_VERSION } from "../../src/module/abi.ts";
import { figure, sh } from "../device/harness.ts";
import { checkBoot } from "./disks.ts";
import { EARLY_UUID, earlySums } from "./early.ts";
import { earlyStore } from "./late.ts";
import { note, show } from "./transcript.ts";

const copyMs = 300_000;
/** A compressor on an emulated processor. */
const initrdMs = 600_000;
const hook = "/usr/share/initramfs-tools/hooks/dblock";

/** What the hook says, and what it has put into a folder, as mkinitramfs would call it. */
async function hooked(version = Deno.osRelease()): Promise<{ readonly said: string; readonly files: string[] }> {
  const env = `version=${version} verbose=n MODULES=most CONFDIR=/etc/initramfs-tools DPKG_ARCH=amd64`;
  const { stdout } = await sh(
    `d=$(mktemp -d) && export DESTDIR=$d ${env} && mkdir -p $d/conf && cd $d && for x in bin lib lib64 sbin; do ` +
      `mkdir -p usr/$x && ln -s usr/$x $x; done; ${hook} 2>&1; echo ----; find . -type f; cd / && rm -r $d`,
    { timeoutMs: 60_000 },
  );
  const [said = "", files = ""] = stdout.split("----\n");
  return { said, files: files.trim().split("\n").filter((line) => line !== "") };
}

Deno.test("before that all disks are mounted and clean", checkBoot);

Deno.test("without / or /usr on a disk of dblock, the hook adds nothing", async () => {
  assertEquals(await hooked(), { said: "", files: [] });
  assertEquals((await sh(`${hook} disks`)).stdout, "");
});

Deno.test("/usr is copied to a disk of dblock", async () => {
  note("/usr moves to a disk of dblock");
  await show(`echo '/dev/disk/by-id/virtio-${earlyStore}' >/etc/dblock/usr`);
  await show("systemctl start dblock@usr", { timeoutMs: 60_000 });
  await show(`mkfs.ext4 -q -U ${EARLY_UUID} /dev/usr && mount /dev/usr /mnt`, { timeoutMs: 60_000 });
  await show("cp -a /usr/. /mnt/", { timeoutMs: copyMs });
  await sh(`cd /usr/bin && sha256sum $PWD/perl $PWD/bash $PWD/dblock >${earlySums}`);
  await show("umount /mnt", { timeoutMs: 60_000 });
  await show(`echo 'UUID=${EARLY_UUID} /usr ext4 defaults 0 2' >>/etc/fstab`);
  assertEquals((await sh(`${hook} disks`)).stdout, "usr\n");
});

Deno.test("what the initial ramdisk cannot serve is one line, with the disk's name", async () => {
  const right = await Deno.readTextFile("/etc/dblock/usr");
  const cases: readonly [config: string, wrong: RegExp][] = [
    ["/var/lib/disks/usr.img?size=1GiB", /\/var\/lib\/disks\/usr\.img in \/etc\/dblock\/usr is on a file system/],
    [`/dev/disk/by-id/virtio-${earlyStore} --with checksum=file=/var/lib/usr.sums`, /\/var\/lib\/usr\.sums in /],
    ["/usr/share/disk.ts?size=1GiB", /\/usr\/share\/disk\.ts in /],
    ["memory:1GiB", /its content is on no block device/],
    ["mirror:/dev/vdz,nbd://host/usr", /needs the network/],
  ];
  for (const [config, wrong] of cases) {
    await Deno.writeTextFile("/etc/dblock/usr", `${config}\n`);
    const { said, files } = await hooked();
    assertMatch(said, /^W: dblock: the initial ramdisk cannot serve \/dev\/usr, which \/usr is on: [^\n]*\n$/, config);
    assertMatch(said, wrong);
    assertEquals(files, []);
  }
  await Deno.remove("/etc/dblock/usr");
  assertMatch((await hooked()).said, /^W: dblock: .*\/dev\/usr.*: no file of \/etc\/dblock has it; [^\n]*\n$/);
  await Deno.writeTextFile("/etc/dblock/usr", right);
  assertMatch(
    (await hooked("6.99.0-none")).said,
    /^W: dblock: .*: there is no dblock\.ko for Linux 6\.99\.0-none; type: [^\n]*$/m,
  );
});

Deno.test("the initial ramdisk is made, with the disk's server in it", async () => {
  // As DKMS leaves it where the kernel's own modules are compressed, which Debian's are since 6.12.
  await sh('file=$(modinfo -n dblock) && case $file in *.ko) xz --check=crc32 "$file" && depmod ;; esac');
  // What the hook compares with the program's.
  assertEquals((await sh("modinfo -F abi dblock")).stdout, `${DBLOCK_ABI_VERSION}\n`);
  const { said, files } = await hooked();
  assertEquals(said, "");
  for (const file of ["./etc/dblock/usr", "./usr/bin/dblock", "./conf/dblock"]) {
    assertEquals(files.includes(file), true, file);
  }
  assertEquals(files.some((file) => /\/dblock\.ko\.xz$/.test(file)), true);
  // As small as can be: what is compressed is compressed by an emulated processor.
  await sh(
    "echo MODULES=dep >/etc/initramfs-tools/conf.d/small && echo COMPRESS=gzip >>/etc/initramfs-tools/conf.d/small && " +
      "echo COMPRESSLEVEL=1 >>/etc/initramfs-tools/conf.d/small",
  );
  const started = performance.now();
  const { stdout } = await show(`update-initramfs -c -k $(uname -r)`, { timeoutMs: initrdMs });
  figure({ "longest update-initramfs": [(performance.now() - started) / 1000, "s"] });
  assertStringIncludes(stdout, "update-initramfs: Generating /boot/initrd.img-");
  assertEquals(/^W: dblock/m.test(stdout), false, stdout);
  const bytes = Deno.statSync(`/boot/initrd.img-${Deno.osRelease()}`).size;
  figure({ "largest initial ramdisk": [bytes / 2 ** 20, "MiB"] });
});
