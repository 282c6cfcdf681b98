import { assertEquals, assertThrows } from "@std/assert";
import { parseFio } from "../../../src/command/fio.ts";

const mixed = {
  iops: 1234.5,
  total_ios: 2469,
  runtime: 2000,
  clat_ns: { percentile: { "50.000000": 8000, "99.000000": 128_500 } },
};

/** What fio 3.33 prints, as far as it is read. */
function output(job: unknown): string {
  return JSON.stringify({
    "fio version": "fio-3.33",
    timestamp: 1_700_000_000,
    timestamp_ms: 1_700_000_000_500,
    jobs: [job],
  });
}

Deno.test("parseFio() reads rate, latencies in us, and when the run was", () => {
  assertEquals(parseFio(output({ jobname: "bench", error: 0, mixed })), {
    iops: 1234.5,
    p50Us: 8,
    p99Us: 128.5,
    beginMs: 1_699_999_998_500,
    endMs: 1_700_000_000_500,
  });
});

Deno.test("parseFio() skips the notes around the JSON", () => {
  const noted = `fio: something to say\n${output({ error: 0, mixed })}\nand more\n`;
  assertEquals(parseFio(noted).iops, 1234.5);
});

Deno.test("parseFio() refuses a job that failed, did nothing, or is not there", () => {
  assertThrows(() => parseFio(output({ error: 5, mixed })), Error, "errno 5");
  assertThrows(() => parseFio(output({ error: 0, mixed: { ...mixed, total_ios: 0 } })), Error, "did nothing");
  assertThrows(() => parseFio(output({ error: 0, read: mixed })), Error, "in one");
  assertThrows(() => parseFio("fio: unrecognized option"), Error, "unrecognized option");
});
