// SPDX-License-Identifier: MIT
// Extended headers with a client of others: libnbd of a later Debian, as this machine's speaks none. Requests and extents
// beyond 4 GiB, each in one message.
import { assertEquals } from "@std/assert";
import { serveNbd } from "../../src/mod.ts";
import { newerNbdsh } from "./newer.ts";
import { SparseDisk } from "./sparse.ts";

const GIB = 2 ** 30;
const MIB = 2 ** 20;

const script = (uri: string) => `
h.add_meta_context("base:allocation")
h.connect_uri(${JSON.stringify(uri)})
assert h.get_extended_headers_negotiated()
size = h.get_size()
def spans(count, offset):
    found = []
    def f(context, at, entries, err): found.extend(entries)
    before = h.stats_chunks_sent()
    h.block_status_64(count, offset, f)
    assert h.stats_chunks_sent() == before + 1
    return found
def once(what, *args):
    before = h.stats_chunks_sent()
    what(*args)
    assert h.stats_chunks_sent() == before + 1, h.stats_chunks_sent() - before
print(spans(size, 0))
once(h.zero, 6 * 2**30, 2**30)
once(h.trim, 5 * 2**30, 9 * 2**30)
print(spans(size, 0))
h.pwrite(b"x" * 4096, 15 * 2**30)
assert h.pread(4096, 15 * 2**30) == b"x" * 4096
assert h.pread(4096, 0) == b"\\1" * 4096
h.shutdown()
`;

Deno.test("extended headers with libnbd: a status, a zero and a trim of more than 4 GiB are one request each", async () => {
  const dir = await Deno.makeTempDir();
  const disk = new SparseDisk(16 * GIB);
  const data = new Uint8Array(MIB).fill(1);
  for (const at of [0, 3 * GIB, 10 * GIB]) disk.write(data, at);
  await using server = await serveNbd({ disk }, { address: `unix:${dir}/nbd.sock` });
  const said = await newerNbdsh(script(`nbd+unix:///disk?socket=${dir}/nbd.sock`));
  const [before, after] = said.trim().split("\n").map((line) =>
    JSON.parse(line.replaceAll("(", "[").replaceAll(")", "]"))
  );
  const hole = 3;
  assertEquals(before, [
    [MIB, 0],
    [3 * GIB - MIB, hole],
    [MIB, 0],
    [7 * GIB - MIB, hole],
    [MIB, 0],
    [6 * GIB - MIB, hole],
  ]);
  assertEquals(after, [[MIB, 0], [16 * GIB - MIB, hole]]);
  assertEquals(server.exportNames, ["disk"]);
  await Deno.remove(dir, { recursive: true });
});
