// Kills of dblock-ramdisk under load, policy hold, store kept: no write that was acknowledged is lost. Who says so is a
// process of its own, which logs each acknowledgement and reads everything back (oracle_main.ts). Hard case A2.
// Not covered: a crash of the machine, which takes the store with it.
// time limit: 300 s
import { assert, assertEquals } from "@std/assert";
import { figure, scaled } from "./harness.ts";
import { fillBlock, lastWrites, type OracleReport } from "./oracle_main.ts";
import { Servers } from "./recovery.ts";

const kills = scaled(12);
const blockBytes = 4096;
const blocks = 8192;
const logFile = "/dev/shm/acknowledged.log";
const script = "tests/device/oracle_main.ts";

Deno.test(`${kills} kills under load lose no acknowledged write`, async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  await using servers = new Servers("oracle0", ["--size", "32M", "--on-death", "hold"]);
  let server = await servers.start();
  const oracle = new Deno.Command("deno", {
    args: ["run", "-A", "--no-check", script, servers.path, logFile, String(blocks), String(seed)],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  for (let kill = 0; kill < kills; kill++) {
    await servers.untilWritten(50 + Math.floor(Math.random() * 200));
    await servers.kill(server);
    server = await servers.start();
  }
  await servers.untilWritten(100);
  const { death_count, replayed_count, error_count } = servers.info();
  await oracle.stdin.close();
  const { stdout } = await oracle.output();
  const report = JSON.parse(new TextDecoder().decode(stdout)) as OracleReport;
  figure({
    "kills under load": death_count,
    "writes acknowledged": report.acknowledged,
    "writes replayed": replayed_count,
    "acknowledged writes lost": report.lost,
    "longest write": [report.longestMs / 1000, "s"],
  });
  assertEquals([death_count, error_count, report.errors, report.lost], [kills, 0, 0, 0]);
  assert(replayed_count > 0, "no kill met a write in the server's hands");
  assert(report.checked > 100, `the oracle checked ${report.checked} blocks only`);

  // What is in the store when nobody serves it is the same.
  await servers.kill(server);
  const store = await Deno.readFile(servers.store);
  const expected = new Uint32Array(blockBytes / 4);
  const last = lastWrites(await Deno.readFile(logFile));
  for (const [block, sequence] of last) {
    fillBlock(expected, block, sequence, seed);
    const found = new Uint32Array(store.buffer, block * blockBytes, blockBytes / 4);
    assert(expected.every((word, i) => word === found[i]), `block ${block} is not in the store`);
  }
  await Deno.remove(logFile);
});
