// SPDX-License-Identifier: MIT
// What is refused before any disk is touched: a disk that had been taken over would have no other server to go back to.
import { assertEquals, assertMatch } from "@std/assert";
import { folder } from "../backends/stores.ts";

const root = new URL("../../..", import.meta.url).pathname;

async function serve(words: readonly string[], cwd: string): Promise<{ code: number; stderr: string }> {
  const run = ["run", "-A", "--no-check", `${root}/src/command/program.ts`];
  const args = [...run, "serve", "./new.img?size=1MiB", ...words];
  const { code, stderr } = await new Deno.Command(`${root}/src/build/deno.sh`, { args, cwd }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

Deno.test("dblock serve finds that an address cannot be had before it opens a disk", async () => {
  using dir = folder();
  const path = `${dir.path}/taken.sock`;
  using _socket = Deno.listen({ transport: "unix", path });
  using port = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken = `127.0.0.1:${(port.addr as Deno.NetAddr).port}`;
  const free = `unix:${dir.path}/free.sock`;
  for (
    const [words, said] of [
      [["--nbd", `unix:${path}`], /^dblock serve: Cannot listen on .*taken\.sock: .*another server has it/],
      [["--nbd", taken], /^dblock serve: Cannot listen on 127\.0\.0\.1:\d+: .*another server has it/],
      [["--nbd", free, "--metrics", taken], /^dblock serve: Cannot listen on 127\.0\.0\.1:\d+/],
      [["--nbd", free, "--metrics", `unix:${path}`], /^dblock serve: Cannot listen on .*taken\.sock/],
      [
        ["--nbd", `unix:${dir.path}/no/x.sock`],
        /^dblock serve: Cannot listen on .*: there is no folder .*\/no \(mkdir -p /,
      ],
    ] as const
  ) {
    const { code, stderr } = await serve(words, dir.path);
    assertMatch(stderr, said);
    assertEquals([code, stderr.trimEnd().split("\n").length, names(dir.path)], [1, 1, ["taken.sock"]], words.join(" "));
  }
});

Deno.test("dblock serve ends with status 2 where a slice of a disk is typed that the disk does not have", async () => {
  using dir = folder();
  const args = ["run", "-A", "--no-check", `${root}/src/command/program.ts`, "serve", "slice:null:1MiB?offset=2MiB"];
  const nbd = ["--nbd", `unix:${dir.path}/x.sock`];
  const { code, stderr } = await new Deno.Command(`${root}/src/build/deno.sh`, { args: [...args, ...nbd] }).output();
  assertEquals(
    [code, new TextDecoder().decode(stderr)],
    [
      2,
      "dblock serve: slice:null:1MiB?offset=2MiB: Cannot take what is at 2 MiB of a disk: the disk has 1 MiB; see dblock serve --help\n",
    ],
  );
});

function names(path: string): string[] {
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}
