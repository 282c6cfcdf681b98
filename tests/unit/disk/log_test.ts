// SPDX-License-Identifier: MIT
// Failed requests in few lines, each with what it is about.
import { assertEquals } from "@std/assert";
import { ERRNO } from "../../../src/disk/errors.ts";
import { type FailureFields, FailureLog, logFrom, logOf } from "../../../src/disk/log.ts";

Deno.test("of a kind the first failure is said, and after ten seconds how many there were", () => {
  const lines: string[] = [];
  let nowMs = 0;
  const log = new FailureLog((line) => lines.push(line), () => nowMs);
  for (let i = 0; i < 1_000; i++) {
    nowMs = i * 9;
    log.add("read", ERRNO.EIO, `threw Error: sector ${i}`);
    log.add("write", ERRNO.ENOSPC, "threw ENOSPC");
  }
  assertEquals(lines.splice(0), [
    "read() of the backend threw Error: sector 0: answered EIO",
    "write() of the backend threw ENOSPC: answered ENOSPC",
  ]);
  nowMs = 12_000;
  log.add("read", ERRNO.EIO, "threw Error: sector 7");
  log.add("read", ERRNO.EIO, "threw Error: another kind");
  nowMs = 30_000;
  log.add("read", ERRNO.EIO, "threw Error: sector 8");
  assertEquals(lines.splice(0), [
    "read() of the backend threw Error: sector 7: answered EIO; 999 more in the 12 s before",
    "read() of the backend threw Error: another kind: answered EIO",
    "read() of the backend threw Error: sector 8: answered EIO",
  ]);
  nowMs = 34_000;
  for (let i = 0; i < 3; i++) log.add("read", ERRNO.EIO, "threw Error: sector 9");
  log.end();
  log.end();
  // Of "another kind" nothing has come since, and of write() what came in the first seconds is said, too.
  assertEquals(lines, [
    "read() of the backend: answered EIO; 3 more in the last 4 s",
    "write() of the backend: answered ENOSPC; 999 more in the last 34 s",
  ]);
});

Deno.test("a backend that says something else each time has a bounded number of lines, and of kinds in memory", () => {
  let lines = 0;
  const log = new FailureLog(() => lines++, () => 0);
  const letters = (i: number) => [...`${i}`].map((digit) => String.fromCharCode(97 + Number(digit))).join("");
  for (let i = 0; i < 10_000; i++) log.add("read", ERRNO.EIO, `threw Error: ${letters(i)}`);
  assertEquals(lines, 65);
});

Deno.test("a failure goes to logFailure with its disk, everything else to log; neither's own failure ends anything", () => {
  const said: (string | [string, FailureFields])[] = [];
  const fields = { operation: "read", errno: ERRNO.EIO } as const;
  const both = logOf(
    logFrom({ log: (line) => said.push(line), logFailure: (...line) => said.push(line) }),
    "/dev/a",
    "a",
  );
  both("is there");
  both("has failed", fields);
  logOf(logFrom({ log: (line) => said.push(line) }), "/dev/b", "b")("has failed", fields);
  assertEquals(said, ["/dev/a: is there", ["/dev/a: has failed", { disk: "a", ...fields }], "/dev/b: has failed"]);
  const full = () => {
    throw new Error("no room");
  };
  logFrom({ log: full })("a line");
  logFrom({ logFailure: full })("a line", { disk: "a", ...fields });
});
