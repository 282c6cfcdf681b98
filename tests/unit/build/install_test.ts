// SPDX-License-Identifier: MIT
// install.sh of `make dist`: every file where the shells, man and systemd look for it; an upgrade and a removal leave what they should.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";

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
  const unit = await Deno.readTextFile(`${tree}/etc/systemd/system/dblock@.service`);
  assertStringIncludes(unit, "ExecStart=@/opt/d/bin/dblock @dblock serve --config /etc/dblock/%i");
  assert(!unit.includes("/usr/bin/dblock"), unit);
  assertEquals((await run(`${tree}/opt/d/bin/dblock-ramdisk`)).said, `first ${tree}/opt/d/bin/dblock-ramdisk\n`);

  // The next version has another program, and a page less.
  await Deno.writeTextFile(`${source}/dblock-ramdisk`, "#!/bin/sh\necho second\n");
  await Deno.remove(`${source}/share/man/dblock.4`);
  await Deno.writeTextFile(`${tree}/etc/dblock/mine`, "memory:1MiB\n");
  assertEquals((await install()).code, 0);
  assertEquals((await run(`${tree}/opt/d/bin/dblock`)).said, "second\n");
  const kept = [...files.filter((file) => !file.endsWith("dblock.4")), "/etc/dblock/mine"].sort();
  assertEquals(await filesIn(tree), kept);

  assertEquals((await install("--uninstall")).code, 0);
  assertEquals(await filesIn(tree), ["/etc/dblock/mine"]);
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
