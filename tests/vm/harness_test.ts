// The harness's own test: test files that fail, hang, panic, fall silent or leave something behind are reported as what
// they are, and the files after them still run. A harness that misses one of these would call a broken disk sound.
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { runDeviceTests } from "./device.ts";
import { defaultKernel, fetchKernel } from "./kernels.ts";
import { parseTestSummary } from "./report.ts";
import { Slots } from "./slots.ts";
import { explainLoss, isEmulatorFault, runVm } from "./vm.ts";

Deno.test("runDeviceTests() reports every kind of bad ending, and goes on", async (t) => {
  const names = ["fails", "dirties", "leaves", "steps", "hangs", "panics", "silent", "passes"];
  const results = await runDeviceTests({
    kernel: await fetchKernel(defaultKernel),
    files: names.map((name) => `tests/vm/fixtures/${name}_test.ts`),
    silenceMs: 4_000,
    vms: 2,
  });
  const expected: Record<string, { verdict: string; counts: [number, number, number]; problem: RegExp }> = {
    fails: { verdict: "fail", counts: [1, 1, 0], problem: /^$/ },
    dirties: { verdict: "fail", counts: [1, 1, 0], problem: /^dmesg: WARNING: not a real one$/ },
    leaves: { verdict: "fail", counts: [1, 1, 0], problem: /^left running: sleep 1000$/ },
    steps: { verdict: "fail", counts: [1, 1, 1], problem: /^$/ },
    hangs: { verdict: "fail", counts: [0, 1, 0], problem: /^no end within \d+(\.\d+)? s/ },
    panics: { verdict: "lost", counts: [0, 1, 0], problem: /^the VM was lost: .*sysrq/i },
    silent: { verdict: "lost", counts: [0, 1, 0], problem: /^the VM was lost: silent for \d+(\.\d+)? s$/ },
    passes: { verdict: "pass", counts: [1, 0, 1], problem: /^skipped: needs a moon made of cheese$/ },
  };
  for (const [i, name] of names.entries()) {
    await t.step(`a file like ${name}`, () => {
      const result = results[i]!;
      const { verdict, counts, problem } = expected[name]!;
      const { passed, failed, skipped } = result.counts;
      assertEquals(result.path, `tests/vm/fixtures/${name}_test.ts`);
      assertEquals(result.verdict, verdict, result.problems.join("\n"));
      assertEquals([passed, failed, skipped], counts);
      assertMatch(result.problems.join("\n"), problem);
    });
  }
});

Deno.test("runDeviceTests() gives each file an empty /tmp", async () => {
  const path = "tests/vm/fixtures/scribbles_test.ts";
  const results = await runDeviceTests({ kernel: await fetchKernel(defaultKernel), files: [path, path] });
  assertEquals(results.map(({ verdict }) => verdict), ["pass", "pass"], results[1]?.output);
});

Deno.test("runDeviceTests() runs a file again when the emulator was at fault, and not for ever", async () => {
  const repeated: string[] = [];
  const path = "tests/vm/fixtures/breaks_test.ts";
  const [result, ...others] = await runDeviceTests({
    kernel: await fetchKernel(defaultKernel),
    files: [path],
    onRepeat: (path) => void repeated.push(path),
  });
  assertEquals(repeated, [path, path]);
  assertEquals(others, []);
  assertEquals(result?.verdict, "lost");
  // The fixture's words, or the emulator's own: it may be at fault here as well.
  assertMatch(result?.problems.join("\n") ?? "", /^the VM was lost: Oops: int3: 0000 \[#\d\].* SMP/);
});

Deno.test("runVm() reports the exit status and output of a command", async () => {
  const kernel = await fetchKernel(defaultKernel);
  const result = await runVm({ kernel, command: "echo hello; exit 7", timeoutMs: 30_000, memoryMiB: 256, smp: 1 });
  assertEquals([result.verdict, result.status, result.output], ["fail", 7, "hello\n"]);
});

Deno.test("runVm() gives up a VM that does not end in time", async () => {
  const kernel = await fetchKernel(defaultKernel);
  const result = await runVm({ kernel, command: "sleep 1000", timeoutMs: 2_000 });
  assertEquals([result.verdict, result.status], ["lost", undefined]);
  // The limit follows the machine's pace.
  assertMatch(result.reason ?? "", /^no end within \d+(\.\d+)? s/);
});

Deno.test("parseTestSummary() finds the last summary line, and none where there is none", () => {
  assertEquals(
    parseTestSummary("ok | 9 passed | 0 failed (1s)\nFAILED | 1 passed (2 steps) | 3 failed | 4 ignored (5ms)\n"),
    {
      passed: 1,
      failed: 3,
      skipped: 4,
    },
  );
  assertEquals(parseTestSummary("running 3 tests from x.ts\n"), undefined);
});

Deno.test("explainLoss() names the cause of a panic, not the panic", () => {
  const log =
    "[1] WARNING: CPU: 0 PID: 9 at x.c:1 f+0x1\n[1] Kernel panic - not syncing: kernel: panic_on_warn set ...\n";
  assertEquals(explainLoss(log), "WARNING: CPU: 0 PID: 9 at x.c:1 f+0x1");
  const boot = "[0] watchdog: Perf NMI watchdog permanently disabled\n";
  const oops = "[1] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n[1] Kernel panic - not syncing: Fatal exception\n";
  assertEquals(explainLoss(boot + oops), "Oops: int3: 0000 [#1] PREEMPT SMP NOPTI");
  assertEquals([isEmulatorFault(boot + oops), isEmulatorFault(log)], [true, false]);
  assertEquals(explainLoss("[2] Kernel panic - not syncing: sysrq\n"), "Kernel panic - not syncing: sysrq");
  const init = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b";
  const before =
    "[4] Out of memory: Killed process 1 (of the test before)\n[5] dblock-test: tests/device/swap_test.ts\n";
  const killed =
    "[6] Out of memory: Killed process 223 (swapoff)\n[7] dblock: swap0: the server (process 206) is gone\n";
  assertEquals(
    explainLoss(`${before}${killed}[8] ${init}\n`),
    `${init}, after "Out of memory: Killed process 223 (swapoff)"`,
  );
  assertEquals(explainLoss(`${before}[8] ${init}\n`), init);
  assertEquals(explainLoss("[3] reboot: Restarting system\n"), undefined);
});

Deno.test("Slots: work that takes two places waits for both, and what comes after it waits for it", async () => {
  const slots = new Slots(3);
  const begun: string[] = [];
  const begin = (name: string, count: number) => {
    const end = Promise.withResolvers<void>();
    const work = slots.use(() => {
      begun.push(name);
      return end.promise;
    }, count);
    return () => (end.resolve(), work);
  };
  const ends = [begin("two", 2), begin("two more", 2), begin("one", 1), begin("ten", 10)];
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(begun, ["two"], "one place is free, and nobody is passed");
  await ends[0]!();
  assertEquals(begun, ["two", "two more", "one"]);
  await ends[1]!();
  assertEquals(begun.length, 3);
  await ends[2]!();
  assertEquals(begun.at(-1), "ten", "as many as there are");
  await ends[3]!();
});

Deno.test("Slots has so much work going on at a time, in its order, also after work that fails", async () => {
  const slots = new Slots(2);
  const begun: number[] = [];
  const ends = Array.from({ length: 5 }, () => Promise.withResolvers<number>());
  const works = ends.map(({ promise }, i) =>
    slots.use(() => {
      begun.push(i);
      return promise;
    })
  );
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  await settle();
  assertEquals(begun, [0, 1]);
  ends[1]!.reject(new Error("not now"));
  await assertRejects(() => works[1]!, Error, "not now");
  await settle();
  assertEquals(begun, [0, 1, 2]);
  ends[2]!.resolve(2);
  ends[0]!.resolve(0);
  await settle();
  assertEquals(begun, [0, 1, 2, 3, 4]);
  for (const i of [3, 4]) ends[i]!.resolve(i);
  assertEquals(await Promise.all(works.filter((_, i) => i !== 1)), [0, 2, 3, 4]);
  // All places are free again.
  assertEquals(await Promise.all([5, 6].map((i) => slots.use(() => Promise.resolve(i)))), [5, 6]);
});
