// SPDX-License-Identifier: MIT
// What systemd hears of a service: each notice is one datagram, at a socket that has a path, or a name without a file.
import { assertEquals } from "@std/assert";
import { ServiceManager } from "../../../src/system/service_manager.ts";
import { sendUnixDatagram } from "../../../src/system/socket.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A socket as systemd has it. Deno's own receives no datagrams without an option that tests are not run with. */
class Listener implements Disposable {
  readonly #libc = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
    close: { parameters: ["i32"], result: "i32" },
  });
  readonly #fd: number;

  constructor(name: string) {
    const path = new TextEncoder().encode(name.replace(/^@/, "\0"));
    const address = new Uint8Array(2 + path.length + (path[0] === 0 ? 0 : 1));
    address[0] = AF_UNIX;
    address.set(path, 2);
    this.#fd = this.#libc.symbols.socket(AF_UNIX, SOCK_DGRAM, 0);
    assertEquals(this.#libc.symbols.bind(this.#fd, address, address.length), 0);
  }

  /** The next message; undefined if there is none. */
  heard(): string | undefined {
    const bytes = new Uint8Array(4096);
    const length = Number(this.#libc.symbols.recv(this.#fd, bytes, BigInt(bytes.length), MSG_DONTWAIT));
    return length < 0 ? undefined : new TextDecoder().decode(bytes.subarray(0, length));
  }

  [Symbol.dispose](): void {
    this.#libc.symbols.close(this.#fd);
    this.#libc.close();
  }
}

const folder = await Deno.makeTempDir();

for (const socket of [`${folder}/notify`, `@dblock-test-${Deno.pid}`]) {
  Deno.test(`tell() sends one message to ${socket.startsWith("@") ? "an abstract name" : "a path"}`, () => {
    using listener = new Listener(socket);
    const manager = ServiceManager.of({ NOTIFY_SOCKET: socket }, 1)!;
    assertEquals(manager.tell({ READY: 1, STATUS: "/dev/a is ready\nand /dev/b" }), true);
    assertEquals(manager.tell({ WATCHDOG: 1 }), true);
    assertEquals(listener.heard(), "READY=1\nSTATUS=/dev/a is ready and /dev/b");
    assertEquals([listener.heard(), listener.heard()], ["WATCHDOG=1", undefined]);
  });
}

Deno.test("tell() says that nobody heard it, and nothing else happens", () => {
  assertEquals(ServiceManager.of({ NOTIFY_SOCKET: `${folder}/nobody` }, 1)!.tell({ READY: 1 }), false);
});

Deno.test("a socket's path has 107 bytes at most", () => {
  const longest = `${folder}/`.padEnd(107, "x");
  using listener = new Listener(longest);
  assertEquals([sendUnixDatagram(longest, "a"), listener.heard()], [true, "a"]);
  assertEquals(sendUnixDatagram(`${longest}x`, "a"), false);
});

Deno.test("of() reads the environment: no socket, no manager; the watchdog of another process is not this one's", () => {
  const of = (variables: Record<string, string>) => ServiceManager.of(variables, 7);
  assertEquals([of({}), of({ NOTIFY_SOCKET: "" }), of({ NOTIFY_SOCKET: "vsock:1:2" })], [
    undefined,
    undefined,
    undefined,
  ]);
  const watchdogs: readonly [Record<string, string>, number | undefined][] = [
    [{}, undefined],
    [{ WATCHDOG_USEC: "60000000" }, 60_000],
    [{ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "7" }, 60_000],
    [{ WATCHDOG_USEC: "60000000", WATCHDOG_PID: "8" }, undefined],
    [{ WATCHDOG_USEC: "0" }, undefined],
    [{ WATCHDOG_USEC: "soon" }, undefined],
  ];
  for (const [variables, watchdogMs] of watchdogs) {
    assertEquals(of({ NOTIFY_SOCKET: "/run/x", ...variables })?.watchdogMs, watchdogMs, JSON.stringify(variables));
  }
});
