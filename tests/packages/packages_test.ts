// The packages of both formats and the archive, as they are made: lintian and rpmlint have nothing to say, all three have the same
// files; an rpm is installed, upgraded and removed in a tree with its scripts, and its module's source package builds. That mandoc
// has nothing to say about the manual is in unit/build/manual, what promtool says of the rules in interop/metrics; the packages of
// Debian are installed by the suite "installed".
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { listFiles, projectDir, run } from "../vm/host.ts";
import { defaultKernel, fetchKernel } from "../vm/kernels.ts";
import { dir, type Kind, make, version, whyNot } from "./made.ts";
import { partsIn, sumOf } from "./parts.ts";
import { RpmTree } from "./rpm_tree.ts";

Deno.test.afterAll(() => Deno.remove(dir, { recursive: true }));

/** Says why something is not tested, in a line that a run of all tests shows. @returns whether there is a reason */
function skips(what: string, why: string | undefined): boolean {
  if (why !== undefined) console.log(`| packages: skipped: ${what}: ${why} |`);
  return why !== undefined;
}

const noDeb = skips("packages of Debian", await whyNot("deb"));
const noRpm = skips("rpm packages", await whyNot("rpm"));
const noTree = noRpm || skips("an installed rpm", await RpmTree.whyNot());

async function packages(kind: Kind, end: RegExp): Promise<string[]> {
  return (await make(kind)).filter((file) => end.test(file));
}

/** Unpacks all of one format into a folder, as they would be installed. */
async function unpacked(kind: Kind): Promise<string> {
  const root = join(dir, `${kind}-unpacked`);
  await Deno.mkdir(root);
  for (const file of await packages(kind, /\.(deb|rpm|tar\.gz)$/)) await unpack(kind, file, root);
  return root;
}

async function unpack(kind: Kind, file: string, root: string): Promise<void> {
  if (kind === "deb") return void await run(["dpkg-deb", "--extract", file, root]);
  if (kind === "rpm") {
    if (!file.endsWith(".src.rpm")) return await extract(file, root);
    // akmods builds the module from what is in it.
    const sources = await Deno.makeTempDir({ dir });
    await extract(file, sources);
    await Deno.mkdir(`${root}/module`);
    const [archive] = listFiles(sources).filter((name) => name.endsWith(".tar.gz"));
    return void await run(["tar", "-xzf", `${sources}/${archive}`, "--strip-components=1", "-C", `${root}/module`]);
  }
  const archive = await Deno.makeTempDir({ dir });
  await run(["tar", "-xzf", file, "--strip-components=1", "-C", archive]);
  await run([`${archive}/install.sh`, "--destdir", root, "--prefix", "/usr"]);
  await run(["cp", "-r", `${archive}/kmod`, `${root}/module`]);
}

async function extract(rpm: string, root: string): Promise<void> {
  await run(["bash", "-c", 'set -o pipefail; rpm2archive -n - <"$1" | tar -x -C "$2"', "bash", rpm, root]);
}

/** What is in one format alone, and why. */
const own: Readonly<Record<Kind, readonly RegExp[]>> = {
  // Debian has licences and history in files of its own; DKMS has a recipe, where akmods has a package. And others make their
  // initial ramdisks in another way.
  deb: [
    /^usr\/share\/doc\/.*\/(copyright|changelog)$/,
    /^usr\/share\/lintian\//,
    /^usr\/share\/initramfs-tools\//,
    /^module\/dkms\.conf$/,
  ],
  rpm: [/^usr\/share\/licenses\//, /^usr\/src\/akmods\//],
  // It knows what it has installed; and the module's README is for who builds by hand.
  dist: [/^usr\/share\/dblock\/installed-files$/, /^module\/README\.md$/],
};
/** What stays in the unpacked archive; and no module is loaded at each boot, but when its first service starts. */
const notInstalled = [/^usr\/share\/doc\/dblock\//, /^usr\/lib\/modules-load\.d\//];

/** The files of a format, but for those that it alone has. */
async function shared(kind: Kind): Promise<Map<string, string>> {
  const parts = partsIn(await unpacked(kind));
  for (const one of own[kind]) {
    const names = [...parts.keys()].filter((name) => one.test(name));
    assert(names.length > 0, `${kind} has no ${one}`);
    for (const name of names) parts.delete(name);
  }
  return parts;
}

Deno.test({
  name: "lintian has nothing to say about the packages of Debian, and has looked at each",
  ignore: noDeb,
  async fn() {
    const names = (await packages("deb", /\.deb$/)).map((file) => file.slice(file.lastIndexOf("/") + 1));
    assertEquals(names, [`dblock-dkms_${version}_all.deb`, `dblock_${version}_amd64.deb`]);
    // deb.sh fails if it has; and nothing that it could say is switched off but what is said beside the switch.
    const [log] = await packages("deb", /lintian\.log$/);
    assertEquals(
      (await Deno.readTextFile(log!)).split("\n").filter((line) => /^[A-Z]: /.test(line) && line[0] !== "N"),
      [],
    );
  },
});

Deno.test({
  name: "rpmlint has nothing to say about the packages of rpm, and has looked at each",
  ignore: noRpm,
  async fn() {
    const names = (await packages("rpm", /\.rpm$/)).map((file) => file.slice(file.lastIndexOf("/") + 1));
    assertEquals(names, [
      `akmod-dblock-${version}-1.noarch.rpm`,
      `dblock-${version}-1.x86_64.rpm`,
      `dblock-kmod-${version}-1.src.rpm`,
    ]);
    const [log] = await packages("rpm", /rpmlint\.log$/);
    assertMatch(await Deno.readTextFile(log!), /3 packages and 0 specfiles checked; 0 errors, 0 warnings/);
  },
});

/** What is not the same, a line each. */
function differences(wanted: ReadonlyMap<string, string>, found: ReadonlyMap<string, string>): string[] {
  const names = [...new Set([...wanted.keys(), ...found.keys()])].filter((name) =>
    wanted.get(name) !== found.get(name)
  );
  return names.map((name) => `${name}: ${wanted.get(name) ?? "not there"}, and ${found.get(name) ?? "not there"}`);
}

Deno.test({
  name: "packages of both formats and the archive have the same files, with the same content and the same rights",
  ignore: noDeb || noRpm,
  async fn() {
    const [deb, rpm, dist] = [await shared("deb"), await shared("rpm"), await shared("dist")];
    assertEquals(differences(deb, rpm), []);
    for (const one of notInstalled) assert([...deb.keys()].some((name) => one.test(name)), `no ${one}`);
    const others = [...deb].filter(([name]) => !notInstalled.some((one) => one.test(name)));
    assertEquals(differences(new Map(others), dist), []);
    // And not three times nothing.
    assert(deb.size > 40, [...deb.keys()].join("\n"));
    assertEquals(deb.get("usr/bin/dblock"), sumOf(join(projectDir, "dblock")));
  },
});

/** Where a stand-in for a program that no Debian has writes what it was told. */
const akmods = `#!/bin/sh\necho "$@" >/tmp/akmods\n`;
const systemctl = `#!/bin/sh
echo "$@" >>/tmp/systemctl
[ "$1" != list-units ] || echo "dblock@data.service loaded active running Disk data served by dblock"
`;

Deno.test({
  name:
    "an rpm is installed, upgraded and removed: its program runs, its scripts do what they should, and nothing of it is left",
  ignore: noTree,
  async fn() {
    const files = await packages("rpm", /(noarch|x86_64)\.rpm$/);
    await using tree = await RpmTree.make();
    await tree.write("usr/sbin/akmods", akmods, 0o755);
    const before = await tree.content();
    const said = async (path: string) => (await Deno.readTextFile(join(tree.root, path))).split("\n").slice(0, -1);

    await tree.rpm(`--install ${files.join(" ")}`);
    assertEquals(await tree.rpm("--verify dblock akmod-dblock"), "");
    assertEquals(await tree.inside("dblock --version"), await run([join(projectDir, "dblock"), "--version"]));
    // A relative path, as that of a socket has 107 bytes.
    const serve = 'cd "$1"; chroot . dblock serve memory:3MiB --nbd unix:/tmp/socket >/dev/null & server=$!';
    const comes = "for i in $(seq 100); do [ -e tmp/socket ] || sleep 0.1; done";
    const ask = "nbdinfo --size nbd+unix:///?socket=tmp/socket; kill $server; wait $server || true";
    assertEquals(await tree.outside([serve, comes, ask].join("\n")), "3145728\n");
    await waitForFile(join(tree.root, "tmp/akmods"));
    assertEquals(await said("tmp/akmods"), ["--from-akmod-posttrans --akmod dblock"]);

    // The same version again is an upgrade for the scripts: services go on with the new program.
    await tree.write("usr/bin/systemctl", systemctl, 0o755);
    await Deno.mkdir(join(tree.root, "run/systemd/system"), { recursive: true });
    await tree.rpm(`--upgrade --force ${files[1]}`);
    const upgraded = [
      "--system daemon-reload",
      "try-restart dblock-metrics.service",
      "list-units --state=active --plain --no-legend dblock@*.service",
      "reload dblock@data.service",
    ];
    assertEquals((await said("tmp/systemctl")).slice(0, upgraded.length), upgraded);

    // A disk that is in use, as the kernel would show it, is in the way of a removal; all files stay.
    await tree.write("etc/dblock/mine", "memory:1MiB\n");
    await tree.write("sys/block/mine/dblock/open_count", "1\n");
    await assertRejects(() => tree.rpm("--erase dblock"), Error, "dblock is not removed: these disks are in use: mine");
    assertEquals(await tree.rpm("--verify dblock"), "");
    await Deno.remove(join(tree.root, "sys/block"), { recursive: true });

    const wants = "etc/systemd/system/multi-user.target.wants";
    await Deno.mkdir(join(tree.root, wants), { recursive: true });
    await Deno.symlink(
      "/usr/lib/systemd/system/dblock-metrics.service",
      join(tree.root, wants, "dblock-metrics.service"),
    );
    await Deno.symlink("/usr/lib/systemd/system/other.service", join(tree.root, wants, "other.service"));
    await Deno.remove(join(tree.root, "tmp/systemctl"));
    await tree.rpm("--erase dblock akmod-dblock");
    assertEquals(await said("tmp/systemctl"), [
      "stop dblock@*.service dblock-metrics.service",
      "--system daemon-reload",
    ]);
    const known = new Set(before);
    // What this test has put there, and /run, which ends with the machine.
    const ofTest = /^(tmp|run|sys)\/|^usr\/bin\/systemctl$|^etc\/systemd\/system(\/multi-user\.target\.wants)?$/;
    const left = (await tree.content()).filter((path) => !known.has(path) && !ofTest.test(path));
    assertEquals(left, ["etc/dblock", "etc/dblock/mine", `${wants}/other.service`]);
  },
});

Deno.test({
  name: "the module's source package builds as akmods builds it, for a kernel that it is told",
  ignore: noRpm,
  async fn() {
    const [source] = await packages("rpm", /\.src\.rpm$/);
    const { release, headersDir } = await fetchKernel(defaultKernel);
    const built = join(dir, "kmod");
    const defines = { kernels: release, kernel_source: headersDir, _topdir: `${built}/work`, _rpmdir: built };
    const words = Object.entries(defines).flatMap(([name, value]) => ["--define", `${name} ${value}`]);
    await run(["rpmbuild", "--rebuild", "--nodeps", ...words, source!]);
    const [made] = listFiles(built).filter((file) => file.endsWith(".rpm"));
    await extract(join(built, made!), built);
    const module = join(built, `lib/modules/${release}/extra/dblock/dblock.ko`);
    assertMatch(await run(["modinfo", "--field=vermagic", module]), new RegExp(`^${release.replaceAll("+", "\\+")} `));
  },
});

async function waitForFile(path: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await Deno.stat(path).then(() => true, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${path} has not come`);
}
