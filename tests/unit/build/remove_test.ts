// SPDX-License-Identifier: MIT
// What packages do before they are removed, on a machine whose /sys and /run are folders of the test: which disks are in the way.
import { assertEquals, assertStringIncludes } from "@std/assert";

const folder = new URL("../../../src/build/", import.meta.url).pathname;

/** The script of a package of either kind, and what its manager says when the package goes. */
const scripts = {
  deb: { text: Deno.readTextFileSync(`${folder}debian/dblock.prerm`).replace("#DEBHELPER#", ""), word: "remove" },
  rpm: { text: /^%preun\n(.*?)\n^%/ms.exec(Deno.readTextFileSync(`${folder}rpm/dblock.spec`))![1]!, word: "0" },
};

interface Machine {
  /** Where files are, with what is in them. */
  readonly files: Readonly<Record<string, string>>;
  /** Which disks dblock destroy refuses. */
  readonly busy?: string;
}

async function removed({ text, word }: typeof scripts.deb, { files, busy = "none" }: Machine) {
  const root = await Deno.makeTempDir();
  for (const [path, content] of Object.entries({ ...files, "/bin/dblock": "", "/bin/systemctl": "" })) {
    await Deno.mkdir(root + path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(root + path, content);
  }
  await Deno.mkdir(`${root}/run/systemd/system`, { recursive: true });
  for (const name of ["dblock", "systemctl"]) {
    const program = `#!/bin/sh\necho ${name} "$@"\n[ "$2" != ${busy} ] || { echo "it is in use" >&2; exit 1; }\n`;
    await Deno.writeTextFile(`${root}/bin/${name}`, program, { mode: 0o755 });
    await Deno.chmod(`${root}/bin/${name}`, 0o755);
  }
  const here = text.replaceAll("%%", "%").replaceAll("/sys/block", `${root}/sys/block`)
    .replaceAll("/run/", `${root}/run/`);
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", here, "sh", word],
    env: { PATH: `${root}/bin:${Deno.env.get("PATH")}` },
  }).output();
  await Deno.remove(root, { recursive: true });
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, did: decode(stdout).split("\n").slice(0, -1), said: decode(stderr) };
}

const record = (name: string, pid: number, kernelNbd?: number) => {
  const words = ["null:1MiB", "--with", 'log=file="pid":7,"kernelNbd":7'];
  return { [`/run/dblock/${name}.json`]: `${JSON.stringify({ name, pid, cwd: "/", words, kernelNbd })}\n` };
};
const files = {
  "/sys/block/sda/size": "8\n",
  "/sys/block/m/dblock/open_count": "0\n",
  ...record("m", 11),
  "/sys/block/nbd0/pid": "12\n",
  ...record("a", 12, 0),
  "/sys/block/nbd1/pid": "13\n",
  ...record("b", 13, 1),
  // Their servers are dead: one number is nobody's by now, and the other one another program's.
  "/sys/block/nbd2/size": "0\n",
  ...record("c", 14, 2),
  "/sys/block/nbd3/pid": "16\n",
  ...record("d", 15, 3),
};
const stop = "systemctl stop dblock@*.service dblock-metrics.service";

for (const [kind, script] of Object.entries(scripts)) {
  Deno.test(`a removal of the ${kind} destroys all disks, those of the kernel's NBD client included`, async () => {
    const { code, did, said } = await removed(script, { files });
    assertEquals([code, did, said], [0, ["dblock destroy a", "dblock destroy b", "dblock destroy m", stop], ""]);
    assertEquals(await removed(script, { files: {} }), { code: 0, did: [stop], said: "" });
  });

  Deno.test(`a removal of the ${kind} is refused while a disk is in use, whoever has it`, async () => {
    const nbd = await removed(script, { files, busy: "b" });
    assertEquals([nbd.code, nbd.did], [1, ["dblock destroy a", "dblock destroy b"]]);
    assertStringIncludes(nbd.said, "it is in use\ndblock is not removed: the disk b is still there\n");
    const module = await removed(script, { files: { ...files, "/sys/block/m/dblock/open_count": "1\n" } });
    assertEquals(module, { code: 1, did: [], said: "dblock is not removed: these disks are in use: m\n" });
  });
}
