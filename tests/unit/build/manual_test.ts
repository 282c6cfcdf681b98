// SPDX-License-Identifier: MIT
// The manual: pages that mandoc finds nothing wrong with, and that have every subcommand, option, filter, parameter and file.
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ATTRIBUTES } from "../../../src/build/manual/attributes.ts";
import { argument, prose } from "../../../src/build/manual/mdoc.ts";
import { readModuleSources } from "../../../src/build/manual/module_sources.ts";
import { pages } from "../../../src/build/manual/pages.ts";
import { ramdiskOptions } from "../../../src/build/manual/ramdisk_options.ts";
import { readItems } from "../../../src/command/command.ts";
import { COMMANDS } from "../../../src/command/commands.ts";
import { readConfig } from "../../../src/command/config.ts";
import { DISK_OPTIONS, readDisks } from "../../../src/command/disk_plan.ts";
import { DKMS_KEY } from "../../../src/command/doctor.ts";
import { HELP } from "../../../src/command/ramdisk.ts";
import { INITRD_FOLDER } from "../../../src/command/initrd.ts";
import { RUN_FOLDER, serverName } from "../../../src/command/run_folder.ts";
import { SCHEMES } from "../../../src/command/schemes.ts";
import { filters, parseFilter } from "../../../src/filters/table.ts";

const kmod = new URL("../../../kmod", import.meta.url).pathname;
const sources = readModuleSources(kmod);
const made = pages(new Date("2026-02-03T12:00:00Z"), sources);
const folder = await Deno.makeTempDir();
for (const { file, text } of made) await Deno.writeTextFile(`${folder}/${file}`, text);

async function mandoc(args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await new Deno.Command("mandoc", { args: [...args] }).output();
  const decoder = new TextDecoder();
  return decoder.decode(stdout) + decoder.decode(stderr);
}

/** A page as it is read, without marks and line breaks. */
async function read(file: string): Promise<string> {
  const text = await mandoc(["-T", "ascii", `${folder}/${file}`]);
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/.\x08/g, "").replaceAll(/\s+/g, " ");
}

const squeezed = (text: string) => text.replaceAll("…", "...").replaceAll(/\s+/g, " ").replaceAll("`", "`");

for (const { file, text } of made) {
  Deno.test(`mandoc has nothing to say about ${file}`, async () => {
    const said = await mandoc(["-T", "lint", "-I", "os=Debian", `${folder}/${file}`]);
    // Whether other pages are installed here is nothing about this one.
    const lines = said.split("\n").filter((line) =>
      line !== "" && !/referenced manual not found|outdated mandoc.db/.test(line)
    );
    assertEquals(lines, []);
    assertStringIncludes(text, ".Dd February 3, 2026");
  });
}

Deno.test("mandoc would have something to say", async () => {
  await Deno.writeTextFile(`${folder}/wrong.1`, made[0]!.text.replace(".El", ""));
  assert((await mandoc(["-T", "lint", `${folder}/wrong.1`])).includes("WARNING"));
});

Deno.test("dblock(1) has each subcommand, option, kind of disk and filter, as --help has them", async () => {
  const page = await read("dblock.1");
  for (const { name, summary, options, examples } of COMMANDS) {
    assertStringIncludes(page, `dblock ${name}`);
    assertStringIncludes(page.toLowerCase(), squeezed(summary).toLowerCase());
    for (const option of options) assertStringIncludes(page, `--${option.name}`);
    for (const { words } of examples) assertStringIncludes(page, squeezed(`dblock ${words}`));
  }
  for (const { form, parameters } of SCHEMES) {
    assertStringIncludes(page, squeezed(form));
    for (const { name } of parameters) assertStringIncludes(page, `?${name}`);
  }
  for (const [name, { example, options }] of Object.entries(filters)) {
    assertStringIncludes(page, `--with ${example}`, name);
    for (const [option, { value }] of Object.entries(options)) assertStringIncludes(page, `${option}=${value}`);
  }
});

Deno.test("dblock-ramdisk(1) has each option of --help with its words, and dblock.conf(5) each of a disk", async () => {
  const [ramdisk, conf] = [await read("dblock-ramdisk.1"), await read("dblock.conf.5")];
  const names = [...HELP.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map((match) => match[1]!);
  assertEquals(ramdiskOptions().map(({ name }) => name), names);
  assert(names.length > 10);
  for (const { name, value, text } of ramdiskOptions()) {
    assertStringIncludes(ramdisk, `--${name}${value === undefined ? "" : ` ${value}`}`);
    assertStringIncludes(ramdisk.toLowerCase(), squeezed(text).toLowerCase());
  }
  for (const { name } of DISK_OPTIONS) assertStringIncludes(conf, `--${name}`);
});

Deno.test("dblock(4) has the parameters, files and calls of the module's sources", async () => {
  const page = await read("dblock.4");
  const { parameters, attributes, calls, states } = sources;
  assertEquals(parameters.map(({ name }) => name).sort(), ["debug", "max_devices", "poll_us"]);
  assertEquals([attributes.length > 25, calls.length, states.includes("held")], [true, 10, true]);
  for (const { name, text } of parameters) for (const part of [name, text]) assertStringIncludes(page, squeezed(part));
  for (const { name, text } of attributes) {
    assertStringIncludes(page.toLowerCase(), `${name} ${squeezed(text).toLowerCase()}`);
  }
  assertEquals(Object.keys(ATTRIBUTES), attributes.map(({ name }) => name));
  for (const { name, text } of calls) {
    assertStringIncludes(page, name);
    assert(text.length > 5, name);
  }
});

Deno.test("the manual says how a key is enrolled for Secure Boot, and where servers can be asked", async () => {
  assertStringIncludes(await read("dblock.4"), `SECURE BOOT Under Secure Boot`);
  assertStringIncludes(await read("dblock.4"), `sudo mokutil --import ${DKMS_KEY}`);
  assertStringIncludes(await read("dblock.1"), `${RUN_FOLDER}/${serverName(7)}.sock`.replace("7", "PID"));
});

Deno.test("the manual says how /usr moves to a disk, and what an initial ramdisk starts", async () => {
  const page = await read("dblock.1");
  for (const part of ["update-initramfs -u", "--initrd </dev/null", `${INITRD_FOLDER}/NAME`]) {
    assertStringIncludes(page, part);
  }
});

Deno.test("each example of a disk can be read: files of /etc/dblock, SPECs that are put into them, filters", async () => {
  const read = { files: 0, specs: 0, filters: 0 };
  for (const { text } of made) {
    for (const [, block = ""] of text.matchAll(/^\.Bd -literal.*\n([^]*?)\n\.Ed$/gm)) {
      const example = block.replaceAll("\\&", "").replaceAll("\\-", "-").replaceAll("\\e", "\\");
      for (const [, filter = ""] of example.matchAll(/--with (\S+)/g)) {
        parseFilter(filter);
        read.filters++;
      }
      for (const [, spec = ""] of example.matchAll(/^echo "(.*)" >\/etc\/dblock\//gm)) {
        readDisks(readItems([spec], DISK_OPTIONS));
        read.specs++;
      }
      const [, name] = /^# \/etc\/dblock\/(\w+)\n/.exec(example) ?? [];
      if (name === undefined) continue;
      await Deno.writeTextFile(`${folder}/${name}`, example);
      assertEquals(readConfig(`${folder}/${name}`).map(({ exits }) => exits), [[{ kind: "device", name }]]);
      read.files++;
    }
  }
  assertEquals(read, { files: 4, specs: 1, filters: Object.keys(filters).length + 2 });
});

Deno.test("what would be a macro, a sentence's end or an escape stands in the page as it is", () => {
  assertEquals(argument("NAME"), "NAME");
  assertEquals([argument("Xr"), argument("."), argument("two words")], ["\\&Xr", "\\&.", '"two words"']);
  assertEquals(prose("It ends. Next\n .dot \\x"), "It ends.\nNext .dot \\ex");
  assertEquals(prose(`${"x".repeat(70)} word .dot`), `${"x".repeat(70)} word\n\\&.dot`);
});
