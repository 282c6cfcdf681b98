// SPDX-License-Identifier: MIT
import { assertEquals, assertStringIncludes } from "@std/assert";
import { examine, formatFinding, leftovers } from "../../../src/command/doctor.ts";

/** What is found on a machine with these files. */
async function foundOn(
  files: Readonly<Record<string, string>>,
  program?: string,
  links: Readonly<Record<string, string>> = {},
): Promise<string> {
  const root = await Deno.makeTempDir();
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(root + path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(root + path, text);
  }
  for (const [path, target] of Object.entries(links)) {
    await Deno.mkdir(root + path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.symlink(target, root + path);
  }
  const findings = await examine(root, undefined, program);
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
  assertStringIncludes(await foundOn(lockdown), `WRONG  lockdown: integrity${signed}boot without`);
  const secureBoot = await foundOn({
    ...lockdown,
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x06\0\0\0\x01",
    "/var/lib/dkms/mok.pub": "",
    [`/lib/modules/${Deno.osRelease()}/updates/dkms/dblock.ko`]: "",
  });
  // A modprobe can do nothing before the key is there: the cause comes first.
  const cause = `WRONG  Secure Boot is on${signed}sudo mokutil --import /var/lib/dkms/mok.pub, then reboot`;
  const load = "if it is signed: sudo modprobe dblock";
  assertStringIncludes(secureBoot, cause);
  assertStringIncludes(secureBoot, load);
  assertEquals(secureBoot.indexOf(cause) < secureBoot.indexOf(load), true);
});

Deno.test("dblock doctor says what is right for how the module came to this machine", async () => {
  const release = Deno.osRelease();
  const cases: [program: string, files: string[], said: string][] = [
    ["/src/dblock", [], "sudo make load, in the sources"],
    ["/usr/bin/dblock", ["/etc/debian_version"], "sudo apt-get install ./dblock-dkms_*.deb"],
    ["/usr/bin/dblock", [], "sudo dnf install ./akmod-dblock-*.rpm"],
    [
      "/usr/bin/dblock",
      ["/usr/src/akmods/dblock-kmod.latest"],
      `sudo dnf install kernel-devel-${release} && sudo akmods --akmod dblock && sudo modprobe dblock`,
    ],
    [
      "/usr/bin/dblock",
      ["/usr/src/akmods/dblock-kmod.latest", `/lib/modules/${release}/extra/dblock/dblock.ko.xz`],
      "sudo modprobe dblock",
    ],
    [
      "/usr/bin/dblock",
      ["/var/lib/dkms/dblock/1/source", `/lib/modules/${release}/build/Makefile`],
      "sudo dkms autoinstall && sudo modprobe dblock",
    ],
    [
      "/usr/local/bin/dblock",
      ["/usr/local/share/dblock/installed-files"],
      "sudo ./install.sh && sudo modprobe dblock, in the unpacked archive",
    ],
    [
      "/opt/d/bin/dblock",
      ["/opt/d/share/dblock/installed-files"],
      "sudo ./install.sh --prefix /opt/d && sudo modprobe",
    ],
    ["/a/dblock", ["/a/install.sh", `/a/dblock-${release}.ko`], `sudo insmod /a/dblock-${release}.ko`],
  ];
  for (const [program, paths, said] of cases) {
    const files = Object.fromEntries(["/proc/modules", ...paths].map((path) => [path, ""]));
    const found = await foundOn(files, program);
    assertStringIncludes(found, `module: not loaded (kernel ${release})\n       ${said}`);
    if (program !== "/src/dblock") assertEquals(found.includes("make load"), false, found);
  }
  const rules = await foundOn({ "/run/udev/data": "", "/var/lib/dkms/dblock/1/source": "" }, "/usr/bin/dblock");
  assertStringIncludes(rules, "\n       sudo apt-get install --reinstall ./dblock_*.deb");
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

Deno.test("dblock doctor says whether the initial ramdisk serves the disk that / or /usr is on, also below a volume and a partition", async () => {
  const block = "/sys/devices/virtual/block";
  const machine = {
    "/etc/fstab":
      "# /dev/old / ext4\n/dev/vda1 / ext4 defaults 0 1\nUUID=12 /usr ext4 defaults 0 2\n/dev/b /srv ext4\n",
    "/dev/dm-0": "",
    [`${block}/low/dblock/state`]: "live",
    [`${block}/low/low1/partition`]: "1",
  };
  const links = {
    "/dev/disk/by-uuid/12": "../../dm-0",
    "/sys/class/block/dm-0": "../../devices/virtual/block/dm-0",
    [`${block}/dm-0/slaves/low1`]: "../../low/low1",
    "/sys/class/block/low1": "../../devices/virtual/block/low/low1",
    "/sys/class/block/low": "../../devices/virtual/block/low",
  };
  const found = async (more: Readonly<Record<string, string>>) =>
    await foundOn({ ...machine, ...more }, undefined, links);
  const tools = { "/usr/sbin/update-initramfs": "" };
  assertStringIncludes(
    await found({ "/usr/bin/dracut": "" }),
    "WRONG  initial ramdisk: dracut does not serve /dev/low, which /usr is on\n       sudo apt-get install initramfs-tools, or",
  );
  assertStringIncludes(
    await found(tools),
    "WRONG  initial ramdisk: what makes it does not serve /dev/low, which /usr is on\n       sudo apt-get install ./dblock_*.deb",
  );
  assertStringIncludes(
    await found({ ...tools, "/usr/share/initramfs-tools/hooks/dblock": "" }),
    "ok     initial ramdisk: update-initramfs puts the server of /dev/low, which /usr is on, into it",
  );
  // Without such a disk there is nothing to say.
  assertEquals((await found({ "/etc/fstab": "/dev/vda1 / ext4\n" })).includes("initial ramdisk"), false);
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
