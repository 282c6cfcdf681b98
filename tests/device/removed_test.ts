// What becomes of requests when their device is removed: they end in ENODEV, as those of a disk that was pulled out, so that
// file systems do not try again. Under policy fail they end in EIO: the disk may come back. Hard case A1.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { waitFor } from "./harness.ts";
import { destroyDevice } from "./server.ts";
import { close, Memory, NR, O_DIRECT, O_RDWR, open, PAGE_BYTES, syscallAsync } from "./syscall.ts";

/** Before 5.18 the block layer has no word for a device that is gone. */
const [major, minor] = Deno.osRelease().split(".").map(Number) as [number, number];
const GONE = major < 5 || (major === 5 && minor < 18) ? ERRNO.EIO : ERRNO.ENODEV;

interface Case {
  readonly what: string;
  readonly onDeath: number;
  readonly errno: number;
  readonly end: (disk: TestDisk) => Promise<unknown>;
}

const cases: readonly Case[] = [
  {
    what: "DESTROY by force",
    onDeath: abi.DBLOCK_ON_DEATH_HOLD,
    errno: GONE,
    end: (disk) => destroyDevice(disk.name),
  },
  {
    what: "the server's death under policy remove",
    onDeath: abi.DBLOCK_ON_DEATH_REMOVE,
    errno: GONE,
    end: (disk) => disk.abandon(),
  },
  {
    what: "the server's death under policy fail",
    onDeath: abi.DBLOCK_ON_DEATH_FAIL,
    errno: ERRNO.EIO,
    end: (disk) => disk.abandon(),
  },
];

for (const { what, onDeath, errno, end } of cases) {
  Deno.test(`${what} ends what a server has, and what waits, in ${errno === ERRNO.EIO ? "EIO" : "ENODEV"}`, async () => {
    await using disk = await TestDisk.start({ name: "removed0", on_death: onDeath });
    disk.rule = () => "hold";
    const fd = open(disk.path, O_RDWR | O_DIRECT);
    using memory = new Memory(4 * PAGE_BYTES);
    const io = (number: number, page: number) =>
      syscallAsync(number, fd, memory.address + page * PAGE_BYTES, PAGE_BYTES, page * PAGE_BYTES);
    const handed = [io(NR.pread64, 0), io(NR.pwrite64, 1)];
    await disk.untilHeld(2);
    await disk.pause();
    const waiting = [io(NR.pread64, 2), io(NR.pwrite64, 3)];
    await waitFor("two are handed out and two wait", () => disk.info().waiting_count === 2);
    await end(disk);
    assertEquals(await Promise.all([...handed, ...waiting]), Array(4).fill(-errno));
    close(fd);
    await destroyDevice(disk.name);
  });
}
