// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";
import { dblock_info } from "../../../src/module/abi.ts";
import { averageBatch, counted, formatDevice, jsonOf } from "../../../src/command/listing.ts";
import { inWords } from "../../../src/module/info.ts";
import { decode, encode } from "../../../src/system/struct.ts";

const info = inWords(decode(
  dblock_info,
  encode(dblock_info, {
    name: "a",
    size_bytes: 2 ** 28,
    queue_count: 2,
    queue_depth: 128,
    timeout_ms: 30_000,
    on_death: 2,
    state: 2,
    open_count: 1,
    server_pid: 42,
    attached_count: 2,
    waiting_count: 1,
    handed_count: 3,
    death_count: 2,
    requests: [1000, 20, 3, 0, 0],
    bytes: [2 ** 22, 81920, 0, 0, 0],
    replayed_count: 5,
    error_count: 1,
    batch_count: 100,
    handed_total: 1028,
    leave_count: 7,
  }),
));

Deno.test("formatDevice() says everything an operator asks, in four lines", () => {
  assertEquals(
    formatDevice(info),
    `/dev/a: live, 256 MiB, 2 queues of 128, served by process 42, open 1
  on death hold, timeout 30 s; 2 dead, 7 left, 5 replayed, 0 timed out, 0 stale, 0 refused, 1 error
  done: read 1000 (4 MiB), write 20 (80 KiB), flush 3, discard 0, write zeroes 0
  now: 4 in flight (1 waiting, 3 handed out, 0 at its file), 0 quarantined; average batch 10.3`,
  );
  const idle = formatDevice({
    ...info,
    server: undefined,
    state: "held",
    timeoutMs: 0,
    counts: { ...info.counts, batches: 0, handedOut: 0 },
  });
  for (const part of ["/dev/a: held, ", ", no server, ", ", no timeout; ", "average batch 0.0"]) {
    assertEquals(idle.includes(part), true, part);
  }
});

Deno.test("jsonOf() has all that DeviceInfo has, under its names", () => {
  assertEquals(JSON.parse(jsonOf([info])), [JSON.parse(JSON.stringify(info))]);
  const [one] = JSON.parse(jsonOf([info])) as [Record<string, unknown>];
  assertEquals([one["path"], one["state"], one["onDeath"], one["sizeBytes"]], ["/dev/a", "live", "hold", 2 ** 28]);
  assertEquals(jsonOf([]), "[]");
});

Deno.test("counted() and averageBatch() at 0, 1 and 2", () => {
  assertEquals([0, 1, 2].map((count) => counted(count, "queue")), ["0 queues", "1 queue", "2 queues"]);
  assertEquals([averageBatch({ counts: { ...info.counts, batches: 0 } }), averageBatch(info)], [0, 10.28]);
});
