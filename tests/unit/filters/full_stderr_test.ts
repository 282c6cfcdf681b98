// SPDX-License-Identifier: MIT
/** What filters do in a program whose standard error takes nothing: the disk goes on, and a request keeps its own answer. */
import { assertEquals } from "@std/assert";

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href);

/** Runs a program with /dev/full as its standard error, and returns its exit code and what it said on standard output. */
async function runWithFullStderr(code: string): Promise<{ readonly code: number; readonly said: string }> {
  const program = `
    import { requestOptions } from ${source("disk/request.ts")};
    import { PlayedDisk } from ${source("disk/testing.ts")};
    import { parseFilter } from ${source("filters/table.ts")};
    const plain = requestOptions();
    const disk = new PlayedDisk({ sizeBytes: 65536 });
    try { console.error("a line"); console.log("there is room on standard error"); } catch { /* as it has to be */ }
    ${code}`;
  const run = [Deno.execPath(), "run", "-A", "--no-check", `data:text/javascript,${encodeURIComponent(program)}`];
  const output = await new Deno.Command("sh", { args: ["-c", 'exec "$0" "$@" 2>/dev/full', ...run] }).output();
  return { code: output.code, said: new TextDecoder().decode(output.stdout) };
}

Deno.test("log: requests succeed although standard error takes no line", async () => {
  const ran = await runWithFullStderr(`
    const filter = await parseFilter("log").wrap(disk);
    await filter.write(new Uint8Array(512).fill(7), 512, plain);
    await filter.read(new Uint8Array(512), 512, plain);
    await filter.flush(plain);
    await filter.close("destroyed");
    console.log(disk.content[512], disk.closings.join());`);
  assertEquals(ran, { code: 0, said: "7 destroyed\n" });
});

Deno.test("log: requests and close succeed although neither the file nor standard error takes a line", async () => {
  const ran = await runWithFullStderr(`
    const filter = await parseFilter("log=file=/dev/full").wrap(disk);
    await filter.write(new Uint8Array(512).fill(7), 512, plain);
    // The line has failed before the next request comes.
    await new Promise((resolve) => setTimeout(resolve, 50));
    await filter.read(new Uint8Array(512), 512, plain);
    await filter.close("destroyed");
    console.log(disk.content[512], disk.closings.join());`);
  assertEquals(ran, { code: 0, said: "7 destroyed\n" });
});

for (const words of ["stats", "stats=file=/dev/full"]) {
  Deno.test(`${words}: a program goes on after SIGUSR2, and closes, although nothing takes its report`, async () => {
    const ran = await runWithFullStderr(`
      const filter = await parseFilter("${words}").wrap(disk);
      const heard = new Promise((resolve) => Deno.addSignalListener("SIGUSR2", resolve));
      Deno.kill(Deno.pid, "SIGUSR2");
      await heard;
      await filter.read(new Uint8Array(512), 0, plain);
      await filter.close("destroyed");
      console.log(disk.closings.join());
      Deno.exit(0); // the listener of this program keeps it alive`);
    assertEquals(ran, { code: 0, said: "destroyed\n" });
  });
}

Deno.test("checksum: a flipped bit is EILSEQ although standard error takes no line", async () => {
  const path = await Deno.makeTempFile();
  await Deno.remove(path);
  try {
    const ran = await runWithFullStderr(`
      const filter = await parseFilter("checksum=file=${path}").wrap(disk);
      await filter.write(new Uint8Array(4096).fill(7), 0, plain);
      disk.content[99] ^= 1;
      console.log(await filter.read(new Uint8Array(4096), 0, plain).catch((error) => error.code));
      await filter.close("destroyed");`);
    assertEquals(ran, { code: 0, said: "EILSEQ\n" });
  } finally {
    for (const file of [path, `${path}-intent`]) await Deno.remove(file);
  }
});
