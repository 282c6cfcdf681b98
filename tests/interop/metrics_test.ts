// SPDX-License-Identifier: MIT
// Figures for Prometheus: what fio did over NBD, to the request; checked by promtool, and scraped by a real prometheus. The
// alert rules and the Grafana board name nothing that is not there.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exposition } from "../../src/command/metrics.ts";
import { Meter } from "../../src/disk/meter.ts";
import { madeUpDisk } from "../unit/command/made_up_disk.ts";
import { Background, run } from "./tools.ts";

const program = new URL("../../src/command/main.ts", import.meta.url).pathname;
const deno = Deno.execPath();
const monitoring = new URL("../../src/build/monitoring/", import.meta.url).pathname;
const dir = await Deno.makeTempDir();
Deno.test.afterAll(() => Deno.remove(dir, { recursive: true }));

/** A server with a file behind a cache, its figures on a unix socket. */
async function served(name: string, ...words: string[]) {
  const [disk, nbd, socket] = [`${dir}/${name}.img`, `${dir}/${name}.nbd`, `${dir}/${name}.metrics`];
  await Deno.writeFile(disk, new Uint8Array(0));
  await Deno.truncate(disk, 64 * 2 ** 20);
  const spec = `${disk}?raw`;
  const all = ["run", "-A", "--no-check", program, "serve", spec, "--nbd", `unix:${nbd}`, ...words];
  const server = new Background(deno, [...all, "--metrics", `unix:${socket}`]);
  await server.listens(socket);
  const scrape = () => run("curl", ["-sS", "--fail", "--unix-socket", socket, "http://localhost/metrics"]);
  return { server, scrape, nbd, spec, socket };
}

/** The value of a sample whose labels are among others. */
function sample(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
  const lines = text.split("\n").filter((line) =>
    line.startsWith(`${name}{`) &&
    Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`))
  );
  assert(lines.length <= 1, `${name} ${JSON.stringify(labels)} is there ${lines.length} times`);
  return lines[0] === undefined ? undefined : Number(lines[0].slice(lines[0].lastIndexOf(" ")));
}

interface Direction {
  readonly total_ios: number;
  readonly io_bytes: number;
}
interface FioJob {
  readonly read: Direction;
  readonly write: Direction;
  readonly trim: Direction;
  readonly sync: Direction;
}

async function fio(nbd: string, ...words: string[]): Promise<FioJob> {
  const uri = `nbd+unix:///?socket=${nbd}`;
  const args = ["--name=load", "--ioengine=nbd", `--uri=${uri}`, "--size=64M", "--output-format=json", ...words];
  const said = await run("fio", args);
  const { jobs } = JSON.parse(said.slice(said.indexOf("{"))) as { readonly jobs: readonly FioJob[] };
  return jobs[0]!;
}

Deno.test("counters are fio's to the request, histograms count each, and promtool has nothing to say", async () => {
  const one = await served("counted", "--with", "cache", "--with", "retry");
  await using _server = one.server;
  const small = await fio(one.nbd, "--rw=randrw", "--bs=4k", "--number_ios=3000", "--iodepth=8", "--fsync=100");
  const large = await fio(one.nbd, "--rw=randrw", "--bs=128k", "--number_ios=300", "--iodepth=4");
  const trims = await fio(one.nbd, "--rw=randtrim", "--bs=64k", "--number_ios=50");
  const text = await one.scrape();
  const counted = (name: string) => sample(text, name);
  assertEquals(counted("dblock_reads_completed_total"), small.read.total_ios + large.read.total_ios);
  assertEquals(counted("dblock_writes_completed_total"), small.write.total_ios + large.write.total_ios);
  assertEquals(counted("dblock_read_bytes_total"), small.read.io_bytes + large.read.io_bytes);
  assertEquals(counted("dblock_written_bytes_total"), small.write.io_bytes + large.write.io_bytes);
  assertEquals(counted("dblock_discards_completed_total"), trims.trim.total_ios);
  assertEquals(counted("dblock_discarded_bytes_total"), trims.trim.io_bytes);
  // fio may flush once more at its end than it counts.
  assert(counted("dblock_flush_requests_total")! >= small.sync.total_ios && small.sync.total_ios > 10);
  for (const [size, { read, write }] of [["4KiB", small], ["1MiB", large]] as const) {
    for (const [operation, { total_ios }] of [["read", read], ["write", write]] as const) {
      const labels = { operation, size };
      assertEquals(sample(text, "dblock_request_duration_seconds_count", labels), total_ios, `${operation} ${size}`);
      assertEquals(sample(text, "dblock_request_duration_seconds_bucket", { ...labels, le: "+Inf" }), total_ios);
      assert(sample(text, "dblock_request_duration_seconds_sum", labels)! > 0);
    }
  }
  assertEquals(counted("dblock_backend_retries_total"), 0);
  assert(counted("dblock_backend_cache_missed_bytes_total")! > 0);
  const file = `${dir}/scraped.txt`;
  await Deno.writeTextFile(file, text);
  assertEquals(await run("sh", ["-c", `promtool check metrics <${file} 2>&1`]), "");
  // The same from the machine's endpoint, which asks each server.
  const machine = await run(deno, ["run", "-A", "--no-check", program, "metrics"]);
  assertEquals(
    sample(machine, "dblock_reads_completed_total", { disk: one.spec }),
    counted("dblock_reads_completed_total"),
  );
});

Deno.test("promtool has nothing to say about disks of the module: live, dead, with histograms and with times", async () => {
  const meter = new Meter();
  for (const operation of ["read", "write"] as const) {
    meter.addTime(meter.count(operation, 0, 4096, 0, 2 ** 20), 0.5, 1);
    meter.addTime(meter.count(operation, 0, 4096, 5, 2 ** 20), 0.5, 1);
  }
  const kernel = { readSeconds: 1.5, writeSeconds: 2.5, discardSeconds: 0, flushSeconds: 1e-9, busySeconds: 1e9 };
  const counted = {
    error_count: 3,
    death_count: 1,
    replayed_count: 7,
    quarantined_count: 1,
    requests: [1, 2, 3, 4, 5],
  };
  const figure = { name: "own_things_total", help: "Things.", value: 1 };
  const text = exposition([
    madeUpDisk({ name: "live", ...counted }, { kernel, spec: 'a "b"\\', meter: meter.report(), own: [figure, figure] }),
    madeUpDisk({ name: "held", state: 3, server_pid: 0 }, { kernel }),
    { disk: "export", transport: "nbd", sizeBytes: 512, meter: meter.report(), own: [] },
  ]);
  assertEquals(sample(text, "dblock_replayed_requests_total", { disk: "live" }), 7);
  const file = `${dir}/made-up.txt`;
  await Deno.writeTextFile(file, text);
  assertEquals(await run("sh", ["-c", `promtool check metrics <${file} 2>&1`]), "");
});

Deno.test("errors are counted by errno, and are no completed requests", async () => {
  const one = await served("faulty", "--with", "fault=operations=read,share=100%,errno=ENOSPC");
  await using _server = one.server;
  const failing = new Deno.Command("nbdsh", {
    args: ["-u", `nbd+unix:///?socket=${one.nbd}`, "-c", "h.pread(4096, 0)"],
    env: { PATH: `/usr/bin:/bin:${Deno.env.get("PATH")}` },
    stdout: "null",
    stderr: "null",
  });
  for (let i = 0; i < 3; i++) assert(!(await failing.output()).success);
  const text = await one.scrape();
  assertEquals(sample(text, "dblock_request_errors_total", { operation: "read", errno: "ENOSPC" }), 3);
  assertEquals(sample(text, "dblock_reads_completed_total"), 0);
  assertEquals(sample(text, "dblock_request_duration_seconds_count", { operation: "read" }), 3);
});

/** What the panels of the Grafana board ask, with its variables as Grafana puts them in. */
async function boardExpressions(): Promise<string[]> {
  const { panels } = JSON.parse(await Deno.readTextFile(`${monitoring}dblock-grafana.json`)) as {
    readonly panels: readonly { readonly targets: readonly { readonly expr: string }[] }[];
  };
  const all = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  return all.map((expr) => expr.replaceAll("$disk", ".+").replaceAll("$__rate_interval", "1m"));
}

Deno.test("a prometheus scrapes it, loads the alert rules, and understands what each panel of the board asks", async () => {
  const one = await served("scraped");
  await using _server = one.server;
  const load = await fio(one.nbd, "--rw=randread", "--bs=4k", "--number_ios=500");
  // Prometheus asks by TCP: the machine's endpoint has the disk as well.
  const words = ["run", "-A", "--no-check", program, "metrics", "127.0.0.1:0", "--token", `${dir}/token`];
  await Deno.writeTextFile(`${dir}/token`, "a secret of the test\n".replaceAll(" ", "-"), { mode: 0o600 });
  const endpoint = new Deno.Command(deno, { args: words, stdout: "piped", stderr: "inherit" }).spawn();
  const reader = endpoint.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  while (!said.includes("\n")) said += (await reader.read()).value ?? "\n";
  const [, address = ""] = /^http:\/\/(127\.0\.0\.1:\d+)\/metrics is ready/.exec(said) ?? [];
  assertMatch(address, /:/, said);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const own = `127.0.0.1:${(listener.addr as Deno.NetAddr).port}`;
  listener.close();
  await Deno.writeTextFile(
    `${dir}/prometheus.yml`,
    `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: ["${monitoring}dblock.rules.yml"]
scrape_configs:
  - job_name: dblock
    authorization: { credentials_file: ${dir}/token }
    static_configs: [{ targets: ["${address}"] }]
`,
  );
  const prometheus = new Background("prometheus", [
    `--config.file=${dir}/prometheus.yml`,
    `--storage.tsdb.path=${dir}/tsdb`,
    `--web.listen-address=${own}`,
    "--log.level=error",
  ]);
  try {
    const ask = async (path: string) => {
      try {
        return await (await fetch(`http://${own}/api/v1/${path}`)).json();
      } catch {
        return undefined; // not there yet
      }
    };
    const query = `query?query=${encodeURIComponent(`dblock_reads_completed_total{disk="${one.spec}"}`)}`;
    const begun = performance.now();
    let value: string | undefined;
    while (value === undefined && performance.now() - begun < 120_000) {
      value = (await ask(query))?.data.result[0]?.value[1];
      if (value === undefined) await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assertEquals(Number(value), load.read.total_ios);
    assertEquals((await ask("targets")).data.activeTargets.map(({ health }: { health: string }) => health), ["up"]);
    const { data } = await ask("rules");
    const rules: { name: string; health: string }[] = data.groups[0].rules;
    for (const expression of await boardExpressions()) {
      const answer = await ask(`query?query=${encodeURIComponent(expression)}`);
      assertEquals(answer?.status, "success", `${expression}: ${answer?.error}`);
    }
    assert(rules.length >= 7 && rules.every(({ health }) => health !== "err"), JSON.stringify(rules));
  } finally {
    await prometheus.kill("KILL");
    endpoint.kill("SIGTERM");
    while (!(await reader.read()).done);
    assertEquals((await endpoint.status).code, 0);
  }
});

Deno.test("each alert fires when it should, once and with its words, and is silent otherwise", async () => {
  const [rules, tests] = ["dblock.rules.yml", "alerts.test.yml"];
  await Deno.copyFile(`${monitoring}${rules}`, `${dir}/${rules}`);
  await Deno.copyFile(new URL(tests, import.meta.url), `${dir}/${tests}`);
  await run("promtool", ["test", "rules", `${dir}/${tests}`]);
  const named = (text: string, key: string) =>
    new Set([...text.matchAll(new RegExp(`${key}: (\\w+)$`, "gm"))].map(([, one]) => one!));
  const there = named(await Deno.readTextFile(`${dir}/${rules}`), "alert");
  assertEquals([...named(await Deno.readTextFile(`${dir}/${tests}`), "alertname")].sort(), [...there].sort());
});

Deno.test("promtool accepts the alert rules; rules and the Grafana board name only figures that exist", async () => {
  const rules = `${monitoring}dblock.rules.yml`;
  assertMatch(await run("promtool", ["check", "rules", rules]), /SUCCESS: \d+ rules found/);
  const board = await Deno.readTextFile(`${monitoring}dblock-grafana.json`);
  const { panels } = JSON.parse(board) as { readonly panels: readonly { readonly targets: readonly unknown[] }[] };
  assert(panels.length >= 6 && panels.every(({ targets }) => targets.length > 0));
  // What metrics.ts can say, and what backends say of themselves.
  const sources = await Promise.all(
    ["command/metrics.ts", "backends/mirror_status.ts", "filters/cache.ts", "filters/retry.ts"]
      .map((path) => Deno.readTextFile(new URL(`../../src/${path}`, import.meta.url))),
  );
  const known = new Set([
    ...sources[0]!.matchAll(/"(dblock_[a-z_]+)"/g).map(([, name]) => name!),
    ...sources.slice(1).join("").matchAll(/name: "([a-z_]+)"/g).map(([, name]) => `dblock_backend_${name}`),
  ]);
  const text = await Deno.readTextFile(rules) + board;
  const named = new Set(
    [...text.matchAll(/\bdblock_[a-z_]+/g)].map(([name]) => name.replace(/_(bucket|sum|count)$/, "")),
  );
  assert(named.size >= 15, [...named].join(" "));
  assertEquals([...named].filter((name) => !known.has(name)), []);
});
