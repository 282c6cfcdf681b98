// dblock-metrics.service on a whole Debian, as it is packaged: ready when its address answers; asked while disks of other services
// are written to, stopped (which is no death), killed and started again; an address that cannot be fails the start with the
// command's line, as does one that is taken, until it is free; a socket instead of a port; what systemd says of its sandbox.
// machine: debian
// time limit: 300 s
import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { configure, installUnit, isDebian, journalOf, override, stateOf, Units } from "./debian.ts";
import { figure, sh, waitFor } from "./harness.ts";
import { type Samples, samplesOf } from "./samples.ts";
import { dblock } from "./serving.ts";

const ignore = !isDebian();
const unit = "dblock-metrics";
const url = "http://127.0.0.1:9464/metrics";
const dropIn = `/run/systemd/system/${unit}.service.d`;
/** Of 10, which is no sandbox at all. What is left is what the unit names as what cannot be. */
const exposureMost = 2.2;

async function scrape(): Promise<Samples> {
  const response = await fetch(url);
  const text = await response.text();
  assertEquals(response.status, 200, text);
  return samplesOf(text);
}

async function property(name: string): Promise<string> {
  return (await sh(`systemctl show --property=${name} --value ${unit}`)).stdout.trim();
}

/** Writes blocks of 4 KiB, each with a request of its own. */
async function write(disk: string, blocks: number): Promise<void> {
  await sh(`dd if=/dev/zero of=/dev/${disk} bs=4k count=${blocks} oflag=direct status=none`);
}

const counters = ["served", "server_deaths_total", "server_leaves_total", "writes_completed_total"];
const written = { operation: "write", size: "4KiB" };

async function tellsOfOthers(): Promise<void> {
  // What code answers has histograms; memory is copied by the kernel.
  await configure("met0", "/srv/met0.img?size=16MiB&raw");
  await configure("met1", "memory:16MiB");
  await override("met0", "Restart=no");
  await sh(`systemctl start dblock@met0 dblock@met1 ${unit}`);
  assertEquals([await stateOf(`${unit}.service`), await property("StatusText")], ["active", url]);
  const first = await scrape();
  assertEquals(counters.map((name) => first("met0", name)), [1, 0, 0, 0]);
  assertEquals(counters.map((name) => first("met1", name)), [1, 0, 0, 0]);
  assertEquals(first("met0", "disk_info", { spec: "/srv/met0.img?size=16MiB&raw", path: "/dev/met0" }), 1);
  await write("met0", 64);
  await write("met1", 16);
  const after = await scrape();
  assertEquals(counters.map((name) => after("met0", name)), [1, 0, 0, 64]);
  assertEquals(counters.map((name) => after("met1", name)), [1, 0, 0, 16]);
  assertEquals(after("met0", "request_duration_seconds_count", written), 64);
  assertEquals(after("met1", "request_duration_seconds_count", written), undefined);

  await sh("systemctl stop dblock@met1");
  const stopped = await scrape();
  assertEquals([stopped("met1", "served"), stopped("met0", "served")], [undefined, 1]);

  await sh("systemctl kill --signal=KILL dblock@met0");
  await waitFor("it is held", async () => (await scrape())("met0", "state", { state: "held" }) === 1, 30_000);
  const held = await scrape();
  assertEquals(counters.map((name) => held("met0", name)), [0, 1, 0, 64]);
  assertEquals(held("met0", "request_duration_seconds_count", written), undefined);

  // What the dead server has left in /run/dblock is in nobody's way.
  await sh("systemctl start dblock@met0");
  const again = await scrape();
  assertEquals([again("met0", "state", { state: "live" }), ...counters.map((name) => again("met0", name))], [
    1,
    1,
    1,
    0,
    64,
  ]);
  await write("met0", 8);
  const counted = await scrape();
  assertEquals(counters.map((name) => counted("met0", name)), [1, 1, 0, 72]);
  assertEquals(counted("met0", "request_duration_seconds_count", written), 8);

  // udev looks at what was written; a read that waits in the held disk would keep it in use.
  await sh("udevadm settle; systemctl stop dblock@met0");
  const left = await scrape();
  assertEquals(
    [left("met0", "state", { state: "held" }), ...counters.map((name) => left("met0", name))],
    [1, 0, 1, 1, 72],
  );
  const destroyed = await dblock("destroy met0");
  assertEquals([destroyed.status, destroyed.stderr], [0, ""]);
  assertEquals((await scrape())("met0", "served"), undefined);
  await sh(`systemctl stop ${unit}`);
  assertEquals([await stateOf(`${unit}.service`), await property("Result")], ["inactive", "success"]);
}

/** The service's address, as `systemctl edit` would change it. */
async function address(words: string): Promise<void> {
  await sh(`mkdir -p ${dropIn}`);
  await Deno.writeTextFile(
    `${dropIn}/address.conf`,
    `[Service]\nExecStart=\nExecStart=/usr/bin/dblock metrics ${words}\n`,
  );
  await sh(`systemctl daemon-reload; systemctl reset-failed ${unit}`, { check: false });
}

/** Starts it in vain. @returns what the command said since */
async function saidInVain(): Promise<string[]> {
  const before = (await journalOf(unit)).length;
  assertNotEquals((await sh(`systemctl start ${unit}`, { check: false })).status, 0);
  return (await journalOf(unit)).slice(before).split("\n").filter((line) => line.startsWith("dblock "));
}

async function failsInALine(): Promise<void> {
  for (
    const [words, said] of [
      ["127.0.0.1:99999", /^dblock metrics: "127\.0\.0\.1:99999" is not an address \(write it like/],
      ["0.0.0.0:9464", /^dblock metrics: .*can be reached from other machines: .* --token FILE/],
    ] as const
  ) {
    await address(words);
    const lines = await saidInVain();
    assertEquals(lines.length, 1, lines.join("\n"));
    assertMatch(lines[0]!, said);
    assertEquals([await stateOf(`${unit}.service`), await property("NRestarts")], ["failed", "0"]);
    assertEquals(await property("ExecMainStatus"), "2");
  }
  await sh(`rm -r ${dropIn}; systemctl daemon-reload; systemctl reset-failed ${unit}`);
  {
    using _taken = Deno.listen({ hostname: "127.0.0.1", port: 9464 });
    const lines = await saidInVain();
    assertEquals(lines.length, 1, lines.join("\n"));
    assertMatch(
      lines[0]!,
      /^dblock metrics: Cannot listen on 127\.0\.0\.1:9464: another server has it \(take another address\)$/,
    );
  }
  await waitFor("the address is free, and the service is back", async () => {
    return await stateOf(`${unit}.service`) === "active";
  }, 30_000);
  await (await fetch(url)).text();
}

async function listensOnASocket(): Promise<void> {
  await address("unix:/run/dblock-metrics/socket");
  await sh(`systemctl restart ${unit}`);
  using conn = await Deno.connect({ transport: "unix", path: "/run/dblock-metrics/socket" });
  await conn.write(new TextEncoder().encode("GET /metrics HTTP/1.0\r\n\r\n"));
  const text = await new Response(conn.readable).text();
  assertMatch(text, /^HTTP\/1\.\d 200 OK\r\n[^]*^dblock_build_info\{version="[^"]+"\} 1$/m);
  await sh(`systemctl stop ${unit}; rm -r ${dropIn}; systemctl daemon-reload`);
}

async function isInASandbox(): Promise<void> {
  const { stdout } = await sh(`systemd-analyze security --no-pager ${unit}`);
  const exposure = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1]);
  assert(exposure <= exposureMost, stdout);
  figure({ "most exposure of dblock-metrics.service": [exposure, "/10"] });
}

Deno.test({
  name: "dblock-metrics as it is packaged",
  ignore,
  async fn(t) {
    await using _installed = await installUnit();
    await using units = new Units();
    await units.write(`${unit}.service`, await Deno.readTextFile(`/project/src/build/systemd/${unit}.service`));
    await t.step("says what disks of other services do: live, written to, stopped, killed, back", tellsOfOthers);
    await t.step("a wrong address fails at once, in a line; one that is taken is had when it is free", failsInALine);
    await t.step("a socket in the service's own folder answers, too", listensOnASocket);
    await t.step("systemd finds little that it could do", isInASandbox);
  },
});
