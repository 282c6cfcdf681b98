// SPDX-License-Identifier: MIT
// What packages do after they are installed: the module of the new version is loaded, and services go on with the new program, or a
// line says why not.
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { AbiError } from "../../../src/module/control.ts";
import { type FakeMachine, runOn } from "./fake_machine.ts";

const folder = new URL("../../../src/build/", import.meta.url).pathname;
const dkms = Deno.readTextFileSync(`${folder}debian/dblock-dkms.postinst`);

/** The script of a package of either kind, and what its manager says after an upgrade. */
const scripts = {
  deb: { text: Deno.readTextFileSync(`${folder}debian/dblock.postinst`), words: ["configure", "0.1.0"] },
  rpm: { text: /^%post\n(.*?)\n^%/ms.exec(Deno.readTextFileSync(`${folder}rpm/dblock.spec`))![1]!, words: ["2"] },
};

const systemd = { "/run/systemd/system/here": "" };
const release = "6.1.0-50-amd64";

/** Configures dblock-dkms where DKMS does what `build` says, and the kernel loads modules. */
function configured(build: string, { files = {}, programs = {} }: FakeMachine = {}) {
  const machine = {
    files: { ...systemd, "/proc/modules": "", ...files },
    programs: {
      uname: `echo ${release}`,
      modinfo: "",
      modprobe: 'echo modprobe "$@"',
      "dkms-build": build,
      ...programs,
    },
  };
  return runOn(machine, dkms.replace("#DEBHELPER#", "dkms-build"), ["configure", "0.1.0"]);
}

const doctor = `
echo "ok     user: root"
echo "WRONG  Secure Boot is on"
echo "       sudo mokutil --import KEY"
echo "ok     udev rules: some"
echo "dblock: 1 of these are to be mended" >&2
exit 1`;

Deno.test("dblock-dkms replaces a loaded module that has no disk, and leaves one that has", async () => {
  const both = ["modprobe -r dblock", "modprobe dblock"];
  const { code, did, said } = await configured("");
  assertEquals([code, did, said], [0, both, ""]);
  const inUse = 'echo modprobe "$@"; [ "$1" != -r ] || { echo "FATAL: Module dblock is in use." >&2; exit 1; }';
  const kept = await configured("", { programs: { modprobe: inUse } });
  assertEquals([kept.code, kept.did, kept.said], [0, both, ""]);
});

Deno.test("dblock-dkms leaves the loaded module if there is no other, and names the package of the headers", async () => {
  const modinfo = "echo 'modinfo: ERROR: Module dblock not found.' >&2; exit 1";
  const { code, did, said } = await configured("", { programs: { modinfo } });
  assertEquals([code, did, said.split("\n").length], [0, [], 2]);
  assertStringIncludes(said, `type: apt-get install linux-headers-${release} && dkms autoinstall && modprobe dblock`);
  const files = { [`/lib/modules/${release}/build/Makefile`]: "" };
  const other = await configured("", { files, programs: { modinfo, dblock: doctor } });
  assertEquals([other.code, other.did], [0, []]);
  assertStringIncludes(other.said, "Secure Boot");
});

Deno.test("dblock-dkms says last which log has why DKMS's build failed, and fails", async () => {
  const log = "/var/lib/dkms/dblock/0.2.0/build/make.log";
  const build = "echo 'Error! Bad return status' >&2; exit 10";
  const { code, did, said } = await configured(build, { files: { [log]: "" } });
  assertEquals([code, did], [10, []]);
  assertEquals(said, `Error! Bad return status\nDKMS cannot build dblock.ko; why: ${log}\n`);
  assertMatch((await configured(build)).said, /why: see the lines above\n$/);
});

Deno.test("dblock-dkms shows what doctor finds wrong if the module cannot be loaded", async () => {
  const modprobe = '[ "$1" = -r ] || { echo "modprobe: ERROR: Key was rejected" >&2; exit 1; }';
  const { code, said } = await configured("", { programs: { modprobe, dblock: doctor } });
  assertEquals(code, 0);
  assertEquals(
    said,
    "modprobe: ERROR: Key was rejected\ndblock.ko cannot be loaded now\n" +
      "WRONG  Secure Boot is on\n       sudo mokutil --import KEY\n",
  );
  const alone = await configured("", { programs: { modprobe } });
  assertEquals([alone.code, alone.said.split("\n").length], [0, 3]);
});

const units = "dblock@a.service loaded active running A\\ndblock@b.service loaded active running B\\n";
const refusal = new AbiError("Cannot list disks", 2).message;

/** Upgrades with two services, or none. */
function upgraded({ text, words }: typeof scripts.deb, dblock: string, { active = units, refused = "none" } = {}) {
  const systemctl = `
    if [ "$1" = list-units ]; then printf "${active}"; exit; fi
    [ "$1" != reload ] || echo "$@"
    [ "$2" != ${refused} ]`;
  const machine = { files: systemd, programs: { systemctl, dblock } };
  return runOn(machine, `set -e\n${text.replaceAll("%%", "%").replace("#DEBHELPER#", "")}`, words);
}

const hook = "/usr/share/initramfs-tools/hooks/dblock";
const update = 'echo update-initramfs "$@"';
Deno.test("dblock-dkms makes the initial ramdisk anew if that serves a disk, after DKMS's build, and not otherwise", async () => {
  // The hook is called by its path.
  const text = dkms.replaceAll(hook, "the-hook").replace('-x "$hook"', "-n x").replace("#DEBHELPER#", "dkms-build");
  const after = async (disks: string) => {
    const others = { uname: `echo ${release}`, modinfo: "", modprobe: "", "dkms-build": "echo built" };
    const programs = { ...others, "update-initramfs": update, "the-hook": `[ "$1" = disks ] && echo ${disks}` };
    const { code, did } = await runOn({ programs }, text, ["configure", "0.1.0"]);
    return [code, did];
  };
  assertEquals(await after(""), [0, ["built"]]);
  assertEquals(await after("usr"), [0, ["built", "update-initramfs -u"]]);
});

for (const [kind, script] of Object.entries(scripts)) {
  Deno.test(`an upgrade of the ${kind} reloads each service, whether or not there is a module`, async () => {
    const all = ["reload dblock@a.service", "reload dblock@b.service"];
    for (const list of ["", "echo 'the module is not loaded' >&2; exit 1"]) {
      const { code, did, said } = await upgraded(script, list);
      assertEquals([code, did, said], [0, all, ""]);
    }
    const { code, did, said } = await upgraded(script, "", { refused: "dblock@a.service" });
    assertEquals([code, did], [0, all]);
    assertMatch(said, /^dblock@a\.service goes on .*: systemctl restart dblock@a\.service\n$/);
  });

  Deno.test(`an upgrade of the ${kind} whose program refuses the loaded module reloads nothing, and says so once`, async () => {
    const list = `echo "${refusal}" >&2; exit 1`;
    const { code, did, said } = await upgraded(script, list);
    assertEquals([code, did, said.split("\n").length], [0, [], 2]);
    const both = "dblock@a.service dblock@b.service";
    assertStringIncludes(
      said,
      `type: systemctl stop ${both} && modprobe -r dblock && modprobe dblock && systemctl start ${both} (or reboot)\n`,
    );
    assertEquals(said.includes("restart"), false);
    const none = await upgraded(script, list, { active: "" });
    assertEquals([none.code, none.did, none.said], [0, [], ""]);
  });
}
