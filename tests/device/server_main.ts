/**
 * A TestDisk in a process of its own, so that it can be killed, stopped or starved. Its argument is a ServerOptions as
 * JSON; each line of its input is a command, each line of its output the answer. server_process.ts is the other side.
 */
import { TextLineStream } from "./lines.ts";
import { DBLOCK_IOC_START, DBLOCK_REQUEST_REPLAYED, dblock_start } from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { callAsync } from "./server.ts";
import type { ServerCommand, ServerOptions, ServerReport } from "./server_process.ts";
import { addressOf, close, cString, Memory, NR, O_DIRECT, O_RDONLY, O_RDWR, open } from "./syscall.ts";
import { openAsync, syscall, syscallAsync } from "./syscall.ts";

function openStore(path: string, sizeBytes: number): Memory {
  const fd = open(path, O_RDWR);
  if (fd < 0) throw new Error(`open ${path}: errno ${-fd}`);
  const store = new Memory(sizeBytes, fd);
  close(fd);
  return store;
}

function writeSynced(path: string): void {
  using file = Deno.openSync(path, { create: true, write: true });
  file.writeSync(new Uint8Array(65536).fill(120));
  file.syncDataSync();
}

async function readDisk(path: string): Promise<void> {
  const block = new Memory(4096);
  const fd = await openAsync(path, O_RDONLY | O_DIRECT);
  await syscallAsync(NR.pread64, fd, block.address, 4096, 0);
}

/** One EXCHANGE that waits; what it gets, nobody answers. */
async function sleepInExchange(disk: TestDisk): Promise<void> {
  const setFlags = 4;
  await disk.pause();
  syscall(NR.fcntl, disk.queues[0]!.fd, setFlags, O_RDWR);
  while ((await disk.queues[0]!.exchangeAsync()).result >= 0);
}

function exec(seconds: number): void {
  const words = ["/bin/sleep", String(seconds)].map(cString);
  const pointers = new BigInt64Array(new ArrayBuffer(128));
  words.forEach((word, i) => pointers[i] = BigInt(addressOf(word)));
  const errno = -syscall(NR.execve, words[0]!, new Uint8Array(pointers.buffer), 0);
  throw new Error(`exec of /bin/sleep: errno ${errno}`);
}

function report(disk: TestDisk): ServerReport {
  return {
    held: disk.held.length,
    seen: disk.seen,
    replayed: disk.seen.filter((request) => request.flags & DBLOCK_REQUEST_REPLAYED).length,
    ended: disk.ended ?? null,
  };
}

async function main(): Promise<void> {
  const { storeFile, holdOperations = [], childSeconds = 0, attachOnly = false, ...options } = JSON.parse(
    Deno.args[0]!,
  ) as ServerOptions;
  const rule = holdRule(holdOperations);
  const store = storeFile === undefined ? {} : { store: openStore(storeFile, Deno.statSync(storeFile).size) };
  const disk = await TestDisk[attachOnly ? "attach" : "start"]({ ...options, ...store, rule });
  if (childSeconds > 0) {
    // It gets every descriptor that is not close-on-exec, and lives on when this process dies.
    new Deno.Command("sleep", { args: [String(childSeconds)], stdin: "null", stdout: "null", stderr: "null" }).spawn()
      .unref();
  }
  console.log(JSON.stringify(report(disk)));
  for await (const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
    const command = JSON.parse(line) as ServerCommand;
    if (command.holdOperations !== undefined) disk.rule = holdRule(command.holdOperations);
    if (command.release) disk.releaseAll();
    if (command.pause) await disk.pause();
    if (command.serve) disk.serve();
    if (command.start) callAsync(disk.queues[0]!.fd, DBLOCK_IOC_START, dblock_start);
    if (command.syncFile !== undefined) writeSynced(command.syncFile);
    if (command.close) await disk.abandon();
    if (command.readDisk) readDisk(disk.path);
    if (command.sleep) sleepInExchange(disk);
    if (command.execSeconds !== undefined) exec(command.execSeconds);
    console.log(JSON.stringify(report(disk)));
  }
}

function holdRule(operations: readonly number[]): TestDisk["rule"] {
  return (request) => operations.includes(request.operation) ? "hold" : "serve";
}

if (import.meta.main) {
  await main();
  // Closed input ends this process as kill does: what is open stays unanswered.
  Deno.exit(0);
}
