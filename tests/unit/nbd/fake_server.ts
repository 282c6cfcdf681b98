// SPDX-License-Identifier: MIT
/** A server of NBD that answers what a test tells it to: its handshake is right, the rest is the test's. */
import * as p from "../../../src/nbd/protocol.ts";

/** A request that a client has sent. */
export interface Asked {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** Answers it: an error of the protocol's, or 0; a READ gets `length` bytes of 7. */
  answer(error?: number): Promise<void>;
}

/** A client's connection after its handshake. */
export interface FakeConnection {
  readonly asked: Asked[];
  readonly isOpen: boolean;
  close(): void;
}

/** A server with one export of 64 KiB, without structured replies. */
export class FakeServer implements Disposable {
  /** NBD_FLAG_* that the next client is told. */
  flags: number;
  /** Answers every request by itself. */
  isQuick = true;
  /** Every connection that has come as far as requests. */
  readonly connections: FakeConnection[] = [];
  readonly #conns = new Set<Deno.Conn>();
  readonly #listener: Deno.UnixListener;

  private constructor(path: string, flags: number) {
    this.flags = flags;
    this.#listener = Deno.listen({ transport: "unix", path });
    void this.#accept();
  }

  static async start(flags = 0): Promise<FakeServer> {
    return new FakeServer(`${await Deno.makeTempDir()}/fake.sock`, flags);
  }

  get uri(): string {
    return `nbd+unix:///disk?socket=${(this.#listener.addr as Deno.UnixAddr).path}`;
  }

  /** Connections that are open, in the handshake or after it. */
  get openCount(): number {
    return this.#conns.size;
  }

  /** As if the server had died, and another one were in its place. */
  restart(flags: number): void {
    this.flags = flags;
    for (const conn of this.#conns) this.#close(conn);
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    this.restart(0);
  }

  #close(conn: Deno.Conn): void {
    if (this.#conns.delete(conn)) conn.close();
  }

  async #accept(): Promise<void> {
    for await (const unix of this.#listener) {
      const conn = unix as unknown as Deno.Conn;
      this.#conns.add(conn);
      this.#serve(conn).catch(() => {}).finally(() => this.#close(conn));
    }
  }

  async #serve(conn: Deno.Conn): Promise<void> {
    await this.#shakeHands(conn);
    const asked: Asked[] = [];
    const conns = this.#conns;
    this.connections.push({
      asked,
      get isOpen() {
        return conns.has(conn);
      },
      close: () => this.#close(conn),
    });
    for (;;) {
      const head = await read(conn, p.REQUEST_BYTES);
      const [command, offset, length] = [head.getUint16(6), Number(head.getBigUint64(16)), head.getUint32(24)];
      if (command === p.NBD_CMD_DISC) return;
      if (command === p.NBD_CMD_WRITE) await read(conn, length);
      const answer = async (error = 0) => {
        const reply = new Uint8Array(p.SIMPLE_REPLY_BYTES + (command === p.NBD_CMD_READ && error === 0 ? length : 0));
        reply.fill(7);
        const view = new DataView(reply.buffer);
        view.setUint32(0, p.NBD_SIMPLE_REPLY_MAGIC);
        view.setUint32(4, error);
        view.setBigUint64(8, head.getBigUint64(8));
        await conn.write(reply);
      };
      const one: Asked = { command, offset, length, answer };
      asked.push(one);
      if (this.isQuick) await one.answer();
    }
  }

  async #shakeHands(conn: Deno.Conn): Promise<void> {
    const greeting = new DataView(new ArrayBuffer(18));
    greeting.setBigUint64(0, p.NBDMAGIC);
    greeting.setBigUint64(8, p.IHAVEOPT);
    greeting.setUint16(16, p.NBD_FLAG_FIXED_NEWSTYLE | p.NBD_FLAG_NO_ZEROES);
    await conn.write(new Uint8Array(greeting.buffer));
    await read(conn, 4);
    for (;;) {
      const head = await read(conn, p.OPTION_HEADER_BYTES);
      const option = head.getUint32(8);
      await read(conn, head.getUint32(12));
      const reply = async (type: number, data = new Uint8Array(0)) => {
        const bytes = new Uint8Array(p.OPTION_REPLY_HEADER_BYTES + data.length);
        const view = new DataView(bytes.buffer);
        view.setBigUint64(0, p.NBD_REP_MAGIC);
        view.setUint32(8, option);
        view.setUint32(12, type);
        view.setUint32(16, data.length);
        bytes.set(data, p.OPTION_REPLY_HEADER_BYTES);
        await conn.write(bytes);
      };
      if (option !== p.NBD_OPT_GO) {
        await reply(p.NBD_REP_ERR_UNSUP);
        continue;
      }
      const info = new DataView(new ArrayBuffer(12));
      info.setUint16(0, p.NBD_INFO_EXPORT);
      info.setBigUint64(2, 65536n);
      info.setUint16(10, p.NBD_FLAG_HAS_FLAGS | this.flags);
      await reply(p.NBD_REP_INFO, new Uint8Array(info.buffer));
      return await reply(p.NBD_REP_ACK);
    }
  }
}

async function read(conn: Deno.Conn, count: number): Promise<DataView> {
  const bytes = new Uint8Array(count);
  for (let done = 0; done < count;) {
    const some = await conn.read(bytes.subarray(done));
    if (some === null) throw new Error("the client has gone");
    done += some;
  }
  return new DataView(bytes.buffer);
}
