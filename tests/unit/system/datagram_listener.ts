// SPDX-License-Identifier: MIT
import { assertEquals } from "@std/assert";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A socket as systemd has them. Deno's own receives no datagrams without an option that tests are not run with. */
export class DatagramListener implements Disposable {
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
