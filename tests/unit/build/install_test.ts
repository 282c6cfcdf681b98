// SPDX-License-Identifier: MIT
// install.sh of `make dist`: every file where the shells, man and systemd look for it; an upgrade and a removal leave what they should.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { AbiError } from "../../../src/module/control.ts";
import { type FakeMachine, runOn } from "./fake_machine.ts";

const root = new URL("../../../", import.meta.url).pathname;
const deno = `${root}src/build/deno.sh`;

async function run(command: string, ...args: readonly string[]): Promise<{ code: number; said: string }> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
  return { code, said: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

/** What `make dist` packs, but for the program, which is another one here. */
async function unpacked(program: string): Promise<string> {
  const folder = await Deno.makeTempDir();
  await Deno.mkdir(`${folder}/share`);
  const made = await Promise.all([
    run("cp", `${root}src/build/install.sh`, `${root}kmod/60-dblock.rules`, folder),
    run("cp", "-r", `${root}src/build/systemd`, `${folder}/share/`),
    run(deno, "run", "-A", "--no-check", `${root}src/build/manual/main.ts`, `${folder}/share/man`),
    run(deno, "run", "-A", "--no-check", `${root}src/build/completion/main.ts`, `${folder}/share/completion`),
  ]);
  for (const { code, said } of made) assertEquals(code, 0, said);
  await Deno.writeTextFile(`${folder}/dblock-ramdisk`, `#!/bin/sh\necho ${program} $0\n`);
  return folder;
}

/** Every file below a folder, and every link. */
async function filesIn(folder: string): Promise<string[]> {
  const { said } = await run("find", folder, "-not", "-type", "d", "-printf", "/%P\n");
  return said.split("\n").filter((line) => line !== "").sort();
}

Deno.test("install.sh puts everything below a prefix, installs over an earlier version, and takes all of it away", async () => {
  const [source, tree] = [await unpacked("first"), await Deno.makeTempDir()];
  const install = (...args: string[]) => run(`${source}/install.sh`, "--destdir", tree, "--prefix", "/opt/d", ...args);
  assertEquals((await install()).code, 0);
  const files = [
    "/etc/systemd/system-generators/dblock-generator",
    "/etc/systemd/system/dblock-metrics.service",
    "/etc/systemd/system/dblock@.service",
    "/etc/udev/rules.d/60-dblock.rules",
    "/opt/d/bin/dblock",
    "/opt/d/bin/dblock-ramdisk",
    "/opt/d/share/bash-completion/completions/dblock",
    "/opt/d/share/bash-completion/completions/dblock-ramdisk",
    "/opt/d/share/dblock/installed-files",
    "/opt/d/share/fish/vendor_completions.d/dblock.fish",
    "/opt/d/share/man/man1/dblock-ramdisk.1",
    "/opt/d/share/man/man1/dblock.1",
    "/opt/d/share/man/man4/dblock.4",
    "/opt/d/share/man/man5/dblock.conf.5",
    "/opt/d/share/zsh/site-functions/_dblock",
  ];
  assertEquals(await filesIn(tree), files);
  for (
    const [name, start] of [
      ["dblock@", "@/opt/d/bin/dblock @dblock serve --config /etc/dblock/%i"],
      ["dblock-metrics", "/opt/d/bin/dblock metrics 127.0.0.1:9464"],
    ]
  ) {
    const unit = await Deno.readTextFile(`${tree}/etc/systemd/system/${name}.service`);
    assertStringIncludes(unit, `\nExecStart=${start}\n`);
    assert(!unit.includes("/usr/bin/dblock"), unit);
  }
  assertEquals((await run(`${tree}/opt/d/bin/dblock-ramdisk`)).said, `first ${tree}/opt/d/bin/dblock-ramdisk\n`);

  // The next version has another program, and a page less.
  await Deno.writeTextFile(`${source}/dblock-ramdisk`, "#!/bin/sh\necho second\n");
  await Deno.remove(`${source}/share/man/dblock.4`);
  await Deno.writeTextFile(`${tree}/etc/dblock/mine`, "memory:1MiB\n");
  assertEquals((await install()).code, 0);
  assertEquals((await run(`${tree}/opt/d/bin/dblock`)).said, "second\n");
  const kept = [...files.filter((file) => !file.endsWith("dblock.4")), "/etc/dblock/mine"].sort();
  assertEquals(await filesIn(tree), kept);

  // Two disks that are enabled, and the figures; the unit of the second one is a package's.
  const wants = "/etc/systemd/system/local-fs.target.wants";
  await Deno.mkdir(tree + wants);
  await Deno.symlink("/etc/systemd/system/dblock@.service", `${tree}${wants}/dblock@mine.service`);
  await Deno.symlink("/lib/systemd/system/dblock@.service", `${tree}${wants}/dblock@other.service`);
  await Deno.symlink("/etc/systemd/system/dblock-metrics.service", `${tree}${wants}/dblock-metrics.service`);
  assertEquals((await install("--uninstall")).code, 0);
  assertEquals(await filesIn(tree), ["/etc/dblock/mine", `${wants}/dblock@other.service`]);
  const again = await install("--uninstall");
  assertEquals([again.code, again.said.split("\n").length], [1, 2]);
  assertStringIncludes(again.said, "nothing is installed below /opt/d");
});

Deno.test("install.sh says in a line what is wrong", async () => {
  const source = await unpacked("any");
  for (
    const [args, said] of [[["--prefix"], "needs a folder"], [["--what"], "no option --what"], [
      ["--prefix", "x"],
      "whole path",
    ]] as const
  ) {
    const result = await run(`${source}/install.sh`, ...args);
    assertEquals([result.code, result.said.split("\n").length], [1, 2]);
    assertStringIncludes(result.said, said);
  }
  assertStringIncludes((await run(`${source}/install.sh`, "--help")).said, "--uninstall");
});

const units = "dblock@a.service loaded active running A\\ndblock@b.service loaded active running B\\n";

/** Runs install.sh on a machine of its own, with an archive that has as little as can be. Its prefix is /var/local. */
function onMachine(args: readonly string[], { files = {}, programs = {} }: FakeMachine = {}) {
  const script = Deno.readTextFileSync(`${root}src/build/install.sh`).replace("prefix=/usr/local", "prefix=/var/local");
  const parts = ["dblock-ramdisk", "60-dblock.rules", "share/man/dblock.1"].concat(
    ["dblock-generator", "dblock@.service", "dblock-metrics.service"].map((name) => `share/systemd/${name}`),
    ["dblock.bash", "_dblock", "dblock.fish"].map((name) => `share/completion/${name}`),
  );
  const systemctl = `
    if [ "$1" = list-units ]; then printf "${units}"; else echo systemctl "$@"; fi`;
  const machine = {
    files: {
      ...Object.fromEntries(parts.map((name) => [`/archive/${name}`, ""])),
      "/run/systemd/system/here": "",
      ...files,
    },
    programs: { systemctl, udevadm: "", depmod: "", modprobe: 'echo modprobe "$@"', ...programs },
  };
  return runOn(machine, script, args, "/archive/install.sh");
}

const installed = { "/var/local/share/dblock/installed-files": "" };

Deno.test("install.sh reloads the services over an earlier version, unless the program refuses the loaded module", async () => {
  const end = "dblock is installed below /var/local; type: dblock doctor";
  const first = await onMachine([]);
  assertEquals([first.code, first.did, first.said], [0, ["systemctl daemon-reload", end], ""]);
  const { code, did, said } = await onMachine([], { files: installed });
  const begun = ["systemctl daemon-reload", "systemctl try-restart dblock-metrics.service"];
  const reloads = ["systemctl reload dblock@a.service", "systemctl reload dblock@b.service"];
  assertEquals([code, did, said], [0, [...begun, ...reloads, end], ""]);
  const program = `#!/bin/sh\necho "${new AbiError("Cannot list disks", 2).message}" >&2; exit 1\n`;
  const refused = await onMachine([], { files: { ...installed, "/archive/dblock-ramdisk": program } });
  assertEquals([refused.code, refused.did], [0, [...begun, end]]);
  assertStringIncludes(
    refused.said,
    "type: systemctl stop dblock@a.service dblock@b.service && modprobe -r dblock && ",
  );
  assertEquals(refused.said.split("\n").length, 2);
});

Deno.test("install.sh --uninstall is refused while a disk is there, of the module or of the kernel's NBD client", async () => {
  const record = JSON.stringify({ name: "a", pid: 12, cwd: "/", words: ["null:1MiB"], kernelNbd: 3 });
  const ofModule = await onMachine(["--uninstall"], { files: { ...installed, "/sys/block/m/dblock/state": "live\n" } });
  assertEquals(
    [ofModule.code, ofModule.did, ofModule.said],
    [1, [], "install.sh: the disk m is there; type: dblock destroy m\n"],
  );
  const nbd = { ...installed, "/run/dblock/a.json": `${record}\n` };
  const served = await onMachine(["--uninstall"], { files: { ...nbd, "/sys/block/nbd3/pid": "12\n" } });
  assertEquals(
    [served.code, served.did, served.said],
    [1, [], "install.sh: the disk a (/dev/nbd3) is there; type: dblock destroy a\n"],
  );
  assert(served.left.includes("/var/local/share/dblock/installed-files"));
  // The number is another program's by now.
  const other = await onMachine(["--uninstall"], { files: { ...nbd, "/sys/block/nbd3/pid": "13\n" } });
  assertEquals([other.code, other.said], [0, ""]);
  assert(!other.left.includes("/var/local/share/dblock/installed-files"));
});
