// A bare Debian: without the kernel's headers the packages install and say what is missing; with them DKMS builds the module, and
// signs it. Disks of /etc/dblock, /home and one whose store is on another of them, are enabled, formatted, named in fstab, and mounted.
// time limit: 900 s
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exists, figure, sh } from "../device/harness.ts";
import { disks, fill, isSigned } from "./disks.ts";
import { note, show } from "./transcript.ts";

const installMs = 120_000;
/** A compiler on an emulated processor. */
const buildMs = 500_000;
/** The module, where it was compiled by the host: DKMS then does everything but that. */
const compiled = "/srv/packages/module/dblock.ko";
const packages = "/srv/packages/old";

Deno.test("the packages install without the kernel's headers, and say how to get them", async () => {
  note("a bare Debian 12, without the headers of its kernel");
  await show("cat /etc/debian_version && uname -r");
  const headers = "/lib/modules/$(uname -r)/build";
  await sh(`mv ${headers} /headers`);
  const started = performance.now();
  const { stdout } = await show("apt-get install --yes ./*.deb", { timeoutMs: installMs, folder: packages });
  figure({ "longest installation without DKMS's build": [(performance.now() - started) / 1000, "s"] });
  const release = Deno.osRelease();
  assertStringIncludes(
    stdout,
    `headers are missing; type: apt-get install linux-headers-${release} && dkms autoinstall`,
  );
  assertEquals(exists("/dev/dblockctl"), false);
  const doctor = await show("dblock doctor", { check: false });
  await sh(`mv /headers ${headers}`);
  assertEquals(doctor.status, 1);
  assertStringIncludes(
    doctor.stdout,
    `sudo apt-get install linux-headers-${release} && sudo dkms autoinstall && sudo modprobe dblock`,
  );
});

Deno.test("with the headers DKMS builds and signs the module, which loads", async () => {
  if (exists(compiled)) {
    await Deno.writeTextFile("/etc/dkms/dblock.conf", `MAKE[0]="cp ${compiled} ."\n`);
    note("with the headers (the compiler ran on another machine: what DKMS does is all but that)");
  } else note("with the headers");
  const started = performance.now();
  await show("dkms autoinstall && modprobe dblock", { timeoutMs: buildMs });
  figure({
    [`longest ${exists(compiled) ? "installation" : "build"} by DKMS`]: [(performance.now() - started) / 1000, "s"],
  });
  assertMatch((await show("dkms status dblock")).stdout, /^dblock\/[\d.]+, \S+, x86_64: installed\n$/);
  await isSigned(Deno.osRelease());
  const doctor = await sh("dblock doctor", { check: false });
  assertEquals([doctor.status, doctor.stderr], [0, ""], doctor.stdout);
});

Deno.test("disks of /etc/dblock are enabled, and mounted by lines of fstab", async () => {
  await sh("mkdir /var/lib/disks");
  for (const { name, spec, place, uuid, source } of disks) {
    await show(`echo '${spec}' >/etc/dblock/${name}`);
    await show(`systemctl enable --now dblock@${name}`, { timeoutMs: 60_000 });
    await show(`mkfs.ext4 -q -U ${uuid} -L ${name} /dev/${name}`);
    await sh(`mkdir -p ${place}`);
    await show(`echo '${source} ${place} ext4 defaults 0 2' >>/etc/fstab && systemctl daemon-reload && mount ${place}`);
    await fill(disks.find((disk) => disk.name === name)!);
  }
  await show("dblock list && df -h --output=source,size,target /srv/data /home /srv/nested");
  assertEquals(await Deno.readTextFile("/etc/fstab").then((text) => text.includes("nofail")), false);
});
