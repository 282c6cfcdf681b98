// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import {
  formatNbdAddress,
  formatNbdUri,
  isLocalAddress,
  parseNbdAddress,
  parseNbdUri,
} from "../../../src/nbd/address.ts";

const tcp = (hostname: string, port: number) => ({ transport: "tcp", hostname, port } as const);
const unix = (path: string) => ({ transport: "unix", path } as const);

Deno.test("parseNbdAddress() takes a unix socket, a host, a port and a URI", () => {
  const cases = {
    "unix:/run/x.sock": unix("/run/x.sock"),
    "unix:x.sock": unix("x.sock"),
    "/run/x.sock": unix("/run/x.sock"),
    "./x.sock": unix("./x.sock"),
    "127.0.0.1:10809": tcp("127.0.0.1", 10809),
    "0.0.0.0:1": tcp("0.0.0.0", 1),
    "[::1]:65535": tcp("::1", 65535),
    "[::]": tcp("::", 10809),
    "localhost": tcp("localhost", 10809),
    "example.com:0": tcp("example.com", 0),
    "7": tcp("127.0.0.1", 7),
    "nbd://127.0.0.1:5": tcp("127.0.0.1", 5),
    "nbd+unix:///?socket=/a%20b": unix("/a b"),
  };
  for (const [text, address] of Object.entries(cases)) assertEquals(parseNbdAddress(text), address, text);
});

Deno.test("parseNbdAddress() says what is wrong with an address", () => {
  const cases = {
    "": "it has another form",
    "::1": "it has another form",
    "a b": "it has another form",
    "host:": "it has another form",
    "host:x": "it has another form",
    "127.0.0.1:65536": "a port is 0 to 65535, not 65536",
    "65536": "a port is 0 to 65535, not 65536",
    "unix:": "it says no path",
    "unix:a\0b": "a path cannot contain NUL",
    [`unix:/${"x".repeat(107)}`]: "at most 107 bytes",
    "nbd://h/export": `names "export"`,
    "nbds://h": "an option of its own",
  };
  for (const [text, wrong] of Object.entries(cases)) {
    const error = assertThrows(() => parseNbdAddress(text), DblockError, wrong);
    assertEquals(error.code, "EINVAL", text);
  }
  assertEquals(parseNbdAddress(`unix:/${"x".repeat(106)}`), unix(`/${"x".repeat(106)}`));
});

Deno.test("parseNbdUri() takes every form of the specification", () => {
  const plain = { tls: false };
  const cases = {
    "nbd://example.com:10810/disk": { ...plain, address: tcp("example.com", 10810), exportName: "disk" },
    "nbd://example.com/": { ...plain, address: tcp("example.com", 10809), exportName: "" },
    "nbd://example.com": { ...plain, address: tcp("example.com", 10809), exportName: "" },
    "nbd://user@example.com//disk": { ...plain, address: tcp("example.com", 10809), exportName: "/disk" },
    "nbd://example.com/hello%20world": { ...plain, address: tcp("example.com", 10809), exportName: "hello world" },
    "nbd://[::1]:9/..": { ...plain, address: tcp("::1", 9), exportName: ".." },
    "nbd:///x": { ...plain, address: tcp("127.0.0.1", 10809), exportName: "x" },
    "nbd+unix:///disk?socket=sock": { ...plain, address: unix("sock"), exportName: "disk" },
    "nbd+unix://?socket=/run/a=b": { ...plain, address: unix("/run/a=b"), exportName: "" },
    "nbds://h/d": { tls: true, address: tcp("h", 10809), exportName: "d" },
    "nbds+unix:///?socket=s&tls-hostname=h&tls-verify-peer=0&tls-certificates=/pki": {
      tls: true,
      address: unix("s"),
      exportName: "",
      tlsHostname: "h",
      tlsVerifyPeer: false,
      tlsCertificates: "/pki",
    },
  };
  for (const [text, uri] of Object.entries(cases)) assertEquals(parseNbdUri(text), uri, text);
});

Deno.test("parseNbdUri() says what is wrong with a URI", () => {
  const cases = {
    "http://x": "it has another form",
    "nbd:x": "it has another form",
    "nbd://h/a#b": "it has another form",
    "nbd+unix:///x": "it says no socket",
    "nbd://h/x?socket=s": "only nbd+unix:// has a socket",
    "nbd+unix://h/x?socket=s": "a unix socket has none",
    "nbd://h/x?sokcet=s": `"sokcet" is no parameter`,
    "nbd+unix:///?socket=a&socket=b": "is there twice",
    "nbd://h/%zz": "wrong %-sequence",
    "nbd://h/%00": "cannot contain NUL",
    "nbds://h/?tls-verify-peer=yes": "0 or 1",
    "nbd://h:99999/": "0 to 65535",
    [`nbd://h/${"x".repeat(4097)}`]: "at most 4096 bytes",
  };
  for (const [text, wrong] of Object.entries(cases)) {
    const error = assertThrows(() => parseNbdUri(text), DblockError, wrong);
    assertEquals(error.code, "EINVAL", text);
  }
  assertEquals(parseNbdUri(`nbd://h/${"x".repeat(4096)}`).exportName.length, 4096);
});

Deno.test("formatNbdUri() and formatNbdAddress() give back what the parsers take", () => {
  for (const address of [tcp("::1", 1), tcp("h", 65535), unix("/a b?&%/c")]) {
    assertEquals(parseNbdAddress(formatNbdAddress(address)), address);
    for (const exportName of ["", "disk", "a/b", "../ü %?&#"]) {
      for (const tls of [false, true]) {
        const uri = { address, exportName, tls };
        assertEquals(parseNbdUri(formatNbdUri(uri)), uri);
      }
    }
  }
});

Deno.test("isLocalAddress() is true for unix sockets and loopback only", () => {
  for (const text of ["unix:x", "127.0.0.1:1", "127.3.2.1:1", "localhost:1", "[::1]:1"]) {
    assertEquals(isLocalAddress(parseNbdAddress(text)), true, text);
  }
  for (const text of ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1.example.com:1"]) {
    assertEquals(isLocalAddress(parseNbdAddress(text)), false, text);
  }
});
