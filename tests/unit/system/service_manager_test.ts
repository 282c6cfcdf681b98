// SPDX-License-Identifier: MIT
// What systemd hears of a service: each notice is one datagram, at a socket that has a path, or a name without a file.
import { assertEquals } from "@std/assert";
import { ServiceManager } from "../../../src/system/service_manager.ts";
import { sendUnixDatagram } from "../../../src/system/socket.ts";
import { DatagramListener } from "./datagram_listener.ts";

const folder = await Deno.makeTempDir();

for (const socket of [`${folder}/notify`, `@dblock-test-${Deno.pid}`]) {
  Deno.test(`tell() sends one message to ${socket.startsWith("@") ? "an abstract name" : "a path"}`, () => {
    using listener = new DatagramListener(socket);
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
  using listener = new DatagramListener(longest);
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
