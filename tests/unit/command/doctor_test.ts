// SPDX-License-Identifier: MIT
import { assertEquals, assertStringIncludes } from "@std/assert";
import { examine, formatFinding, leftovers } from "../../../src/command/doctor.ts";

/** What is found on a machine with these files. */
async function foundOn(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await Deno.makeTempDir();
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(root + path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(root + path, text);
  }
  const findings = await examine(root);
  await Deno.remove(root, { recursive: true });
  return findings.map(formatFinding).join("\n");
}

Deno.test("dblock doctor says what to type where the kernel loads no modules", async () => {
  assertStringIncludes(
    await foundOn({}),
    "can load none\n       make demo (a virtual machine), or serve to NBD: dblock serve",
  );
});

Deno.test("dblock doctor tells a module that is not loaded from one that may not be", async () => {
  const modules = { "/proc/modules": "" };
  const open = await foundOn({ ...modules, "/sys/kernel/security/lockdown": "[none] integrity confidentiality" });
  assertStringIncludes(open, "module: not loaded");
  assertStringIncludes(open, "\n       sudo make load");
  assertEquals(open.includes("lockdown"), false);
  const lockdown = { ...modules, "/sys/kernel/security/lockdown": "none [integrity] confidentiality" };
  const signed = ": the kernel loads only modules that are signed\n       ";
  assertStringIncludes(await foundOn(lockdown), `WRONG  lockdown: integrity${signed}sign dblock.ko with a key`);
  const secureBoot = await foundOn({
    ...lockdown,
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x06\0\0\0\x01",
    "/var/lib/dkms/mok.pub": "",
  });
  assertStringIncludes(secureBoot, `WRONG  Secure Boot is on${signed}sudo mokutil --import /var/lib/dkms/mok.pub`);
});

Deno.test("dblock doctor says how an installed module is loaded, and what DKMS lacks to build one", async () => {
  const modules = { "/proc/modules": "" };
  const release = Deno.osRelease();
  const built = await foundOn({ ...modules, [`/lib/modules/${release}/updates/dkms/dblock.ko.xz`]: "" });
  assertStringIncludes(built, "module: not loaded");
  assertStringIncludes(built, "\n       sudo modprobe dblock");
  const sources = await foundOn({ ...modules, "/var/lib/dkms/dblock/0.1.0/source": "" });
  assertStringIncludes(sources, `\n       sudo apt-get install linux-headers-${release} && sudo dkms autoinstall`);
});

Deno.test("dblock doctor looks for the udev rules where there is a udev", async () => {
  assertStringIncludes(
    await foundOn({ "/etc/udev/rules.d/60-dblock.rules": "" }),
    "ok     udev rules: /etc/udev/rules.d/",
  );
  assertStringIncludes(await foundOn({ "/run/udev/data": "" }), "WRONG  udev rules");
  assertStringIncludes(await foundOn({}), "ok     udev rules: none, and no udev");
});

Deno.test("dblock doctor knows a disk of the kernel's NBD client from what a killed server left", () => {
  const live = { name: "a", path: "/dev/nbd0", transport: "nbd", state: "live", sizeBytes: 512 } as const;
  const kernelDisk = { ...live, server: { pid: 1 }, spec: "null:512" };
  const device = { name: "m", path: "/dev/m", state: "live", onDeath: "remove" } as const;
  const said = (...args: Parameters<typeof leftovers>) => leftovers(...args).map(formatFinding);
  assertEquals(said([device], [kernelDisk], ["a", "m"]), ["ok     disks: 2, none of them without a server"]);
  assertEquals(said([device], [kernelDisk], ["a", "gone", "m"]), [
    "WRONG  left over: /run/dblock/gone.*, of a server that was killed\n" +
    "       sudo rm -f /run/dblock/gone.json /run/dblock/gone.sock",
  ]);
  const dead = ["WRONG  disk: /dev/nbd0 (a) has lost its server, and its I/O fails\n       sudo dblock destroy a"];
  assertEquals(said([], [{ ...kernelDisk, state: "failed", server: undefined }], ["a"]), dead);
  // Whose records the others are, only the module could say.
  assertEquals(said(undefined, [{ ...kernelDisk, state: "failed", server: undefined }], ["a", "gone"]), dead);
  assertEquals(said(undefined, [kernelDisk], ["a", "gone"]), []);
});
