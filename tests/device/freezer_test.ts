// time limit: 300 s
// dmesg may have: Call Trace:
// A server that is frozen, by its control group or with the whole machine, holds its I/O up and nothing more: it goes on
// when the server does. So it is when the machine really sleeps (S3) and its clock wakes it. Hard case F3.
import { assert, assertEquals } from "@std/assert";
import { ControlGroup } from "./cgroup.ts";
import { fioLoop } from "./fio.ts";
import { exists, figure, kernelLinesSince, markKernelLog, requires, scaled, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

const cycles = 12;
const cyclesMax = 40;
const load = (path: string) => `--filename=${path} --rw=randwrite --bs=4k --iodepth=16 --size=16M`;

function answeredCount(name: string): number {
  return infoOf(name)!.requests.reduce((sum, count) => sum + count, 0);
}

Deno.test("a server that its control group freezes goes on when it thaws", async () => {
  await using group = await ControlGroup.make("frozen");
  await using disk = await Ramdisk.start({ name: "frozen", args: ["--size", "64M"], cgroup: group.path });
  const fio = fioLoop("frozen", load(disk.path));
  for (let cycle = 0; cycle < cycles; cycle++) {
    const before = answeredCount("frozen");
    await waitFor("I/O goes on", () => answeredCount("frozen") > before + 100);
    await group.freeze(true);
    const frozenAt = answeredCount("frozen");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assertEquals(answeredCount("frozen"), frozenAt, "a frozen server answers");
    await group.freeze(false);
  }
  assertEquals(await fio.stop(), "");
  assertEquals(infoOf("frozen")!.error_count, 0);
  assertEquals((await runRamdisk("-d --name frozen")).status, 0);
  await disk.end();
});

/** Freezes every process but itself as a machine does that goes to sleep, for 0.2 s. Prints whether that worked. */
const freezeAll = `
  open(my $power, "<", "/dev/snapshot") or die "/dev/snapshot: $!";
  if (ioctl($power, 0x3301, 0)) { # SNAPSHOT_FREEZE
    select(undef, undef, undef, 0.2);
    ioctl($power, 0x3302, 0) or die "cannot thaw: $!"; # SNAPSHOT_UNFREEZE
    print "frozen";
  } else {
    print "refused";
  }`;

Deno.test({
  name: "when all processes are frozen, or one waits for a frozen server and that fails, I/O goes on",
  ignore: !requires("a kernel that can freeze all processes", exists("/dev/snapshot")),
  async fn() {
    await using disk = await Ramdisk.start({ name: "asleep", args: ["--size", "64M"] });
    // Two users: fio waits as one that can be frozen, dd as one that cannot as long as its request is with the server.
    const fio = fioLoop("asleep", load(disk.path));
    const reading = sh(
      `until [ -e /tmp/awake ]; do dd if=${disk.path} of=/dev/null bs=4k skip=8192 iflag=direct status=none || exit 1; done`,
      { timeoutMs: 100_000 },
    );
    await sh("echo 500 >/sys/power/pm_freeze_timeout");
    const outcomes: string[] = [];
    // Which of the two comes out is chance; a run has both, if it takes some cycles more.
    while (outcomes.length < cycles || (new Set(outcomes).size < 2 && outcomes.length < cyclesMax)) {
      const before = answeredCount("asleep");
      await waitFor("I/O goes on", () => answeredCount("asleep") > before + 100);
      outcomes.push((await sh(`perl -e '${freezeAll}'`)).stdout);
    }
    await sh("echo 20000 >/sys/power/pm_freeze_timeout; touch /tmp/awake");
    assertEquals((await reading).stderr, "");
    await sh("rm /tmp/awake");
    assertEquals(await fio.stop(), "");
    assertEquals(infoOf("asleep")!.error_count, 0);
    const frozen = outcomes.filter((outcome) => outcome === "frozen").length;
    assertEquals(outcomes.filter((outcome) => outcome === "refused").length, outcomes.length - frozen, outcomes.join());
    assert(frozen > 0, "nothing was ever frozen");
    assert(frozen < outcomes.length, "nobody ever waited for a frozen server");
    figure({ "freezes of all processes": frozen, "freezes refused": outcomes.length - frozen });
    assertEquals((await runRamdisk("-d --name asleep")).status, 0);
    await disk.end();
  },
});

const sleepStates = exists("/sys/power/mem_sleep") ? Deno.readTextFileSync("/sys/power/mem_sleep") : "";

Deno.test({
  name: "a machine that sleeps amid I/O wakes up, and I/O goes on",
  ignore: !requires("suspend to RAM and a clock", sleepStates.includes("deep") && exists("/dev/rtc0")),
  async fn() {
    await using disk = await Ramdisk.start({ name: "sleeps", args: ["--size", "64M"] });
    const fio = fioLoop("sleeps", load(disk.path));
    const mark = markKernelLog();
    let sleeps = 0;
    for (; sleeps < scaled(3); sleeps++) {
      const before = answeredCount("sleeps");
      await waitFor("I/O goes on", () => answeredCount("sleeps") > before + 100);
      await sh("echo deep >/sys/power/mem_sleep; rtcwake --mode mem --seconds 1");
    }
    assertEquals(kernelLinesSince(mark).filter((line) => line === "PM: suspend exit").length, sleeps);
    assertEquals(await fio.stop(), "");
    assertEquals(infoOf("sleeps")!.error_count, 0);
    figure({ "sleeps of the machine amid I/O": sleeps });
    assertEquals((await runRamdisk("-d --name sleeps")).status, 0);
    await disk.end();
  },
});
