// SPDX-License-Identifier: MIT
/** NBD servers of others on unix sockets, and our own one in a process that can be killed. */
import { Background } from "./tools.ts";

/** How to start a server. */
export interface ServerKind {
  readonly name: string;
  /** It keeps what it has answered through its own death: its disk is a file. */
  readonly isDurable: boolean;
  /** @param dir a folder of its own; `disk` there is the file, if there is one */
  command(dir: string, sizeBytes: number): readonly [command: string, args: readonly string[]];
  /** The export's URI, as the client of a server in `dir` has to say it. */
  uri(dir: string): string;
}

const socketOf = (dir: string) => `${dir}/nbd.sock`;
const uri = (dir: string) => `nbd+unix:///?socket=${socketOf(dir)}`;
const kit = (dir: string, ...args: string[]) => ["nbdkit", ["-f", "-U", socketOf(dir), ...args]] as const;
const main = new URL("nbd_main.ts", import.meta.url).pathname;

/** A folder with certificates, for the server that wants them. */
export function serverKinds(certificates: string): readonly ServerKind[] {
  return [
    {
      name: "nbdkit memory",
      isDurable: false,
      command: (dir, sizeBytes) => kit(dir, "memory", `${sizeBytes}`),
      uri,
    },
    { name: "nbdkit file", isDurable: true, command: (dir) => kit(dir, "file", `${dir}/disk`), uri },
    {
      name: "nbdkit TLS",
      isDurable: true,
      command: (dir) =>
        kit(dir, "--tls=require", `--tls-certificates=${certificates}`, "--tls-verify-peer", "file", `${dir}/disk`),
      uri: (dir) => `nbds+unix:///?socket=${socketOf(dir)}&tls-certificates=${certificates}`,
    },
    {
      name: "nbdkit without structured replies",
      isDurable: true,
      command: (dir) => kit(dir, "--no-sr", "file", `${dir}/disk`),
      uri,
    },
    {
      name: "nbdkit delay",
      isDurable: true,
      command: (dir) => kit(dir, "--filter=delay", "file", `${dir}/disk`, "rdelay=1ms", "wdelay=1ms"),
      uri,
    },
    {
      name: "qemu-nbd",
      isDurable: true,
      command: (dir) => ["qemu-nbd", ["-t", "-f", "raw", "-e", "8", "-k", socketOf(dir), `${dir}/disk`]],
      uri,
    },
    {
      name: "nbd-server",
      isDurable: true,
      // It leaves for the background; with -d it serves only one client.
      command: (dir) => {
        const pid = `$(cat ${dir}/pid)`;
        const stop = `trap 'kill ${pid}; exit 0' TERM; while kill -0 ${pid}; do sleep 0.1; done`;
        const wait = `for i in $(seq 600); do [ -s ${dir}/pid ] && break; sleep 0.1; done`;
        return ["sh", ["-c", `rm -f ${dir}/pid; nbd-server -C ${dir}/config -p ${dir}/pid; ${wait}; ${stop}`]];
      },
      uri: (dir) => `nbd+unix:///disk?socket=${socketOf(dir)}`,
    },
    {
      name: "our server",
      isDurable: true,
      command: (dir) => [Deno.execPath(), ["run", "-A", "--no-check", main, socketOf(dir), `${dir}/disk`]],
      uri,
    },
  ];
}

/** Prepares the folder of a server: its file, and what else it wants. */
export async function prepare(dir: string, sizeBytes: number): Promise<void> {
  await Deno.mkdir(dir);
  await Deno.writeFile(`${dir}/disk`, new Uint8Array(0));
  await Deno.truncate(`${dir}/disk`, sizeBytes);
  const size = `filesize = ${sizeBytes}`;
  const config = ["[generic]", `unixsock = ${socketOf(dir)}`, "[disk]", `exportname = ${dir}/disk`, size];
  await Deno.writeTextFile(`${dir}/config`, `${[...config, "flush = true", "fua = true", "trim = true"].join("\n")}\n`);
}

/** Starts a server and waits until it listens. */
export async function start(kind: ServerKind, dir: string, sizeBytes: number): Promise<Background> {
  // nbdkit and qemu-nbd do not replace the socket that a killed server has left.
  await Deno.remove(socketOf(dir)).catch(() => {});
  const server = new Background(...kind.command(dir, sizeBytes));
  await server.listens(socketOf(dir));
  return server;
}
