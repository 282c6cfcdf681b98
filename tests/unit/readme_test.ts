// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import { isReleaseOf, kernelVersions, otherKernelNames } from "../vm/kernels.ts";
import { kernelTable } from "../vm/summary.ts";
import { readmeExample } from "./readme_example.ts";

const root = new URL("../../", import.meta.url);
const deno = new URL("src/build/deno.sh", root).pathname;

async function run(command: "check" | "run", code: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const file = await Deno.makeTempFile({ prefix: "dblock-readme-", suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, code);
    const args = command === "run" ? ["run", "-A", "--no-check", file] : ["check", "--quiet", file];
    const { code: status, stdout, stderr } = await new Deno.Command(deno, { args }).output();
    const decoder = new TextDecoder();
    return { code: status, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("the example of src/README.md has ten lines and compiles", async () => {
  const example = await readmeExample(new URL("src/mod.ts", root).href);
  assert(example.trim().split("\n").filter((line) => line !== "").length <= 10);
  assertEquals(await run("check", example), { code: 0, stdout: "", stderr: "" });
});

Deno.test("the example of src/README.md is a disk", async () => {
  // A module in mod.ts's place: serve() on a fake kernel that writes, reads back, and destroys the device.
  const mod = `
    import { serveOn } from "${new URL("src/module/serve.ts", root).href}";
    import { FakeKernel } from "${new URL("tests/sim/fake_kernel.ts", root).href}";
    const kernel = new FakeKernel();
    export async function serve(backend, options) {
      const device = await serveOn(kernel, backend, options);
      setTimeout(async () => {
        const io = (operation, data) => ({ operation, flags: 0, offsetBytes: 8192, lengthBytes: data.length, data });
        const read = new Uint8Array(4096);
        const errnos = [await kernel.submit("scratch", io(1, new Uint8Array(4096).fill(7)))];
        errnos.push(await kernel.submit("scratch", io(0, read)));
        console.log(errnos.join(), read.every((byte) => byte === 7));
        kernel.remove("scratch");
      }, 10);
      return device;
    }`;
  const href = `data:text/typescript,${encodeURIComponent(mod)}`;
  const { code, stdout, stderr } = await run("run", await readmeExample(href));
  assertEquals({ code, stdout, stderr }, { code: 0, stdout: "/dev/scratch is there\n0,0 true\n", stderr: "" });
});

Deno.test("the table of kernels in README.md is the one that the tests print, with every kernel", async () => {
  const text = await Deno.readTextFile(new URL("README.md", root));
  const head = kernelTable([], []);
  assert(text.includes(`\n${head}\n`), "the table is not there");
  const rows = text.slice(text.indexOf(head) + head.length).trimStart().split("\n\n", 1)[0]!.split("\n");
  const releases = rows.map((row) => /^\| (\S+)(?: \| \d+){4} \|$/.exec(row)?.[1]);
  for (const name of [...kernelVersions, ...otherKernelNames]) {
    const found = releases.filter((release) => release !== undefined && isReleaseOf(name, release));
    assertEquals(found.length, 1, name);
  }
});

Deno.test("tests/device/README.md names every device test", async () => {
  const text = await Deno.readTextFile(new URL("tests/device/README.md", root));
  const names = [...Deno.readDirSync(new URL("tests/device/", root))].map(({ name }) => name)
    .filter((name) => name.endsWith("_test.ts")).map((name) => name.replace("_test.ts", ""));
  const said = [...text.matchAll(/`(\w+)(\*?)`/g)].map(([, word = "", star]) => ({ word, star: star === "*" }));
  const missing = names.filter((name) => !said.some(({ word, star }) => star ? name.startsWith(word) : name === word));
  assertEquals(missing, []);
});
