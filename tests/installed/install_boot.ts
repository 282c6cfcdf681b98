// A bare Debian: without the kernel's headers the packages install and say what is missing; with them DKMS builds the module. Disks
// of /etc/dblock, /home and one whose store is on another of them, are enabled, formatted, named in fstab, and mounted.
// time limit: 600 s
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exists, figure, sh } from "../device/harness.ts";
import { disks, fill } from "./disks.ts";

const installMs = 120_000;
/** A compiler on an emulated processor. */
const buildMs = 500_000;
/** The module, where it was compiled by the host: DKMS then does everything but that. */
const compiled = "/srv/packages/module/dblock.ko";

Deno.test("the packages install without the kernel's headers, and say how to get them", async () => {
  const headers = "/lib/modules/$(uname -r)/build";
  await sh(`mv ${headers} /headers`);
  const started = performance.now();
  const { stdout, stderr } = await sh("apt-get install --yes /srv/packages/old/*.deb 2>&1", { timeoutMs: installMs });
  figure({ "longest installation without DKMS's build": [(performance.now() - started) / 1000, "s"] });
  await sh(`mv /headers ${headers}`);
  const release = Deno.osRelease();
  assertMatch(stdout + stderr, /dblock\.ko cannot be loaded now; dblock doctor says why/);
  assertEquals(exists("/dev/dblockctl"), false);
  const doctor = await sh("dblock doctor", { check: false });
  assertEquals(doctor.status, 1);
  assertStringIncludes(
    doctor.stdout,
    `sudo apt-get install linux-headers-${release} && sudo dkms autoinstall && sudo modprobe dblock`,
  );
});

Deno.test("with the headers DKMS builds the module, which loads", async () => {
  if (exists(compiled)) await Deno.writeTextFile("/etc/dkms/dblock.conf", `MAKE[0]="cp ${compiled} ."\n`);
  const started = performance.now();
  await sh("dkms autoinstall && modprobe dblock", { timeoutMs: buildMs });
  figure({
    [`longest ${exists(compiled) ? "installation" : "build"} by DKMS`]: [(performance.now() - started) / 1000, "s"],
  });
  assertMatch((await sh("dkms status dblock")).stdout, /^dblock\/[\d.]+, \S+, x86_64: installed\n$/);
  const doctor = await sh("dblock doctor", { check: false });
  assertEquals([doctor.status, doctor.stderr], [0, ""], doctor.stdout);
});

Deno.test("disks of /etc/dblock are enabled, and mounted by lines of fstab", async () => {
  await sh("mkdir /var/lib/disks");
  for (const { name, spec, place, uuid, source } of disks) {
    await sh(`echo '${spec}' >/etc/dblock/${name} && systemctl enable --now dblock@${name}`, { timeoutMs: 60_000 });
    await sh(`mkfs.ext4 -q -U ${uuid} -L ${name} /dev/${name} && mkdir -p ${place}`);
    await sh(`echo '${source} ${place} ext4 defaults 0 2' >>/etc/fstab && systemctl daemon-reload && mount ${place}`);
    await fill(disks.find((disk) => disk.name === name)!);
  }
  assertEquals(await Deno.readTextFile("/etc/fstab").then((text) => text.includes("nofail")), false);
});
