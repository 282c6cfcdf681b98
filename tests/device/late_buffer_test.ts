// The buffers that serve() hands to an asynchronous backend stay the backend's until it answers, past the request's timeout
// and past the device's end: what it writes to them then is in memory that is nobody else's, and the late answers are
// counted as stale. Hard case E4.
import { assert, assertEquals } from "@std/assert";
import { fio } from "./fio.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { trapOffset } from "./late_buffer_main.ts";
import { Program } from "./program.ts";
import { destroyDevice, infoOf, KIB } from "./server.ts";

const blockBytes = 64 * KIB;
const verifiedBytes = 4 * 2 ** 20;

/** What the program answers. */
interface Said {
  /** Requests that it has not answered. */
  readonly kept: number;
  /** WRITEs of these whose data is not what it was. */
  readonly changed: number;
  /** How often it wrote over the buffers of READs. */
  readonly scribbles: number;
  /** Other memory of the program that is not what it was. */
  readonly damaged: number;
}

/** @param timeoutMs long enough for the program to see each request before; 0: never */
async function start(name: string, timeoutMs: number): Promise<Program> {
  const program = new Program("late_buffer_main.ts", [name, `${timeoutMs}`], { denoArgs: ["--v8-flags=--expose-gc"] });
  await program.line();
  await waitFor(`/dev/${name} appears`, () => exists(`/dev/${name}`));
  return program;
}

async function ask(program: Program, command: string): Promise<Said> {
  return JSON.parse(await program.ask(command)) as Said;
}

/** Three reads and two writes that are not answered: resolves to the status of each. */
function trapped(path: string): Promise<number[]> {
  const at = (index: number) => trapOffset / blockBytes + index;
  const commands = [0, 1, 2].map((i) =>
    `dd if=${path} of=/dev/null bs=${blockBytes} count=1 skip=${at(i)} iflag=direct`
  )
    .concat([3, 4].map((i) => `dd if=/data/bin/bash of=${path} bs=${blockBytes} count=1 seek=${at(i)} oflag=direct`));
  return Promise.all(commands.map(async (command) => (await sh(command, { check: false })).status));
}

/** Uses every slot that is free, and checks each block that is read. */
async function verify(path: string): Promise<void> {
  const { status, stderr } = await fio(
    `--name=neighbours --filename=${path} --direct=1 --ioengine=io_uring --rw=randwrite --bs=${blockBytes} --iodepth=16 ` +
      `--size=${verifiedBytes} --io_size=${2 * verifiedBytes} --verify=crc32c --verify_fatal=1 --verify_backlog=32`,
  );
  assertEquals(status, 0, stderr);
}

Deno.test("buffers that are written to after their requests' timeout are no other request's", async () => {
  await using program = await start("late2", 3_000);
  try {
    assertEquals(await trapped("/dev/late2"), [1, 1, 1, 1, 1]);
    const info = infoOf("late2")!;
    assertEquals([info.timeout_count, info.quarantined_count, info.stale_count], [5, 5, 0]);

    await ask(program, "scribble");
    // Requests go before timers: on a slow machine one round is too short for them.
    do await verify("/dev/late2"); while ((await ask(program, "look")).scribbles <= 50);
    const said = await ask(program, "answer");
    assertEquals([said.kept, said.changed, said.damaged], [5, 0, 0]);
    await waitFor("the late answers are counted", () => infoOf("late2")!.stale_count === 5);
    assertEquals([infoOf("late2")!.quarantined_count, infoOf("late2")!.error_count], [0, 5]);
    // All slots are in use again.
    await verify("/dev/late2");
  } finally {
    assertEquals(await destroyDevice("late2", { force: true }), 0);
  }
  assertEquals(await program.end(), { code: 0, stderr: "" });
});

Deno.test("buffers that are written to after their device's end are nobody else's memory", async () => {
  await using program = await start("late3", 0);
  const pending = trapped("/dev/late3");
  await waitFor("five requests are with the backend", async () => (await ask(program, "look")).kept === 5);
  assertEquals(await destroyDevice("late3", { force: true }), 0);
  assertEquals(await pending, [1, 1, 1, 1, 1]);
  // Another disk of the same program is where the first one's memory was, if that is free.
  await ask(program, "outlive");
  try {
    await verify("/dev/late3-next");
    const said = await ask(program, "answer");
    assertEquals([said.kept, said.changed, said.damaged], [5, 0, 0]);
    assert(said.scribbles > 50, `the buffers were written to only ${said.scribbles} times`);
    await verify("/dev/late3-next");
    assertEquals([infoOf("late3-next")!.error_count, infoOf("late3-next")!.refused_count], [0, 0]);
  } finally {
    await destroyDevice("late3-next", { force: true });
  }
  assertEquals(await program.end(), { code: 0, stderr: "" });
});
