// SPDX-License-Identifier: MIT
/**
 * The connections of one client to one export. When the server goes, requests wait, and those that were not answered are
 * sent again to the next server at that address.
 */
import type { ConnectionOptions } from "node:tls";
import type { Extent } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { formatNbdAddress, type NbdAddress } from "./address.ts";
import { connectError } from "./address_words.ts";
import { Call } from "./call.ts";
import { Connection } from "./connection.ts";
import { type Agreed, negotiate } from "./negotiation.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from "./protocol.ts";
import { noticeSilence } from "./silence.ts";
import { ConnWire } from "./wire.ts";

/** One attempt, from the first packet to the end of the handshake. */
const ATTEMPT_MS = 10_000;
/** The pause after an attempt that failed: twice as long each time. */
const PAUSE_MS_MIN = 20;
const PAUSE_MS_MAX = 1_000;
/** What a machine takes to acknowledge anything at all, with a switch that starts anew on the way: a guess. */
const SILENCE_MS_MAX = 20_000;
const SILENCE_MS_MIN = 3_000;
const LOOKS = 4;
/** What a server can do, and a client of this program asks of it. */
const USED_FLAGS = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;

/** Where an export is, and how to use it. */
export interface ClientOptions {
  readonly address: NbdAddress;
  readonly exportName: string;
  readonly tls: ConnectionOptions | undefined;
  /** At most; one as long as the server does not say that several are safe. */
  readonly connections: number;
  /** For how long requests wait for a server that has gone, in ms; 0 or Infinity: for as long as it takes. */
  readonly reconnectTimeoutMs: number;
  readonly log: (message: string) => void;
}

/** One export, through as many connections as there may be. */
export class Client {
  /** What the first server has said. */
  readonly agreed: Agreed;
  readonly #options: ClientOptions;
  readonly #where: string;
  readonly #connections = new Set<Connection>();
  readonly #running: Promise<void>[] = [];
  readonly #closing = new AbortController();
  /** Requests that no connection has. */
  #waiting: Call[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The server has been away for too long, or is another one: why requests fail at once. */
  #lost: DblockError | undefined;
  #isClosed = false;
  /** Resolves when a connection begins or ends. */
  #change = Promise.withResolvers<void>();
  readonly #watch: ReturnType<typeof setInterval>;

  private constructor(options: ClientOptions, agreed: Agreed) {
    this.#options = options;
    this.#where = `${formatNbdAddress(options.address)}, export "${options.exportName}"`;
    this.agreed = agreed;
    const silenceMs = silenceMsOf(options.reconnectTimeoutMs);
    this.#watch = setInterval(() => this.#leaveSilent(silenceMs), silenceMs / LOOKS);
    Deno.unrefTimer(Number(this.#watch));
    this.#running.push(this.#lane(agreed));
    for (let n = 1; n < options.connections; n++) this.#running.push(this.#lane(undefined));
  }

  /**
   * Connects once.
   *
   * @throws {DblockError} what is wrong with the address, the server, or the export.
   */
  static async open(options: ClientOptions): Promise<Client> {
    try {
      return new Client(options, await attempt(options, new AbortController().signal));
    } catch (error) {
      const attempted = `Cannot open ${formatNbdAddress(options.address)}, export "${options.exportName}"`;
      if (!(error instanceof DblockError)) throw connectError(attempted, options.address, error);
      throw new DblockError(error.errno, attempted, error.message, { cause: error });
    }
  }

  /** Sends a request, now or when there is a server. @throws {DblockError} the server's error, or ENOLINK */
  request(
    command: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    data?: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const call = new Call(command, flags, offsetBytes, lengthBytes, data);
    this.#send(call);
    return call.done;
  }

  /** What a range consists of, as far as the server says it at once. */
  async extents(offsetBytes: number, lengthBytes: number): Promise<readonly Extent[]> {
    const call = new Call(NBD_CMD_BLOCK_STATUS, 0, offsetBytes, lengthBytes, undefined);
    this.#send(call);
    await call.done;
    return call.extents;
  }

  /** Ends the connections. Requests that are open fail. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#closing.abort();
    clearTimeout(this.#timer);
    this.#changed();
    this.#failWaiting(new DblockError("ENODEV", "", "the disk is closed"));
    await Promise.all([...this.#connections].map((connection) => connection.close()));
    await Promise.all(this.#running);
    clearInterval(this.#watch);
  }

  #send(call: Call): void {
    let best: Connection | undefined;
    for (const connection of this.#connections) {
      if (!connection.isTaking) continue;
      if (best === undefined || connection.openCount < best.openCount) best = connection;
    }
    if (best !== undefined) best.send(call);
    else if (this.#isClosed) call.fail(new DblockError("ENODEV", "", "the disk is closed"));
    else if (this.#lost !== undefined) call.fail(this.#lost);
    else this.#waiting.push(call);
  }

  /**
   * One connection after the other, until `close()`. Never rejects.
   *
   * @param first the connection of the first lane, which looks for the server when there is none; the other lanes follow
   */
  async #lane(first: Agreed | undefined): Promise<void> {
    let agreed = first;
    let pauseMs = PAUSE_MS_MIN;
    while (!this.#isClosed) {
      if (agreed === undefined && !this.#mayConnect(first !== undefined)) {
        await this.#change.promise;
        continue;
      }
      try {
        agreed ??= await attempt(this.#options, this.#closing.signal);
        this.#check(agreed);
      } catch (error) {
        agreed?.wire.close();
        agreed = undefined;
        if (error instanceof Changed) this.#lose(error.why);
        await pause(pauseMs, this.#closing.signal);
        pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
        continue;
      }
      if (!this.#isSafe(agreed.flags)) {
        agreed.wire.close();
        agreed = undefined;
        await this.#change.promise;
        continue;
      }
      const connection = new Connection(agreed);
      agreed = undefined;
      if (this.#isClosed) await connection.close();
      const running = connection.run();
      this.#attach(connection);
      const { unanswered, why } = await running;
      this.#detach(connection, unanswered, why);
      // A server that takes connections and answers nothing is not there yet.
      if (connection.answeredCount > 0) pauseMs = PAUSE_MS_MIN;
      else await pause(pauseMs, this.#closing.signal);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    }
  }

  /** Until a server has said that several connections are safe, one lane alone looks for it. */
  #mayConnect(isFirst: boolean): boolean {
    return this.#connections.size === 0 ? isFirst : this.#isSafe(NBD_FLAG_CAN_MULTI_CONN);
  }

  /**
   * Whether a server with these flags can be used at the same time as those behind the open connections. Without the flag, a
   * FLUSH need not cover what other connections have written.
   */
  #isSafe(flags: number): boolean {
    for (const { agreed } of this.#connections) {
      if ((flags & agreed.flags & NBD_FLAG_CAN_MULTI_CONN) === 0) return false;
    }
    return true;
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers<void>();
  }

  #attach(connection: Connection): void {
    this.#connections.add(connection);
    this.#changed();
    clearTimeout(this.#timer);
    if (this.#timer !== undefined) {
      this.#options.log(`${this.#where}: the server is back, ${this.#waiting.length} requests go on`);
    }
    this.#timer = undefined;
    this.#lost = undefined;
    for (const call of this.#waiting.splice(0)) connection.send(call);
  }

  #detach(connection: Connection, unanswered: readonly Call[], why: string): void {
    this.#connections.delete(connection);
    this.#changed();
    if (this.#isClosed) {
      for (const call of unanswered) call.fail(new DblockError("ENODEV", "", "the disk is closed"));
      return;
    }
    if (this.#connections.size === 0 && this.#timer === undefined) this.#gone(why);
    const nowMs = performance.now();
    for (const call of unanswered) {
      // A request that ends one connection after the other waits no longer than one that finds no server.
      call.lostSinceMs ??= nowMs;
      const waitedMs = nowMs - call.lostSinceMs;
      if (this.#isBounded && waitedMs > this.#options.reconnectTimeoutMs) {
        call.fail(new DblockError("ENOLINK", `Cannot reach ${this.#where}`, why));
      } else this.#send(call);
    }
  }

  get #isBounded(): boolean {
    const { reconnectTimeoutMs } = this.#options;
    return reconnectTimeoutMs > 0 && reconnectTimeoutMs !== Infinity;
  }

  #leaveSilent(silenceMs: number): void {
    for (const connection of this.#connections) {
      const { wire } = connection.agreed;
      if (wire.silentMs() > silenceMs) connection.cut(`the server's machine has been silent for ${silenceMs / 1000} s`);
    }
  }

  /** No connection is left. */
  #gone(why: string): void {
    const { reconnectTimeoutMs: timeoutMs } = this.#options;
    const isBounded = this.#isBounded;
    this.#options.log(`${this.#where}: ${why}; requests wait${isBounded ? ` ${timeoutMs / 1000} s` : ""} for it`);
    // Unbounded is longer than any timer: only the message that it is back hangs on it.
    this.#timer = setTimeout(() => {
      if (isBounded) this.#lose(`the server has been away for ${timeoutMs / 1000} s`);
    }, isBounded ? timeoutMs : 2 ** 31 - 1);
    Deno.unrefTimer(Number(this.#timer));
  }

  #lose(why: string): void {
    if (this.#lost !== undefined || this.#connections.size > 0) return;
    this.#lost = new DblockError("ENOLINK", `Cannot reach ${this.#where}`, why);
    this.#options.log(`${this.#lost.message}: requests fail until it is back`);
    this.#failWaiting(this.#lost);
  }

  #failWaiting(error: DblockError): void {
    for (const call of this.#waiting.splice(0)) call.fail(error);
  }

  /** The next server has to have the same disk, and to know what the first one knew. */
  #check(agreed: Agreed): void {
    const { sizeBytes, flags, minBlockBytes, maxPayloadBytes, allocationId } = this.agreed;
    if (agreed.sizeBytes < sizeBytes) {
      throw new Changed(`the export has ${agreed.sizeBytes} bytes now, not ${sizeBytes}`);
    }
    const isLess = (flags & ~agreed.flags & USED_FLAGS) !== 0 || agreed.minBlockBytes > minBlockBytes ||
      agreed.maxPayloadBytes < maxPayloadBytes || allocationId !== undefined && agreed.allocationId === undefined;
    if (isLess) throw new Changed("the export cannot do any more what it could before");
  }
}

/** Another server is at the address than the one that was there. */
class Changed extends Error {
  readonly why: string;

  constructor(why: string) {
    super(why);
    this.why = why;
  }
}

/** Connects and shakes hands, in `ATTEMPT_MS` at most. */
async function attempt(options: ClientOptions, signal: AbortSignal): Promise<Agreed> {
  const { exportName, tls } = options;
  let wire: ConnWire | undefined;
  let over: DblockError | undefined;
  const given = Promise.withResolvers<never>();
  const giveUp = (why: DblockError) => {
    over = why;
    wire?.close();
    given.reject(why);
  };
  const late = new DblockError("ETIMEDOUT", "", `the server does not answer for ${ATTEMPT_MS / 1000} s`);
  const timer = setTimeout(() => giveUp(late), ATTEMPT_MS);
  const close = () => giveUp(new DblockError("ECANCELED", "", "the disk is closed"));
  signal.addEventListener("abort", close, { once: true });
  const connected = (async () => {
    wire = await connect(options);
    if (over !== undefined) wire.close();
    return await negotiate(wire, { exportName, tls });
  })();
  try {
    return await Promise.race([connected, given.promise]);
  } catch (error) {
    connected.catch(() => {}); // nobody waits for it any more
    wire?.close();
    throw error;
  } finally {
    given.promise.catch(() => {});
    clearTimeout(timer);
    signal.removeEventListener("abort", close);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}

async function connect({ address, reconnectTimeoutMs }: ClientOptions): Promise<ConnWire> {
  if (address.transport === "unix") {
    return new ConnWire(await Deno.connect({ transport: "unix", path: address.path }) as unknown as Deno.Conn);
  }
  const conn = await Deno.connect({ hostname: address.hostname, port: address.port });
  conn.setNoDelay();
  return new ConnWire(conn as unknown as Deno.Conn, {
    watchedFd: noticeSilence(conn, silenceMsOf(reconnectTimeoutMs)),
  });
}

/** For how long a machine may be silent before it counts as gone. Who wants to wait for less than that hears of it sooner. */
function silenceMsOf(reconnectTimeoutMs: number): number {
  return reconnectTimeoutMs === 0
    ? SILENCE_MS_MAX
    : Math.min(Math.max(reconnectTimeoutMs, SILENCE_MS_MIN), SILENCE_MS_MAX);
}
