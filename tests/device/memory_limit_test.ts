// A server whose memory group is at its limit has its memory swapped out by the answers it gives: nobody is killed while swap
// is free, and no request ends in EIO. The server is no I/O flusher (PR_SET_IO_FLUSHER), as those must not swap.
// time limit: 180 s
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ControlGroup } from "./cgroup.ts";
import { figure, hasModule, kernelSlowness, requires, sh } from "./harness.ts";
import { infoOf, MIB } from "./server.ts";
import { ServerProcess } from "./server_process.ts";
import { PAGE_BYTES } from "./syscall.ts";

const [storeMib, limitMib] = [192, 96];
const ignore = !requires("a block device in memory to swap to (zram or brd)", hasModule("zram") || hasModule("brd")) ||
  !requires(
    "pages of 4 KiB and a kernel that takes no memory for its checks",
    PAGE_BYTES === 4096 && kernelSlowness === 1,
  );

async function swapDevice(): Promise<string> {
  if (hasModule("zram")) {
    await sh("modprobe zram && echo 512M >/sys/block/zram0/disksize");
    return "/dev/zram0";
  }
  await sh("modprobe brd rd_nr=1 rd_size=524288");
  return "/dev/ram0";
}

Deno.test("answers that need more memory than the group may have are swapped out, not EIO, and nobody is killed", {
  ignore,
}, async () => {
  const name = "limit0";
  const swap = await swapDevice();
  await sh(`mkswap ${swap} && swapon ${swap}`);
  await using group = await ControlGroup.make("limited", { "memory.max": `${limitMib}M` });
  try {
    await using server = await ServerProcess.start({
      name,
      size_bytes: storeMib * MIB,
      flags: abi.DBLOCK_DEVICE_DIRECT,
      queue_depth: 64,
    });
    group.set("cgroup.procs", String(server.child.pid));
    const pattern = `perl -e 'for (0..${storeMib - 1}) { print pack("N", $_) x (2**18) }'`;
    await sh(`${pattern} >/tmp/pattern`);
    await sh(`dd if=/tmp/pattern of=${server.path} bs=1M oflag=direct status=none`, { timeoutMs: 60_000 });
    await sh(`dd if=${server.path} bs=1M iflag=direct status=none | cmp - /tmp/pattern`, { timeoutMs: 60_000 });
    const events = Object.fromEntries(group.get("memory.events").split("\n").map((line) => line.split(" ")));
    const swapped = Number(group.get("memory.swap.current")) / MIB;
    assertEquals([events.oom_kill, infoOf(name)!.error_count, infoOf(name)!.refused_count], ["0", 0, 0]);
    assert(swapped > storeMib - limitMib, `only ${swapped} MiB were swapped out`);
    assert(Number(events.max) > 0, "the limit was never met");
    figure({ "largest swap of a server by its own answers": [Math.round(swapped), "MiB"] });
  } finally {
    await sh(`swapoff ${swap}; rm -f /tmp/pattern`);
  }
});
