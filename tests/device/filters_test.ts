// Each filter in front of a disk that `dblock serve` serves: what is written through it and the kernel is read back, by fio with
// checksums and from a second reader, and what a filter refuses is refused. What each one is for, the unit tests show.
// time limit: 300 s
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { filters } from "../../src/filters/table.ts";
import { fio, fioErrors } from "./fio.ts";
import { sh } from "./harness.ts";
import { dblock, Serving } from "./serving.ts";

/** Options with which a load keeps its content: faults hit only what lies behind it. */
const WORDS: Readonly<Record<string, string>> = {
  log: "log=file=/tmp/filters.log",
  stats: "stats=file=/tmp/filters.stats",
  delay: "delay=read=1ms,write=1ms,jitter=1ms",
  fault: "fault=operations=read,offset=12MiB,length=1MiB",
  rate: "rate=bytes=50MiB,operations=2000,burstOperations=50",
  retry: "retry=times=3,delay=1ms",
  cache: "cache=size=2MiB,mode=write-back",
  readahead: "readahead=window=128KiB",
  "write-cache": "write-cache=size=1MiB",
  checksum: "checksum=file=/tmp/filters.sums",
};

Deno.test("all that is written through a filter is there", async () => {
  const names = Object.keys(filters).filter((name) => name !== "read-only");
  assertEquals(names.filter((name) => WORDS[name] === undefined), []);
  const words = names.flatMap((name, i) => ["memory:16MiB", "--name", `filter${i}`, "--with", WORDS[name]!]);
  await using serving = await Serving.start(["serve", ...words]);
  for (const [i, name] of names.entries()) {
    const path = `/dev/filter${i}`;
    const load = "--direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=512-16k --size=2M --verify=crc32c";
    const result = await fio(`${load} --fsync=32 --name=${name} --filename=${path}`);
    assertEquals(
      [result.status, fioErrors(result).filter((errno) => errno !== 0)],
      [0, []],
      `${name}: ${result.stderr}`,
    );
    await sh(
      `head -c 4M /dev/urandom >/tmp/filters.in; dd if=/tmp/filters.in of=${path} bs=64k seek=64 conv=fsync status=none`,
    );
    await sh(`blockdev --flushbufs ${path}; dd if=${path} bs=64k skip=64 count=64 status=none | cmp - /tmp/filters.in`);
  }
  const failing = `/dev/filter${names.indexOf("fault")}`;
  const { status, stderr } = await sh(`dd if=${failing} bs=4k skip=3072 count=1 iflag=direct of=/dev/null`, {
    check: false,
  });
  assertEquals(status, 1);
  assertStringIncludes(stderr, "Input/output error");
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end(60_000)).code, 0);
  assertMatch(Deno.readTextFileSync("/tmp/filters.log"), /^write offset=\d+ length=\d+ us=\d+ errno=0 disk=filter0$/m);
  assertMatch(Deno.readTextFileSync("/tmp/filters.stats"), /^write: \d+ requests, /m);
});

Deno.test("a disk behind read-only is read and takes no write", async () => {
  await sh("head -c 4M /dev/urandom >/tmp/filters.img");
  await using serving = await Serving.start("serve /tmp/filters.img --name filterro --with read-only".split(" "));
  await sh("cmp /dev/filterro /tmp/filters.img");
  assertEquals((await sh("dd if=/dev/zero of=/dev/filterro bs=4k count=1 oflag=direct", { check: false })).status, 1);
  assertEquals((await dblock("destroy filterro")).status, 0);
  assertEquals((await serving.end()).code, 0);
});
