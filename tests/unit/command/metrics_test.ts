// SPDX-License-Identifier: MIT
/** What `dblock metrics` prints, where it listens, and who may ask. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { NullBackend } from "../../../src/backends/null.ts";
import { UsageError } from "../../../src/command/cli.ts";
import { Exposition } from "../../../src/command/exposition.ts";
import { Measured } from "../../../src/command/figures.ts";
import { formatHttpAddress, parseHttpAddress, planHttp, serveHttp } from "../../../src/command/http.ts";
import { readCommandLine } from "../../../src/command/main.ts";
import { exposition } from "../../../src/command/metrics.ts";
import type { Figure } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { Meter } from "../../../src/disk/meter.ts";
import { madeUpDisk } from "./made_up_disk.ts";

Deno.test("families are in one piece, labels are quoted, and a sample that is there twice stays the first one", () => {
  const out = new Exposition();
  out.counter("a_total", 'a "b"\\\n', { disk: 'x"\\\n' }, 1);
  out.gauge("b", "bb", {}, Infinity);
  out.counter("a_total", "", { disk: "y" }, 2 ** 60);
  out.counter("a_total", "", { disk: "y" }, 3);
  out.histogram("h_seconds", "hh", { disk: "z" }, { upTo: [[0.5, 1], [Infinity, 4]], sum: 9.25 });
  assertEquals(out.text().split("\n"), [
    '# HELP a_total a "b"\\\\\\n',
    "# TYPE a_total counter",
    'a_total{disk="x\\"\\\\\\n"} 1',
    `a_total{disk="y"} ${2 ** 60}`,
    "# HELP b bb",
    "# TYPE b gauge",
    "b +Inf",
    "# HELP h_seconds hh",
    "# TYPE h_seconds histogram",
    'h_seconds_bucket{disk="z",le="0.5"} 1',
    'h_seconds_bucket{disk="z",le="+Inf"} 4',
    'h_seconds_sum{disk="z"} 9.25',
    'h_seconds_count{disk="z"} 4',
    "",
  ]);
});

Deno.test("a disk's histogram counts up to its count, and two backends' figures of one name are told apart", () => {
  const meter = new Meter();
  for (const ms of [0.0005, 0.003, 0.003, 20_000]) meter.addTime(meter.count("read", 0, 4096, 0, 2 ** 20), ms, 1);
  const own = [1, 2].map((value) => ({ name: "cache_bytes", help: "What is there.", value }));
  const text = exposition([{ disk: "d", transport: "nbd", sizeBytes: 2 ** 20, meter: meter.report(), own }]);
  const counts = [...text.matchAll(/^dblock_request_duration_seconds_bucket\{.*le="(.*)"\} (\d+)$/gm)]
    .map(([, bound, count]) => [bound, Number(count)]);
  assertEquals([counts[0], counts[1], counts[2], counts.at(-2)![1], counts.at(-1)], [
    ["0.000001", 1],
    ["0.000002", 1],
    ["0.000004", 3],
    3,
    ["+Inf", 4],
  ]);
  assertMatch(text, /^dblock_reads_completed_total\{disk="d",transport="nbd"\} 4$/m);
  assertMatch(text, /^dblock_backend_cache_bytes\{disk="d",transport="nbd"\} 1$/m);
  assertMatch(text, /^dblock_backend_cache_bytes\{disk="d",transport="nbd",part="2"\} 2$/m);
});

Deno.test("what the module and the block layer count of a disk is shown, each number under its own name", () => {
  const counted = {
    ...{ queue_count: 3, queue_depth: 64, open_count: 5, waiting_count: 6, handed_count: 7, quarantined_count: 8 },
    ...{ death_count: 9, error_count: 10, timeout_count: 11, stale_count: 12, refused_count: 13, replayed_count: 14 },
    ...{
      batch_count: 15,
      handed_total: 16,
      leave_count: 17,
      requests: [21, 22, 23, 24, 25],
      bytes: [31, 32, 0, 34, 35],
    },
  };
  const kernel = { readSeconds: 1.5, writeSeconds: 2.5, discardSeconds: 3.5, flushSeconds: 4.5, busySeconds: 5.5 };
  const text = exposition([
    madeUpDisk({ ...counted, name: "held", state: 3, server_pid: 0 }, { kernel, spec: "x.img" }),
    madeUpDisk({ name: "live" }),
  ]);
  const samplesOf = (disk: string) =>
    text.split("\n").filter((line) => line.includes(`disk="${disk}"`)).map((line) =>
      line.replace(`disk="${disk}",transport="dblock.ko"`, "").replace("{}", "").replace("{,", "{")
    );
  assertEquals(samplesOf("held").sort(), [
    "dblock_batches_total 15",
    "dblock_discard_time_seconds_total 3.5",
    "dblock_discarded_bytes_total 34",
    "dblock_discards_completed_total 24",
    'dblock_disk_info{spec="x.img",path="/dev/held"} 1',
    "dblock_failed_requests_total 10",
    "dblock_flush_requests_time_seconds_total 4.5",
    "dblock_flush_requests_total 23",
    "dblock_handed_out_requests_total 16",
    "dblock_io_now 13",
    "dblock_io_time_seconds_total 5.5",
    "dblock_open_handles 5",
    "dblock_queue_depth 64",
    "dblock_queues 3",
    "dblock_read_bytes_total 31",
    "dblock_read_time_seconds_total 1.5",
    "dblock_reads_completed_total 21",
    "dblock_refused_answers_total 13",
    "dblock_replayed_requests_total 14",
    "dblock_requests_handed_out 7",
    "dblock_requests_quarantined 8",
    "dblock_requests_waiting 6",
    "dblock_served 0",
    "dblock_server_deaths_total 9",
    "dblock_server_leaves_total 17",
    "dblock_size_bytes 1048576",
    "dblock_stale_answers_total 12",
    'dblock_state{state="created"} 0',
    'dblock_state{state="failed"} 0',
    'dblock_state{state="gone"} 0',
    'dblock_state{state="held"} 1',
    'dblock_state{state="live"} 0',
    'dblock_state{state="removing"} 0',
    'dblock_state{state="starting"} 0',
    "dblock_timed_out_requests_total 11",
    "dblock_write_time_seconds_total 2.5",
    "dblock_write_zeroes_completed_total 25",
    "dblock_writes_completed_total 22",
    "dblock_written_bytes_total 32",
    "dblock_zeroed_bytes_total 35",
  ]);
  const live = samplesOf("live");
  assert(live.includes("dblock_served 1") && live.includes('dblock_state{state="live"} 1'), live.join("\n"));
  assertEquals(live.filter((line) => /_time_seconds_/.test(line)), []);
});

Deno.test("a figure of a module that Prometheus could not read is left out, and the others stay", () => {
  const good = { name: "good", help: "That.", value: -1.5e-9, labels: { half: 'a "b"' } };
  const bad: unknown[] = [
    null,
    { ...good, name: "Bad-name" },
    { ...good, value: NaN },
    { ...good, value: Infinity },
    { ...good, value: 1n },
    { ...good, help: undefined },
    { ...good, labels: { shard: 3 } },
    { ...good, labels: { "a-b": "c" } },
    { ...good, labels: { __name__: "c" } },
    { ...good, labels: "abc" },
    { ...good, labels: null },
  ];
  const figures = () => [...bad, good, { ...good, name: "plain", labels: undefined }] as Figure[];
  const backend = Object.assign(new NullBackend({ sizeBytes: 512 }), { figures });
  const measured = new Measured({ disk: "d", transport: "nbd", spec: "./disk.ts" }, () => backend, undefined);
  // As a server tells it to who asks.
  const text = exposition([JSON.parse(JSON.stringify(measured.figures()))]);
  const own = text.split("\n").filter((line) => line.startsWith("dblock_backend_"));
  assertEquals(own, [
    'dblock_backend_good{disk="d",transport="nbd",half="a \\"b\\""} -1.5e-9',
    'dblock_backend_plain{disk="d",transport="nbd"} -1.5e-9',
  ]);
  const sample = /^[a-z_]+(\{([a-z_]+="([^"\\]|\\.)*",?)*\})? -?\d+(\.\d+)?(e-?\d+)?$/;
  assertEquals(text.trimEnd().split("\n").filter((line) => !line.startsWith("# ") && !sample.test(line)), []);
});

Deno.test("addresses: a port is loopback's; what others can reach takes a token; nonsense is a mistake", () => {
  const cases = {
    "9464": "127.0.0.1:9464",
    "[::1]:80": "[::1]:80",
    "unix:/x": "unix:/x",
    "localhost:1": "localhost:1",
  };
  for (const [text, formatted] of Object.entries(cases)) {
    assertEquals(formatHttpAddress(parseHttpAddress(text)), formatted);
    planHttp("--metrics", text, undefined);
  }
  for (const text of ["", "unix:", "host", "1.2.3.4:99999", "a:b:1", ":1"]) {
    assertThrows(() => parseHttpAddress(text), UsageError);
  }
  for (const text of ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:1", "127.0.0.1.example:1"]) {
    assertThrows(() => planHttp("--metrics", text, undefined), UsageError, "--token FILE");
    planHttp("--metrics", text, "/token");
  }
});

Deno.test("serve and metrics read the options, and refuse them twice, alone, or without a token", () => {
  readCommandLine(["serve", "memory:1MiB", "--metrics", "9464", "--name", "a", "memory:2MiB", "--name", "b"]);
  readCommandLine(["metrics", "0.0.0.0:1", "--token", "/token"]);
  for (
    const words of [
      ["serve", "memory:1MiB", "--metrics", "1", "--metrics", "2"],
      ["serve", "memory:1MiB", "--token", "/token"],
      ["serve", "memory:1MiB", "--metrics", "0.0.0.0:1"],
      ["metrics", "1.2.3.4:5"],
    ]
  ) assertThrows(() => readCommandLine(words), UsageError);
});

Deno.test("who asks at an address with a token shows it: in a header, or once in the address; at loopback its name", async () => {
  const tokenPath = await Deno.makeTempFile();
  const plan = { address: parseHttpAddress("127.0.0.1:0"), tokenPath };
  const answer = () => new Response("here");
  await Deno.writeTextFile(tokenPath, "short\n");
  await assertRejects(
    () => serveHttp(plan, answer),
    DblockError,
    `16 characters or more, without spaces (make one: (umask 077; openssl rand -hex 24 >${tokenPath}))`,
  );
  await Deno.writeTextFile(tokenPath, "0123456789abcdef\n");
  for (const mode of [0o644, 0o640, 0o602]) {
    await Deno.chmod(tokenPath, mode);
    const wrong = `others may read or write it: its mode is 0${mode.toString(8)} (chmod 600 ${tokenPath})`;
    await assertRejects(() => serveHttp(plan, answer), DblockError, wrong);
  }
  await Deno.chmod(tokenPath, 0o600);
  {
    await using server = await serveHttp(plan, answer);
    const ask = async (path: string, headers: HeadersInit = {}) => {
      const response = await fetch(`${server.url}${path}`, { headers, redirect: "manual" });
      return { status: response.status, headers: response.headers, text: await response.text() };
    };
    assertEquals((await ask("")).status, 401);
    assertEquals((await ask("", { authorization: "Bearer 0123456789abcdeX" })).status, 401);
    assertEquals((await ask("", { authorization: "Bearer 0123456789abcdef" })).text, "here");
    const { status, headers } = await ask("x?token=0123456789abcdef&y=1");
    assertEquals([status, headers.get("location")], [303, "/x?y=1"]);
    const [cookie = ""] = headers.getSetCookie();
    assertMatch(cookie, /HttpOnly; SameSite=Strict/);
    assertEquals((await ask("", { cookie: cookie.split(";")[0]! })).text, "here");
    // A page of somebody else's that has given its name this address.
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(server.url).port) });
    await conn.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"));
    assertMatch(await new Response(conn.readable).text(), /^HTTP\/1.1 421 /);
  }
  await Deno.remove(tokenPath);
});

Deno.test("a unix socket is its owner's alone, replaces a dead server's, refuses a live one's, and is gone afterwards", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/x.sock`;
  Deno.listen({ transport: "unix", path }).close(); // the socket stays
  const plan = { address: parseHttpAddress(`unix:${path}`) };
  {
    await using _server = await serveHttp(plan, () => new Response("here"));
    assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
    await assertRejects(() => serveHttp(plan, () => new Response()), DblockError, "Cannot listen on unix:");
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    assertEquals(await (await fetch("http://anything/", { client })).text(), "here");
  }
  await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("metrics: whoever ends it as soon as it says that it is ready finds it ended in good order", async () => {
  const dir = await Deno.makeTempDir();
  const said = console.log;
  let ready = "";
  console.log = (line: string) => {
    ready = line;
    Deno.kill(Deno.pid, "SIGTERM"); // SIGINT would be for `deno test` itself
  };
  try {
    await readCommandLine(["metrics", `unix:${dir}/socket`])();
    assertMatch(ready, /is ready/);
    assertEquals([...Deno.readDirSync(dir)], []);
  } finally {
    console.log = said;
    await Deno.remove(dir, { recursive: true });
  }
});
