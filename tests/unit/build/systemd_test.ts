// SPDX-License-Identifier: MIT
// The unit dblock@NAME, as systemd's own programs judge it, and what the generator adds to it for each file of /etc/dblock.
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { readConfig } from "../../../src/command/config.ts";
import { INITRD_FOLDER } from "../../../src/command/initrd.ts";
import { DBLOCK_CONTROL_PATH } from "../../../src/module/abi.ts";

const folder = new URL("../../../src/build/systemd/", import.meta.url).pathname;

/** What the unit wants. */
const modprobe = "modprobe@dblock.service.d";

/** What a generator adds for a disk; where there is one, the module is not loaded twice. */
async function generated(files: Readonly<Record<string, string>>): Promise<Record<string, string[]>> {
  const dir = await Deno.makeTempDir();
  await Deno.mkdir(`${dir}/config`);
  for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${dir}/config/${name}`, text);
  const { code, stderr } = await new Deno.Command(`${folder}dblock-generator`, {
    args: [`${dir}/out`, `${dir}/out`, `${dir}/out`],
    env: { DBLOCK_CONFIG_FOLDER: `${dir}/config` },
  }).output();
  assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  const units: Record<string, string[]> = {};
  try {
    for (const { name } of Deno.readDirSync(`${dir}/out`)) {
      if (name === modprobe) continue;
      const lines = (await Deno.readTextFile(`${dir}/out/${name}/50-stores.conf`)).trim().split("\n");
      assertEquals(lines.shift(), "[Unit]");
      units[name] = lines;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // no disk at all
    return units;
  }
  const condition = await Deno.readTextFile(`${dir}/out/${modprobe}/50-loaded.conf`);
  assertEquals(condition, `[Unit]\nConditionPathExists=!${DBLOCK_CONTROL_PATH}\n`);
  return units;
}

Deno.test("systemd-analyze finds no mistake in the units, and an exposure of at most 4.0 and 2.2", async () => {
  const analyze = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Deno.Command("systemd-analyze", { args }).output();
    return { code, said: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  };
  for (const [name, exposure] of [["dblock@.service", 40], ["dblock-metrics.service", 22]] as const) {
    const unit = `${folder}${name}`;
    const security = await analyze("security", "--offline=true", "--no-pager", `--threshold=${exposure}`, unit);
    assertEquals(security.code, 0, security.said);
    assertStringIncludes(security.said, "Overall exposure level");
    // It complains about other units of this machine, and about a program that is not installed here.
    const verify = await analyze("verify", "--man=no", unit);
    const lines = verify.said.split("\n").filter((line) =>
      line.includes(name.replace(".service", "")) && !line.includes("is not executable")
    );
    assertEquals(lines, []);
  }
});

Deno.test("the service of the figures listens on loopback, and is in both packages", async () => {
  const unit = await Deno.readTextFile(`${folder}dblock-metrics.service`);
  assertStringIncludes(unit, "\nExecStart=/usr/bin/dblock metrics 127.0.0.1:9464\n");
  for (const file of ["stage.sh", "debian/dblock.install", "rpm/dblock.spec"]) {
    assertStringIncludes(await Deno.readTextFile(`${folder}../${file}`), "dblock-metrics.service");
  }
});

Deno.test("--metrics in a disk's file is refused with what shows the figures of all disks", async () => {
  const path = await Deno.makeTempFile();
  for (const words of ["null:1MiB --metrics 127.0.0.1:9464", "null:1MiB --metrics=127.0.0.1:9464"]) {
    await Deno.writeTextFile(path, words);
    const { message } = assertThrows(() => readConfig(path), UsageError);
    assertStringIncludes(message, `${path}: --metrics is an option of a server, not of a disk`);
    assertStringIncludes(message, "systemctl enable --now dblock-metrics");
  }
  await Deno.remove(path);
});

Deno.test("a disk waits for the file systems and block devices that its file names", async () => {
  assertEquals(
    await generated({
      "a-b": "/srv/a.img?size=1GiB --with stats=file=/var/x  # /not/this\n# /nor/this\n",
      set: "stripe:[/m/a.img?raw],file:/n/b.img nbd://host/export --name x --nbd unix:/run/y",
      block: "/dev/disk/by-id/x-1 --with log='file=/tmp/two words'",
      "memory.disk": "memory:1GiB",
      volatile: "/dev/shm/a?size=1GiB",
    }),
    {
      "dblock@a-b.service.d": [
        'RequiresMountsFor="/srv/a.img"',
        'RequiresMountsFor="/var/x"',
        "Before=blockdev@dev-a\\x2db.target",
      ],
      "dblock@set.service.d": [
        'RequiresMountsFor="/m/a.img"',
        'RequiresMountsFor="/n/b.img"',
        'RequiresMountsFor="/run/y"',
        "Before=blockdev@dev-set.target",
      ],
      "dblock@block.service.d": [
        "Wants=dev-disk-by\\x2did-x\\x2d1.device",
        "After=dev-disk-by\\x2did-x\\x2d1.device",
        'RequiresMountsFor="/tmp/two words"',
        "Before=blockdev@dev-block.target",
      ],
      "dblock@memory.disk.service.d": ["Before=blockdev@dev-memory.target"],
      "dblock@volatile.service.d": ["Before=blockdev@dev-volatile.target"],
    },
  );
});

Deno.test("the generator reads quotes, backslashes and %XX as the program does, and writes what systemd reads as that path", async () => {
  const wants = (...paths: string[]) => paths.map((path) => `RequiresMountsFor="${path}"`);
  const label = String.raw`dev-disk-by\x2dlabel-big\x20disk\x5cx20.device`;
  const cases: readonly [config: string, lines: readonly string[]][] = [
    ['"/mnt/big disk/data.img?size=100GiB"', wants("/mnt/big disk/data.img")],
    ["/mnt/big%20disk/data.img?size=1GiB", wants("/mnt/big disk/data.img")],
    ["/mnt/big\\ disk/data.img", wants("/mnt/big disk/data.img")],
    ["/mnt/big' 'disk/a#b # /c", wants("/mnt/big disk/a#b")],
    ["file:/mnt/a\\\n/b?x\\\n=/c", wants("/mnt/a/b", "/c")],
    [String.raw`'/mnt/"q\'`, wants(String.raw`/mnt/\"q\\`)],
    [String.raw`"/mnt/\"q\\\n"`, wants(String.raw`/mnt/\"q\\\\n`)],
    ["/mnt/100%/a", wants("/mnt/100%%/a")],
    ["/mnt/a%2520", wants("/mnt/a%%20")],
    ["/mnt/%C3%A4/%3F", wants("/mnt/ä/?")],
    ["/mnt/%FF%20", wants("/mnt/%%FF%%20")],
    ["/mnt/a,b/[1]/c.img?raw", wants("/mnt/a,b/[1]/c.img")],
    ["stripe:[/mnt/a%2Cb?raw],/c%20d", wants("/mnt/a,b", "/c d")],
    [
      "memory:1MiB --with=log=file=/a%20b --with stats=file=/c%20d --nbd unix:/e%20f",
      wants("/a%%20b", "/c%%20d", "/e%%20f"),
    ],
    ["null:1MiB --read-only /a%20b", wants("/a b")],
    [String.raw`'/dev/disk/by-label/big disk\x20'`, [`Wants=${label}`, `After=${label}`]],
    ["/mnt/%0a/a", []],
    ['"/mnt/open', []],
  ];
  const written = await generated(Object.fromEntries(cases.map(([config], i) => [`a${i}`, config])));
  for (const [i, [config, lines]] of cases.entries()) {
    assertEquals(written[`dblock@a${i}.service.d`], [...lines, `Before=blockdev@dev-a${i}.target`], config);
  }
});

Deno.test("the paths of a file are printed for the hook of the initial ramdisk, as they are", async () => {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(
    file,
    "mirror:/dev/disk/by-id/a-1,[/srv/x%20y\\ z.img?raw] --with log=file=/a%b # /c\n/dev/b",
  );
  const { code, stdout } = await new Deno.Command(`${folder}dblock-generator`, { args: ["--paths", file] }).output();
  const paths = ["/dev/disk/by-id/a-1", "/srv/x y z.img", "/a%b", "/dev/b"];
  assertEquals([code, new TextDecoder().decode(stdout).trimEnd().split("\n")], [0, paths]);
  await Deno.remove(file);
});

Deno.test("the unit of a disk whose server is the initial ramdisk's starts no other", async () => {
  const unit = await Deno.readTextFile(`${folder}dblock@.service`);
  assertStringIncludes(unit, `\nConditionPathExists=!${INITRD_FOLDER}/%i\n`);
});

Deno.test("copies of editors and packages, and names that no disk can have, are left out; no file is no unit", async () => {
  assertEquals(await generated({ "a~": "/x", "b.dpkg-old": "/x", "c d": "/x", ".hidden": "/x" }), {});
});

Deno.test("the unit says why what is not hardened cannot be", async () => {
  const text = await Deno.readTextFile(`${folder}dblock@.service`);
  for (
    const directive of [
      "User=",
      "MemoryDenyWriteExecute=",
      "PrivateDevices=",
      "ProtectSystem=strict",
      "PrivateTmp=",
      "PrivateNetwork=",
    ]
  ) {
    const [line] = text.split("\n").filter((line) => line.startsWith("#") && line.includes(directive));
    assert(line !== undefined, directive);
  }
});
