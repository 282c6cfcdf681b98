// SPDX-License-Identifier: MIT
// What the hook of initramfs-tools puts into an initial ramdisk, and what it says of disks that cannot be served there; on a machine
// that is a folder. Block devices, LVM and a real initial ramdisk are in tests/installed.
import { assertEquals, assertMatch } from "@std/assert";

const root = new URL("../../../", import.meta.url).pathname;
const hook = `${root}src/build/initramfs/hooks/dblock`;

interface Machine {
  readonly fstab?: string;
  readonly mounts?: string;
  /** Files of /etc/dblock. */
  readonly files?: Readonly<Record<string, string>>;
  /** What UUID= and the like lead to. */
  readonly found?: string;
  readonly hasModule?: boolean;
  readonly moduleAbi?: string;
  /** As MODULES= of initramfs.conf(5). @default "most" */
  readonly modules?: string;
  /** What lsblk shows below any block device, itself first: names of the kernel and their types. The disk "usr" is of dblock. */
  readonly below?: Readonly<Record<string, string>>;
  /** What blkid finds on any of them. */
  readonly content?: string;
  /** /etc/lvm/lvm.conf. */
  readonly lvm?: string;
  readonly crypttab?: string;
}

/** The functions of initramfs-tools that it calls; they say what would be copied. */
const functions = `
manual_add_modules() { [ -z "$HAS_MODULE" ] || { mkdir -p "$DESTDIR/lib/modules" && : >"$DESTDIR/lib/modules/dblock.ko"; }; }
copy_file() { echo "$3"; }
copy_exec() { echo "$1"; }
block_dev_mod_add() { driver=$(readlink -f /sys/none/driver/module); echo "drivers of $1$driver"; }
`;
/** A block device of this machine, if it shows any. */
const blockDevice = [...Deno.readDirSync("/dev")].map(({ name }) => `/dev/${name}`).find((path) =>
  Deno.statSync(path).isBlockDevice
);

async function hooked(machine: Machine, args: readonly string[] = []) {
  const dir = await Deno.makeTempDir();
  const put = (path: string, text: string, mode = 0o644) => Deno.writeTextFile(`${dir}/${path}`, text, { mode });
  for (const folder of ["etc/dblock", "bin", "dest", "sys/block/usr/dblock", "etc/lvm"]) {
    await Deno.mkdir(`${dir}/${folder}`, { recursive: true });
  }
  await put("etc/fstab", machine.fstab ?? "");
  await put("mounts", machine.mounts ?? "/dev/none1 / ext4 rw 0 0\n");
  await put("functions", functions);
  for (const [name, text] of Object.entries(machine.files ?? {})) await put(`etc/dblock/${name}`, text);
  await put("bin/findfs", `#!/bin/sh\n[ "$1" = UUID=1234 ] && echo ${machine.found ?? ""}\n`, 0o755);
  const below = Object.entries(machine.below ?? {});
  const columns = [below.map(([name]) => name), below.map(([, type]) => type)].map((lines) => lines.join("\\n"));
  await put(
    "bin/lsblk",
    `#!/bin/sh\ncase "$*" in *KNAME*) printf '${columns[0]}\\n' ;; *) printf '${columns[1]}\\n' ;; esac\n`,
    0o755,
  );
  await put("bin/blkid", `#!/bin/sh\necho ${machine.content ?? ""}\n`, 0o755);
  await put("etc/lvm/lvm.conf", machine.lvm ?? "# global_filter = []\n");
  if (machine.crypttab !== undefined) await put("etc/crypttab", machine.crypttab);
  await put("bin/dblock", "#!/bin/sh\necho 'dblock 1 (ABI 2)'\n", 0o755);
  await put("bin/modinfo", `#!/bin/sh\necho ${machine.moduleAbi ?? 2}\n`, 0o755);
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: [hook, ...args],
    env: {
      PATH: `${dir}/bin:/usr/bin:/bin`,
      DBLOCK_ETC: `${dir}/etc`,
      DBLOCK_MOUNTS: `${dir}/mounts`,
      DBLOCK_SYS: `${dir}/sys`,
      DBLOCK_HOOK_FUNCTIONS: `${dir}/functions`,
      DBLOCK_GENERATOR: `${root}src/build/systemd/dblock-generator`,
      DESTDIR: `${dir}/dest`,
      HAS_MODULE: machine.hasModule ?? true ? "yes" : "",
      MODULES: machine.modules ?? "most",
      version: "6.1.0-1",
    },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replaceAll(dir, "");
  const list = await Deno.readTextFile(`${dir}/dest/conf/dblock`).catch(() => "");
  await Deno.remove(dir, { recursive: true });
  return { code, copied: text(stdout), said: text(stderr), list };
}

const usr = "/dev/usr /usr ext4 defaults 0 2\n";
const all = "/etc/dblock/usr\n/usr/bin/dblock\n/lib/udev/rules.d/60-dblock.rules\n";
const nothing = { code: 0, copied: "", said: "", list: "" };

Deno.test("the hook adds nothing where neither / nor /usr is on a disk of dblock", async () => {
  const files = { usr: "/dev/vdz\n", data: "/dev/vdy\n" };
  assertEquals(await hooked({ files }), nothing);
  const fstab = "# /dev/usr /usr ext4\n/dev/data /srv ext4 defaults 0 2\n/dev/vda1 / ext4 defaults 0 1\n";
  assertEquals(await hooked({ files, fstab }), nothing);
  assertEquals(await hooked({ fstab: "UUID=9999 /usr ext4 defaults 0 2\n", files }), nothing);
  assertEquals(await hooked({ files, fstab }, ["disks"]), nothing);
  assertEquals(await hooked({ files, fstab: usr }, ["prereqs"]), nothing);
});

Deno.test({
  name: "the hook adds the drivers of the disk's store where only those that are asked for are there",
  ignore: blockDevice === undefined,
  async fn() {
    const machine = { fstab: usr, files: { usr: `${blockDevice}\n` } };
    const list = `usr usr ${blockDevice}\n`;
    assertEquals(await hooked(machine), { code: 0, copied: all, said: "", list });
    const copied = `drivers of ${blockDevice}\n${all}`;
    assertEquals(await hooked({ ...machine, modules: "dep" }), { code: 0, copied, said: "", list });
  },
});

Deno.test("the hook finds the disk by fstab or by what is mounted, under its name or by UUID, and the file that has it", async () => {
  const added = { code: 0, copied: all, said: "", list: "usr usr /dev/vdz\n" };
  const files = { usr: "/dev/vdz # the whole disk\n" };
  assertEquals(await hooked({ files, fstab: usr }), added);
  assertEquals(await hooked({ files, mounts: "/dev/usr /usr ext4 rw 0 0\n" }), added);
  const byUuid = { files, fstab: 'UUID="1234" /usr ext4 defaults 0 2\n', found: "/dev/usr" };
  assertEquals(await hooked(byUuid), added);
  assertEquals((await hooked(byUuid, ["disks"])).copied, "usr\n");
  const both = { "two~": "/dev/old --name usr\n", two: "/dev/a --name root --with stats\n /dev/b --name=usr" };
  const fstab = "/dev/root / ext4 defaults 0 1\n/dev/usr /usr ext4 defaults 0 2\n";
  assertEquals((await hooked({ files: both, fstab })).list, "two root /dev/a /dev/b\n");
  assertEquals((await hooked({ files: { "usr.disk": "/dev/vdz\n" }, fstab: usr })).list, "usr.disk usr /dev/vdz\n");
});

/** /usr on a device of this machine, with these layers between it and the disk "usr", whose content is on that device as well. */
function layered(type: string, more: Machine = {}): Machine {
  const fstab = `${blockDevice} /usr ext4 defaults 0 2\n`;
  const below = { "dm-0": type, usrp1: "part", usr: "disk", vdz: "disk" };
  return { fstab, below, files: { usr: `${blockDevice}\n` }, ...more };
}

Deno.test({
  name: "the hook finds the disk below volumes, ciphers and partitions",
  ignore: blockDevice === undefined,
  async fn() {
    for (const type of ["lvm", "crypt", "raid1", "part"]) {
      const { list, said } = await hooked(layered(type));
      assertEquals([list, said], [`usr usr ${blockDevice}\n`, ""], type);
      assertEquals((await hooked(layered(type), ["disks"])).copied, "usr\n", type);
    }
    assertEquals(await hooked({ ...layered("lvm"), below: { "dm-0": "lvm", vdz: "disk" } }), nothing);
  },
});

Deno.test({
  name:
    "a store that LVM or cryptsetup would take for the disk is a line with what to do; one that they do not see is none",
  ignore: blockDevice === undefined,
  async fn() {
    const list = `usr usr ${blockDevice}\n`;
    const byName = "# old\nusr_crypt /dev/disk/by-id/dblock-usr none luks\n";
    const good: readonly Machine[] = [
      layered("lvm", { content: "ext4" }),
      layered("lvm", { content: "LVM2_member", lvm: "devices {\n\tglobal_filter = [ 'r|^/dev/vdb$|' ]\n}\n" }),
      layered("part", { content: "LVM2_member" }),
      layered("crypt", { content: "crypto_LUKS", crypttab: byName }),
    ];
    for (const machine of good) assertEquals([(await hooked(machine)).list, machine.content], [list, machine.content]);
    const bad: readonly [Machine, RegExp][] = [
      [
        layered("lvm", { content: "LVM2_member" }),
        /LVM finds .* have \/etc\/lvm\/lvm\.conf reject it/,
      ],
      [
        layered("crypt", { content: "crypto_LUKS" }),
        /in \/etc\/crypttab, name the source \/dev\/disk\/by-id\/dblock-usr$/,
      ],
      [layered("crypt", { content: "crypto_LUKS", crypttab: byName.replace("usr_crypt", "#usr_crypt") }), /cryptsetup/],
      [
        layered("crypt", { content: "crypto_LUKS", crypttab: "usr_crypt UUID=12 none luks\n" }),
        /cryptsetup finds the same/,
      ],
    ];
    for (const [machine, why] of bad) {
      const { code, copied, said, list } = await hooked(machine);
      assertEquals([code, copied, list], [0, "", ""]);
      assertMatch(said, /^W: dblock: the initial ramdisk cannot serve \/dev\/usr, which \/usr is on: [^\n]*\n$/);
      assertMatch(said.trimEnd(), why);
    }
  },
});

Deno.test("a disk that the content of another one is on is served first", async () => {
  const files = { usr: "mirror:/dev/low,/dev/vdz\n", low: "/dev/vdy\n" };
  const { list, said } = await hooked({ files, fstab: usr });
  assertEquals([list, said], ["low low /dev/vdy\nusr usr /dev/low /dev/vdz\n", ""]);
});

Deno.test("a disk that the initial ramdisk cannot serve is a line with its name and why, and is left out", async () => {
  const cases: readonly [file: string, why: RegExp][] = [
    ["/srv/usr.img?size=1GiB", /: \/srv\/usr\.img in \/etc\/dblock\/usr is on a file system, .* on a block device$/],
    ["/dev/vdz --with checksum=file=/var/usr.sums", /: \/var\/usr\.sums in /],
    ["/usr/local/disk.ts?size=1GiB", /: \/usr\/local\/disk\.ts in /],
    ["memory:1GiB", /: its content is on no block device \(\/etc\/dblock\/usr\)$/],
    ["/dev/shm/usr.img", /: its content is on no block device /],
    ["mirror:/dev/vdz,nbd://host/usr", /: \/etc\/dblock\/usr needs the network/],
    ["rbd:pool/usr", /needs the network/],
    ["/dev/vdz --nbd 127.0.0.1:10809", /needs the network/],
    ["'/dev/disk/by-label/two words'", /: the path \/dev\/disk\/by-label\/two words in .* has a blank in it$/],
  ];
  for (const [file, why] of cases) {
    const { code, copied, said, list } = await hooked({ files: { usr: `${file}\n` }, fstab: usr });
    assertEquals([code, copied, list], [0, "", ""], file);
    assertMatch(said, /^W: dblock: the initial ramdisk cannot serve \/dev\/usr, which \/usr is on: [^\n]*\n$/, file);
    assertMatch(said.trimEnd(), why);
  }
});

Deno.test("a kernel without the module, or with one of another ABI, is a line with what to type", async () => {
  const machine = { files: { usr: "/dev/vdz\n" }, fstab: usr };
  const without = await hooked({ ...machine, hasModule: false });
  assertEquals([without.code, without.copied, without.list], [0, "", ""]);
  assertMatch(
    without.said,
    /^W: dblock: .*\/dev\/usr.*there is no dblock\.ko for Linux 6\.1\.0-1; type: apt-get install [^\n]*\n$/,
  );
  const other = await hooked({ ...machine, moduleAbi: "1" });
  assertEquals([other.code, other.copied, other.list], [0, "", ""]);
  assertMatch(other.said, /^W: dblock: .*\/dev\/usr.*speaks ABI 1, and the program 2; type: [^\n]*\n$/);
});
