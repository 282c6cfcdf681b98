// Another kernel is installed, with its headers: DKMS builds the module for it, and the next boot is one of that kernel.
// time limit: 900 s
import { assertEquals } from "@std/assert";
import { figure, sh } from "../device/harness.ts";
import { checkBoot, isSigned } from "./disks.ts";
import { note, show } from "./transcript.ts";

/** A compiler on an emulated processor. */
const installMs = 800_000;

Deno.test("after a boot all disks are mounted and clean", checkBoot);

Deno.test("apt installs a kernel, and DKMS builds the module for it", async () => {
  const started = performance.now();
  // It is not booted by its initial ramdisk, which takes minutes to make here.
  note("another kernel, with its headers");
  await show("INITRD=No apt-get install --yes ./*.deb", { timeoutMs: installMs, folder: "/srv/packages/kernel" });
  figure({ "longest installation of a kernel with DKMS's build": [(performance.now() - started) / 1000, "s"] });
  const { stdout } = await show("dkms status dblock");
  const releases = (await sh("ls /lib/modules")).stdout.trim().split("\n");
  assertEquals(releases.length, 2);
  for (const release of releases) {
    assertEquals(stdout.includes(`, ${release}, x86_64: installed\n`), true, stdout);
    await isSigned(release);
  }
});
