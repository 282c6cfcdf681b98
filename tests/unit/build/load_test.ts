// SPDX-License-Identifier: MIT
// `make load` and the other places that refuse a kernel which is too old, and what a load that fails says: one line each.
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { examine, formatFinding } from "../../../src/command/doctor.ts";
import { type FakeMachine, runOn } from "./fake_machine.ts";

const root = new URL("../../../", import.meta.url).pathname;
const read = (path: string) => Deno.readTextFileSync(root + path);
const moduleScript = read("src/build/module.sh");

/** `make load` on a machine with that kernel. */
function load(release: string, { files = {}, programs = {} }: FakeMachine = {}) {
  const machine = {
    files: { "/proc/modules": "", "/checkout/kmod/dblock.ko": "", "/checkout/kmod/60-dblock.rules": "", ...files },
    programs: { uname: `echo ${release}`, modinfo: `echo ${release} SMP`, insmod: "", ...programs },
  };
  return runOn(machine, moduleScript, ["load"], "/checkout/src/build/module.sh");
}

const tooOld = ["5.9.16", "5.4.0-150-generic", "4.19.0-27-amd64", "3.10.0-1160.el7.x86_64"];
const newEnough = ["5.10.0-46-cloud-amd64", "5.15.0", "6.1.0-56-amd64", "6.0-rc1", "10.0.1"];

Deno.test("make load refuses a kernel older than 5.10, before it builds, in one line", async () => {
  for (const release of tooOld) {
    const { code, did, said } = await load(release);
    assertEquals([code, did], [1, []], release);
    assertEquals(
      said,
      `Cannot build dblock.ko: this kernel (${release}) is too old; boot Linux 5.10 or newer, or type: make demo (a VM)\n`,
    );
  }
  for (const release of newEnough) {
    const { code, did, said } = await load(release);
    assertEquals([code, did, said], [0, ["dblock is loaded; type: ./dblock-ramdisk"], ""], release);
  }
});

Deno.test("make load tells lockdown from a module that is refused for another reason", async () => {
  const refusal = (reason: string, lockdown?: string) =>
    load("6.12.0", {
      files: lockdown === undefined ? {} : { "/sys/kernel/security/lockdown": lockdown },
      programs: { insmod: `echo "insmod: ERROR: could not insert module: ${reason}" >&2; exit 1` },
    });
  const denied = "Operation not permitted";
  const cases = [
    [
      denied,
      "none [integrity] confidentiality\n",
      "lockdown (integrity) wants signed modules; boot without lockdown=integrity",
    ],
    [denied, "[none] integrity confidentiality\n", `${denied}; type: dmesg | tail`],
    [denied, undefined, `${denied}; type: dmesg | tail`],
    ["Invalid module format", "none [integrity] confidentiality\n", "Invalid module format; type: dmesg"],
    ["Key was rejected by service", "none [integrity] confidentiality\n", "Secure Boot wants signed modules"],
  ] as const;
  for (const [reason, lockdown, text] of cases) {
    const { code, said } = await refusal(reason, lockdown);
    assertEquals([code, said.split("\n").length], [1, 2], said);
    assertStringIncludes(said, `Cannot load dblock.ko: ${text}`);
  }
});

Deno.test("install.sh says that a kernel is too old, and does not try to build", async () => {
  const script = read("src/build/install.sh");
  const part = script.slice(script.indexOf("# Whether the kernel"), script.indexOf('if [ -n "$uninstall" ]')) +
    script.slice(script.indexOf("install_module() {"), script.indexOf('if [ -e "$manifest.before" ]; then\n    while'));
  const install = async (release: string) => {
    const files = { "/proc/modules": "", [`/lib/modules/${release}/build/Makefile`]: "" };
    const head = `set -eu\nrelease=${release}\ndestdir=\nhere=$PWD\nput() { echo put "$1"; }\n`;
    return await runOn({ files, programs: { make: "echo make; exit 1" } }, head + part, []);
  };
  for (const release of tooOld) {
    const { code, did, said } = await install(release);
    assertEquals([code, did], [0, []]);
    assertMatch(said, /^install\.sh: this kernel \(\S+\) is too old for the module; boot Linux 5\.10 or newer.*\n$/);
  }
  for (const release of newEnough) {
    const { code, did, said } = await install(release);
    assertEquals([code, did], [0, ["make"]]);
    assertMatch(said, /^install\.sh: the module cannot be built for \S+: see above\n$/);
  }
});

Deno.test("dblock doctor says that a kernel is too old, and what it needs", async () => {
  const machine = await Deno.makeTempDir();
  await Deno.mkdir(`${machine}/proc`);
  await Deno.writeTextFile(`${machine}/proc/modules`, "");
  const found = async (release: string) => (await examine(machine, release)).map(formatFinding).join("\n");
  for (const release of tooOld) {
    const said = await found(release);
    assertStringIncludes(
      said,
      `WRONG  module: this kernel (${release}) is too old for it\n       boot Linux 5.10 or newer\n`,
    );
    assert(!said.includes("not loaded"), said);
  }
  for (const release of newEnough) assertStringIncludes(await found(release), "module: not loaded");
  await Deno.remove(machine, { recursive: true });
});

Deno.test("every place names the same oldest kernel", () => {
  assertStringIncludes(read("kmod/compat.h"), "KERNEL_VERSION(5, 10, 0)\n#error");
  const only = /BUILD_EXCLUSIVE_KERNEL="(.*)"/.exec(read("src/build/debian/dblock-dkms.dkms"))![1]!;
  for (const release of tooOld) assert(!new RegExp(only).test(release), release);
  for (const release of newEnough) assert(new RegExp(only).test(release), release);
});
