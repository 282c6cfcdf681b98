// SPDX-License-Identifier: MIT
// What `dblock serve --nbd` says of its address. That the disks are served is tests/interop and watch_nbd_test.ts.
import { assertEquals, assertMatch } from "@std/assert";
import { readItems } from "../../../src/command/command.ts";
import { DISK_OPTIONS, readDisks } from "../../../src/command/disk_plan.ts";
import { startAll } from "../../../src/command/serve_disks.ts";
import { Sockets, startServers } from "../../../src/command/serve_nbd.ts";
import { splitWords } from "../../../src/command/words.ts";

/** What is said on standard error while disks are served to NBD clients. */
async function complaintsOf(words: string): Promise<string[]> {
  const complaints: string[] = [];
  const print = console.error;
  console.error = (line: string) => void complaints.push(line);
  try {
    const plans = readDisks(readItems(splitWords(words), DISK_OPTIONS));
    using sockets = await Sockets.open(plans);
    const stop = new AbortController();
    const disks = await startAll(plans, stop, { signal: stop.signal });
    const servers = await startServers(disks, sockets, stop.signal);
    await Promise.all(servers.map(({ server }) => server.close()));
  } finally {
    console.error = print;
  }
  return complaints;
}

Deno.test("a disk that other machines can write is served with a line that says so, and what to type", async () => {
  const [line, ...more] = await complaintsOf("memory:1MiB --nbd 0.0.0.0:0 null:1MiB --nbd 0.0.0.0:0");
  assertMatch(
    line!,
    /^0\.0\.0\.0:\d+: whoever can reach this address can read and write memory:1MiB and null:1MiB, .* --nbd 127\.0\.0\.1:\d+, .*--read-only$/,
  );
  assertEquals([more, line!.includes("\n")], [[], false]);
  // The disk that can be written is the one that is named.
  const [mixed] = await complaintsOf("memory:1MiB --read-only --nbd 0.0.0.0:0 null:1MiB --nbd 0.0.0.0:0");
  assertMatch(mixed!, /can read and write null:1MiB, as/);
});

for (
  const words of [
    "memory:1MiB --nbd 127.0.0.1:0",
    "memory:1MiB --nbd localhost:0",
    "memory:1MiB --read-only --nbd 0.0.0.0:0",
  ]
) {
  Deno.test(`nothing is said of the address of "${words}"`, async () => {
    assertEquals(await complaintsOf(words), []);
  });
}
