import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Contention, measureProcessor, PacedClock, pacedSeconds } from "../../vm/pace.ts";

Deno.test("pacedSeconds() counts each second by the slowness that was measured for it", () => {
  const samples = [{ atSeconds: 10, slowness: 1 }, { atSeconds: 20, slowness: 4 }, { atSeconds: 30, slowness: 2 }];
  assertEquals(pacedSeconds(samples, 0, 10), 10);
  assertEquals(pacedSeconds(samples, 10, 20), 2.5);
  assertEquals(pacedSeconds(samples, 5, 25), 5 + 2.5 + 2.5);
  // What came after the last sample is taken to be like it.
  assertEquals(pacedSeconds(samples, 30, 40), 5);
  assertEquals(pacedSeconds([], 5, 25), 20);
});

Deno.test("PacedClock adds less time while the machine is slower", async () => {
  const clock = new PacedClock();
  clock.slowness = 1000;
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert(clock.tick() < (performance.now() - started) / 100);
});

Deno.test("Contention tells a process that is alone from one that has to share its processor", async () => {
  // Two loops on one processor: each runs half of the time, whatever else the machine does.
  const loop = (cpu: number) =>
    new Deno.Command("taskset", { args: ["-c", `${cpu}`, "sh", "-c", "while :; do :; done"] }).spawn();
  const shared = [loop(0), loop(0)];
  try {
    const contention = new Contention(shared[0]!.pid);
    await new Promise((resolve) => setTimeout(resolve, 200));
    contention.sample();
    let slowness = 1;
    for (let tries = 0; tries < 50 && slowness < 1.5; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      slowness = contention.sample();
    }
    assert(slowness >= 1.5, `${slowness}`);
  } finally {
    for (const child of shared) child.kill("SIGKILL");
    for (const child of shared) await child.status;
  }
  assertEquals(new Contention(2 ** 30).sample(), 1);
});

Deno.test("measureProcessor() gives the same processor the same slowness, roughly", () => {
  const [first, second] = [measureProcessor(), measureProcessor()];
  assertAlmostEquals(first, second, 1);
});
