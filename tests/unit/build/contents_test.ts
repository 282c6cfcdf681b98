// SPDX-License-Identifier: MIT
// What packages and the archive are made of: the licences of all that is in the program, and what monitors disks, are there. The
// specification of the rpm lists each file that it installs, and no other.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";

const root = new URL("../../../", import.meta.url).pathname;
const read = (path: string) => Deno.readTextFileSync(root + path);
const spec = read("src/build/rpm/dblock.spec");
const stage = await Deno.makeTempDir();

async function sh(script: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command("sh", { args: ["-euc", script], cwd: root }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Files and links below a folder. */
async function filesIn(folder: string): Promise<string[]> {
  return (await sh(`find "${folder}" -not -type d -printf '/%P\\n'`)).split("\n").slice(0, -1).sort();
}

await Deno.writeTextFile(`${stage}/program`, "");
await sh(`src/build/stage.sh "${stage}" "${stage}/program"`);

Deno.test("what packages are made of has the licences of Deno and uPlot, and all of monitoring", async () => {
  const files = await filesIn(stage);
  for (const { name } of Deno.readDirSync(`${root}src/build/monitoring`)) assert(files.includes(`/monitoring/${name}`));
  assertStringIncludes(await Deno.readTextFile(`${stage}/LICENSE.deno`), "the Deno authors");
  assertStringIncludes(await Deno.readTextFile(`${stage}/LICENSE.uPlot`), "Leon Sorokin");
  // Debian has both in a file of its own, and the archive in files beside the program.
  const copyright = read("src/build/debian/copyright");
  for (const holder of ["the Deno authors", "Leon Sorokin"]) assertStringIncludes(copyright, holder);
  assert(read("src/build/debian/dblock.docs").split("\n").includes("monitoring"));
  for (const part of ["LICENSE.deno", "LICENSE.uPlot", "src/build/monitoring"]) {
    assertStringIncludes(read("src/build/dist.sh"), part);
  }
});

Deno.test("the rpm's specification lists what it installs: both licences and monitoring are among it", async () => {
  const built = await Deno.makeTempDir();
  const macros: Readonly<Record<string, string>> = {
    stage,
    buildroot: built,
    version: "1",
    _bindir: "/usr/bin",
    _systemdgeneratordir: "/usr/lib/systemd/system-generators",
    _unitdir: "/usr/lib/systemd/system",
    _udevrulesdir: "/usr/lib/udev/rules.d",
    _modulesloaddir: "/usr/lib/modules-load.d",
    _mandir: "/usr/share/man",
    _datadir: "/usr/share",
    _docdir: "/usr/share/doc",
    _sysconfdir: "/etc",
    _usrsrc: "/usr/src",
  };
  const expanded = (text: string) =>
    text.replaceAll(/%\{(\w+)\}/g, (_, name: string) => {
      const value = macros[name];
      assert(value !== undefined, `the macro ${name} has no value here`);
      return value;
    });
  await Deno.writeTextFile(`${stage}/dblock-kmod-1-1.src.rpm`, "");
  await sh(expanded(/^%install\n(.*?)\n%post\n/ms.exec(spec)![1]!));
  const parts = [...spec.matchAll(/^%files.*\n((?:.+\n)+)/gm)].flatMap((match) => match[1]!.split("\n"));
  const listed = expanded(parts.filter((line) => line !== "" && !line.startsWith("%dir ")).join("\n")).split("\n")
    .map((line) => line.replace(/^%\w+ /, ""));
  const files = await filesIn(built);
  for (const file of files) assert(listed.some((path) => file === path || file.startsWith(`${path}/`)), file);
  for (const path of listed) assert(files.some((file) => file === path || file.startsWith(`${path}/`)), path);
  const wanted = ["licenses/dblock/LICENSE.deno", "licenses/dblock/LICENSE.uPlot"].concat(
    [...Deno.readDirSync(`${root}src/build/monitoring`)].map(({ name }) => `doc/dblock/monitoring/${name}`),
  );
  for (const path of wanted) assert(files.includes(`/usr/share/${path}`), path);
  await Deno.remove(built, { recursive: true });
});

Deno.test("packages name an address in a domain that is nobody's", () => {
  // example.org is reserved (RFC 2606), and lintian takes it for a domain; .invalid it does not.
  const files = ["debian/control", "deb.sh", "rpm/dblock.spec", "rpm/dblock-kmod.spec"];
  for (const file of files) {
    const addresses = read(`src/build/${file}`).match(/(?<=<)[^<>\s]+@[^<>\s]+(?=>)/g);
    assertEquals(addresses, ["dblock@example.org"], file);
  }
});
