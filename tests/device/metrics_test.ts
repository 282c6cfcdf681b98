// time limit: 240 s
// `dblock metrics` of disks in /dev: what fio did, to the request, whether the kernel copies or code answers; a death and
// what was handed out again; a timeout, and the request in quarantine; errors by errno. The text is promtool's business
// (interop/metrics), and each number's name is unit/command/metrics'.
import { assert, assertEquals } from "@std/assert";
import { fio } from "./fio.ts";
import { sh, waitFor } from "./harness.ts";
import { type Labels, type Samples, samplesOf } from "./samples.ts";
import { dblock, Serving } from "./serving.ts";

/** What is there now. */
async function scrape(): Promise<Samples> {
  const { status, stdout, stderr } = await dblock("metrics");
  assertEquals([status, stderr], [0, ""]);
  return samplesOf(stdout);
}

const COUNTERS = [
  "reads_completed_total",
  "read_bytes_total",
  "writes_completed_total",
  "written_bytes_total",
] as const;

/** Loads a disk with fio; what was counted of it is what fio says. */
async function countsAsFio(disk: string, { isCode, hasCache }: { isCode: boolean; hasCache: boolean }): Promise<void> {
  // Neighbours that the block layer has made one request of would be two for fio.
  await sh(`echo 2 >/sys/block/${disk}/queue/nomerges`);
  const before = await scrape();
  const job = async (words: string) => {
    const { status, jobs } = await fio(`--name=load --filename=/dev/${disk} --direct=1 --ioengine=io_uring ${words}`);
    assertEquals(status, 0);
    return jobs[0]!;
  };
  const small = await job("--rw=randrw --bs=4k --number_ios=3000 --iodepth=8");
  const large = await job("--rw=randrw --bs=128k --number_ios=300 --iodepth=4");
  // One at a time: of flushes that wait together the block layer makes one.
  const syncs = await job("--rw=randwrite --bs=64k --number_ios=200 --iodepth=1 --fsync=10");
  const trims = await job("--rw=randtrim --bs=64k --number_ios=50");
  const after = await scrape();
  const grown = (name: string, labels?: Labels) => after(disk, name, labels)! - (before(disk, name, labels) ?? 0);
  assertEquals(COUNTERS.map((name) => grown(name)), [
    small.read.total_ios + large.read.total_ios,
    small.read.io_bytes + large.read.io_bytes,
    small.write.total_ios + large.write.total_ios + syncs.write.total_ios,
    small.write.io_bytes + large.write.io_bytes + syncs.write.io_bytes,
  ], disk);
  assertEquals([grown("discards_completed_total"), grown("discarded_bytes_total")], [
    trims.trim.total_ios,
    trims.trim.io_bytes,
  ]);
  assert(syncs.sync.total_ios > 10);
  assertEquals(grown("flush_requests_total"), hasCache ? syncs.sync.total_ios : 0, disk);
  for (const [size, { read, write }] of [["4KiB", small], ["1MiB", large]] as const) {
    for (const [operation, { total_ios }] of [["read", read], ["write", write]] as const) {
      const labels = { operation, size };
      if (isCode) {
        assertEquals(grown("request_duration_seconds_count", labels), total_ios, `${disk} ${operation} ${size}`);
      } else assertEquals(after(disk, "request_duration_seconds_count", labels), undefined, disk);
    }
  }
  const completed = [
    "reads_completed_total",
    "writes_completed_total",
    "discards_completed_total",
    "flush_requests_total",
  ];
  const all = completed.reduce((sum, name) => sum + grown(name), 0);
  assertEquals(grown("handed_out_requests_total"), all);
  assert(grown("batches_total") > 0 && grown("batches_total") <= all);
  assert(
    grown("read_time_seconds_total") > 0 && grown("write_time_seconds_total") > 0 && grown("io_time_seconds_total") > 0,
  );
  const names = ["served", "queues", "io_now", "server_deaths_total", "failed_requests_total", "requests_quarantined"];
  assertEquals(names.map((name) => after(disk, name)), [1, 1, 0, 0, 0, 0]);
  assertEquals(after(disk, "state", { state: "live" }), 1);
}

Deno.test("counters are fio's to the request: memory that the kernel copies, code, and a file with a cache", async () => {
  const words = "serve memory:64MiB --name metmem memory:64MiB --name metcode --with stats " +
    "/tmp/met.img?size=64MiB&raw --name metfile --queues 1";
  await using serving = await Serving.start(words.split(" "));
  await countsAsFio("metmem", { isCode: false, hasCache: false });
  await countsAsFio("metcode", { isCode: true, hasCache: false });
  await countsAsFio("metfile", { isCode: true, hasCache: true });
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
});

Deno.test("a death is counted, and so are the requests that the next server is handed again; nobody saw an error", async () => {
  const words = "serve /tmp/metdeath.img?size=16MiB&raw --name metdeath --on-death hold".split(" ");
  await using first = await Serving.start([...words, "--with", "delay=write=3600s"]);
  const depth = 4;
  const writing = fio(
    `--name=load --filename=/dev/metdeath --direct=1 --ioengine=io_uring --rw=randwrite --bs=4k --iodepth=${depth} --number_ios=40`,
  );
  await waitFor("all writes are handed out", async () => {
    return (await scrape())("metdeath", "requests_handed_out") === depth;
  }, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  await waitFor("it is held", async () => (await scrape())("metdeath", "state", { state: "held" }) === 1, 30_000);
  const names = ["served", "server_deaths_total", "replayed_requests_total", "failed_requests_total", "io_now"];
  const held = await scrape();
  assertEquals(names.map((name) => held("metdeath", name)), [0, 1, 0, 0, depth]);
  await using second = await Serving.start(words);
  const { status, jobs: [job] } = await writing;
  assertEquals(status, 0);
  const after = await scrape();
  assertEquals(names.map((name) => after("metdeath", name)), [1, 1, depth, 0, 0]);
  assertEquals(after("metdeath", "writes_completed_total"), job!.write.total_ios);
  second.child.kill("SIGTERM");
  assertEquals((await second.end()).code, 0);
  await sh("./dblock destroy metdeath");
});

Deno.test("a timeout is counted, and its request is in quarantine; errors are counted by errno", async () => {
  const words = "serve memory:16MiB --name metlate --timeout 1 --with fault=operations=write,kind=hang,times=1 " +
    "memory:16MiB --name meterror --with fault=operations=read,offset=1MiB,length=4KiB,errno=ENOSPC";
  await using _serving = await Serving.start(words.split(" "));
  const write = await sh("dd if=/dev/zero of=/dev/metlate bs=4k count=1 oflag=direct", { check: false });
  assertEquals(write.status, 1);
  await scrape(); // servers count errors by errno from the first question on
  for (let i = 0; i < 3; i++) {
    assertEquals((await sh("dd if=/dev/meterror bs=4k count=1 skip=256 iflag=direct", { check: false })).status, 1);
  }
  const seen = await scrape();
  const names = ["timed_out_requests_total", "requests_quarantined", "failed_requests_total", "server_deaths_total"];
  assertEquals(names.map((name) => seen("metlate", name)), [1, 1, 1, 0]);
  assertEquals(names.map((name) => seen("meterror", name)), [0, 0, 3, 0]);
  assertEquals(seen("meterror", "request_errors_total", { operation: "read", errno: "ENOSPC" }), 3);
  await sh("./dblock destroy --force metlate meterror");
});
