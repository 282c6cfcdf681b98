// SPDX-License-Identifier: MIT
/**
 * A client and its server in a network of their own, for vanished_test.ts: `vanished_main.ts acknowledged|sent|stalled [TLS]`.
 * Prints what becomes of the client's requests. The last word makes the connection one with TLS, with certificates of that folder.
 */
import { NbdBackend } from "../../../src/backends/nbd.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { recorder } from "./recorder.ts";
import { until } from "../until.ts";

const [mode, tlsDir] = Deno.args;
const { promise: answer, resolve: goOn } = Promise.withResolvers<void>();
let asked = 0;
const wait = () => (asked++, answer);
const server = await serveNbd({ disk: recorder(2 ** 26, { read: wait, write: wait }) }, {
  address: "127.0.0.1:0",
  memoryBytes: 2 ** 20,
  ...(tlsDir === undefined ? {} : {
    tls: {
      certificate: Deno.readTextFileSync(`${tlsDir}/server-cert.pem`),
      key: Deno.readTextFileSync(`${tlsDir}/server-key.pem`),
    },
  }),
});
const port = server.address.transport === "tcp" ? server.address.port : 0;
const uri = `${tlsDir === undefined ? "nbd" : "nbds"}://localhost:${port}/disk`;
const said: string[] = [];
const client = await NbdBackend.open(uri + (tlsDir === undefined ? "" : `?tls-certificates=${tlsDir}`), {
  reconnectTimeoutMs: 500,
  log: (line) => said.push(line),
});

async function vanish(): Promise<void> {
  await new Deno.Command("ip", { args: ["link", "set", "lo", "down"] }).output();
}

function outcome(request: Promise<void>): Promise<string> {
  return request.then(() => "done", ({ code }) => code);
}

if (mode === "stalled") {
  // More than the server takes and both sockets hold: the window stays shut for longer than a machine may be silent.
  const written = Array.from(
    { length: 64 },
    (_, n) => client.write(new Uint8Array(2 ** 19), n * 2 ** 19, requestOptions()),
  );
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  const takenFirst = asked;
  goOn();
  const outcomes = new Set(await Promise.all(written.map(outcome)));
  console.log(...outcomes, takenFirst < 16, said.length);
} else {
  if (mode === "sent") await vanish();
  const reading = outcome(client.read(new Uint8Array(512), 0));
  if (mode === "acknowledged") {
    await until(() => asked === 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await vanish();
  }
  const beganMs = performance.now();
  console.log(await reading, performance.now() - beganMs < 12_000, said[0]);
}
Deno.exit();
