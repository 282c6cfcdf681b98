// CPUs that go and come under I/O cost no error and no stall, a disk made on one CPU works on two, and no CPU has to wait for
// a stuck server. Hard case D4; scheduler_test.ts has the other half of it.
import { assertEquals } from "@std/assert";
import { fio, fioErrors, type FioResult, slowestMs } from "./fio.ts";
import { assertWithin, exists, figure, requires, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { destroyDevice, infoOf, MIB } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const online = "/sys/devices/system/cpu/cpu1/online";
const ignore = !requires("a second CPU that can go offline", exists(online));
const stallMs = 5_000;
/** I/O goes on for so many seconds, and again until the CPU went this often: a slow machine takes seconds to take it away. */
const seconds = 5;
const roundsMin = 5;

async function setOnline(isOnline: boolean): Promise<void> {
  await sh(`echo ${isOnline ? 1 : 0} >${online}`);
}

Deno.test({
  name: "a CPU goes and comes again and again under fio verify",
  ignore,
  async fn() {
    await using disk = await Ramdisk.start({ name: "hotplug0", args: ["--size", "64M", "--queues", "2"] });
    const answered = () => infoOf("hotplug0")!.requests.reduce((sum, count) => sum + count, 0);
    let [rounds, isOver] = [0, false];
    const load = async () => {
      const results: FioResult[] = [];
      do {
        results.push(
          await fio(
            `--name=hotplug --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=32 ` +
              `--numjobs=2 --size=32M --offset_increment=32M --time_based --runtime=${seconds} --verify=crc32c ` +
              `--verify_fatal=1 --verify_backlog=512`,
          ),
        );
      } while (rounds < roundsMin);
      return results;
    };
    const running = load().finally(() => isOver = true);
    for (; !isOver; rounds++) {
      for (const isOnline of [false, true]) {
        await setOnline(isOnline);
        const before = answered();
        await waitFor("I/O goes on", () => answered() > before + 50 || isOver);
      }
    }
    const results = await running;
    for (const result of results) assertEquals([result.status, ...fioErrors(result)], [0, 0, 0], result.stderr);
    const longestMs = Math.max(...results.map(slowestMs));
    assertWithin(stallMs, longestMs, "the slowest request was answered");
    figure({ "CPU offline and online": rounds, "longest request meanwhile": [longestMs, "ms"] });
    assertEquals(infoOf("hotplug0")!.error_count, 0);
    await waitFor("nothing is in flight", async () => {
      return (await Deno.readTextFile("/sys/block/hotplug0/inflight")).trim().split(/\s+/).every((count) =>
        count === "0"
      );
    });
  },
});

Deno.test({
  name: "a disk that was made while a CPU was offline is used from it",
  ignore,
  async fn() {
    await setOnline(false);
    await using server = await ServerProcess.start({ name: "hotplug1", queue_count: 2 });
    await setOnline(true);
    for (const cpu of [0, 1]) {
      await sh(
        `taskset --cpu-list ${cpu} dd if=/data/bin/bash of=${server.path} bs=64k count=8 oflag=direct status=none`,
      );
      await sh(`taskset --cpu-list ${cpu} cmp -n 524288 /data/bin/bash ${server.path}`);
    }
  },
});

Deno.test({
  name: "a CPU goes offline although a request that came from it waits, and the request ends as it should",
  ignore,
  async fn() {
    for (const ending of ["goes on", "force"]) {
      await using server = await ServerProcess.start({ name: "hotplug2", queue_count: 2, size_bytes: 16 * MIB });
      await server.kill("SIGSTOP");
      const read = sh(`taskset --cpu-list 1 dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct`, {
        check: false,
      });
      await waitFor("the read waits", () => infoOf("hotplug2")!.waiting_count === 1);
      const started = performance.now();
      await setOnline(false);
      assertWithin(stallMs, performance.now() - started, "the CPU went offline");
      assertEquals(infoOf("hotplug2")!.waiting_count, 1);
      if (ending === "force") assertEquals(await destroyDevice("hotplug2", { force: true }), 0);
      else await server.kill("SIGCONT");
      assertEquals((await read).status, ending === "force" ? 1 : 0);
      await setOnline(true);
    }
  },
});
