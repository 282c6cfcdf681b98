// SPDX-License-Identifier: MIT
/** The clients of the matrix: how each of them writes a file to an export, reads one from it, and what else it can try. */
import { assert, assertEquals } from "@std/assert";
import type { NbdAddress } from "../../src/mod.ts";
import type { SparseDisk } from "./sparse.ts";
import { Background, run } from "./tools.ts";

/** Where an export is, and how to get there. */
export interface Target {
  readonly address: NbdAddress;
  readonly exportName: string;
  /** A folder with certificates; undefined: the connection is plain. */
  readonly certificates: string | undefined;
  readonly readOnly: boolean;
  /** What the export holds. */
  readonly disk: SparseDisk;
  /** A file with the same content. */
  readonly file: string;
  /** A folder for files of the test. */
  readonly dir: string;
}

/** A client, and all that it does to an export; throws what is wrong. */
export type Client = (target: Target) => Promise<void>;

/** The URI of the NBD project, with libnbd's parameters. */
export function uriOf({ address, exportName, certificates }: Target): string {
  const scheme = certificates === undefined ? "nbd" : "nbds";
  const tls = certificates === undefined ? "" : `tls-certificates=${certificates}`;
  if (address.transport === "tcp") return `${scheme}://localhost:${address.port}/${exportName}${tls && `?${tls}`}`;
  return `${scheme}+unix:///${exportName}?socket=${address.path}${tls && `&tls-hostname=localhost&${tls}`}`;
}

/** Options that name the export for a tool of qemu. */
function qemuOptions({ address, exportName, certificates }: Target): { objects: string[]; image: string } {
  const place = address.transport === "tcp"
    ? `server.type=inet,server.host=localhost,server.port=${address.port}`
    : `server.type=unix,server.path=${address.path}`;
  const tls = certificates === undefined ? "" : `,tls-creds=tls0,tls-hostname=localhost`;
  return {
    objects: certificates === undefined
      ? []
      : ["--object", `tls-creds-x509,id=tls0,endpoint=client,dir=${certificates}`],
    image: `driver=nbd,export=${exportName},${place}${tls}`,
  };
}

async function nbdinfo(target: Target): Promise<void> {
  const uri = uriOf(target);
  const { exports: [found] } = JSON.parse(await run("nbdinfo", ["--json", uri]));
  assertEquals(
    [found["export-name"], found["export-size"], found.is_read_only, found.can_multi_conn, found["block_size_minimum"]],
    [target.exportName, target.disk.sizeBytes, target.readOnly, true, 512],
  );
  assertEquals(found.contexts, ["base:allocation"]);
  assert((await run("nbdinfo", ["--list", uri])).includes(`export="${target.exportName}"`));
  const map: { length: number; type: number }[] = JSON.parse(await run("nbdinfo", ["--json", "--map", uri]));
  const data = target.disk.extents(0, target.disk.sizeBytes).filter(({ kind }) => kind === "data");
  const sum = (lengths: number[]) => lengths.reduce((total, length) => total + length, 0);
  assertEquals(
    [sum(map.map(({ length }) => length)), sum(map.filter(({ type }) => type === 0).map(({ length }) => length))],
    [target.disk.sizeBytes, sum(data.map(({ lengthBytes }) => lengthBytes))],
  );
}

async function nbdcopy(target: Target): Promise<void> {
  const uri = uriOf(target);
  if (!target.readOnly) await run("nbdcopy", ["--flush", target.file, uri]);
  const copy = `${target.dir}/nbdcopy`;
  await run("nbdcopy", ["--connections=4", "--requests=64", uri, copy]);
  assert(await target.disk.equalsFile(copy));
  await Deno.remove(copy);
}

/** What nbdsh says to an export, command by command; `h` is connected. */
const SCRIPT = `
import nbd, errno
size = h.get_size()
def fails(number, what, *args):
    try:
        what(*args)
    except nbd.Error as e:
        assert e.errno == errno.errorcode[number], e
        return
    raise Exception("it went well")
b = bytes([7]) * 1024
if h.is_read_only():
    h.set_strict_mode(0)
    fails(errno.EPERM, h.pwrite, b, 0)
    fails(errno.EPERM, h.zero, 512, 0)
else:
    old = h.pread(65536, 0)
    h.pwrite(b, 512)
    assert h.pread(1024, 512) == b
    h.pwrite(b, 0, nbd.CMD_FLAG_FUA)
    h.zero(1024, 0)
    h.zero(1024, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
    assert h.pread(1024, 0) == bytes(1024)
    h.trim(65536, 0)
    h.flush()
    h.pwrite(old, 0)
    cookies = [h.aio_pread(nbd.Buffer(4096), n * 4096) for n in range(64)]
    while h.aio_in_flight() > 0: h.poll(-1)
    assert all(h.aio_command_completed(c) for c in cookies)
h.cache(4096, 0)
h.set_strict_mode(0)
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.EINVAL, h.pread, 100, 1)
assert h.pread(512, size - 512) == h.pread(1024, size - 1024)[512:]
`;

async function nbdsh(target: Target): Promise<void> {
  for (const structured of ["True", "False"]) {
    const connect = [`h.set_request_structured_replies(${structured})`, `h.set_uri_allow_local_file(True)`].join("\n");
    const context = structured === "True"
      ? `
h.add_meta_context("base:allocation")
h.connect_uri(${JSON.stringify(uriOf(target))})
assert h.can_meta_context("base:allocation")
spans = []
def f(context, offset, entries, err): spans.extend(entries)
h.block_status(min(h.get_size(), 2**30), 0, f)
assert spans[1] == 0
spans = []
h.block_status(min(h.get_size(), 2**30), 0, f, nbd.CMD_FLAG_REQ_ONE)
assert len(spans) == 2`
      : `h.connect_uri(${JSON.stringify(uriOf(target))})`;
    await run("nbdsh", ["-c", `${connect}\n${context}\n${SCRIPT}\nh.shutdown()`]);
  }
}

async function qemuImg(target: Target): Promise<void> {
  const { objects, image } = qemuOptions(target);
  const info = JSON.parse(await run("qemu-img", ["info", ...objects, "--output=json", "--image-opts", image]));
  assertEquals(info["virtual-size"], target.disk.sizeBytes);
  if (!target.readOnly) {
    await run("qemu-img", [
      "convert",
      ...objects,
      "-n",
      "-W",
      "-f",
      "raw",
      "--target-image-opts",
      target.file,
      image,
    ]);
  }
  const copy = `${target.dir}/qemu-img`;
  await run("qemu-img", ["convert", ...objects, "--image-opts", image, "-O", "raw", copy]);
  assert(await target.disk.equalsFile(copy));
  await Deno.remove(copy);
  const map: { start: number; length: number; data: boolean }[] = JSON.parse(
    await run("qemu-img", ["map", ...objects, "--output=json", "--image-opts", image]),
  );
  const expected = target.disk.extents(0, target.disk.sizeBytes).map(({ lengthBytes, kind }) => [
    lengthBytes,
    kind === "data",
  ]);
  assertEquals(map.map(({ length, data }) => [length, data]), expected);
  if (target.certificates === undefined) {
    // Two images, one of which is a file: compare takes options for both or for neither.
    const file = `driver=raw,file.driver=file,file.filename=${target.file}`;
    const said = await run("qemu-img", ["compare", "--image-opts", file, image]);
    assert(said.includes("Images are identical"), said);
  }
}

async function qemuIo(target: Target): Promise<void> {
  const { objects, image } = qemuOptions(target);
  const io = (...commands: string[]) =>
    run("qemu-io", [
      ...objects,
      ...(target.readOnly ? ["-r"] : []),
      "--image-opts",
      image,
      ...commands.flatMap((command) => ["-c", command]),
    ]);
  const end = target.disk.sizeBytes - 512;
  if (target.readOnly) {
    const said = await io("read 0 64k", `read ${end} 512`);
    assert(said.includes("read 512/512 bytes"), said);
    return;
  }
  const [first, last] = [new Uint8Array(262_144), new Uint8Array(512)];
  target.disk.read(first, 0);
  target.disk.read(last, end);
  const said = await io(
    "write -P 7 0 128k",
    "read -P 7 0 128k",
    "write -f -P 8 4k 4k",
    "read -P 8 4k 4k",
    "write -z 0 64k",
    "write -z -u 64k 64k",
    "read -P 0 0 128k",
    "aio_write -P 9 0 4k",
    "aio_write -P 10 4k 4k",
    "aio_write -P 11 128k 100k",
    "aio_flush",
    "read -P 9 0 4k",
    "read -P 10 4k 4k",
    "read -P 11 128k 100k",
    "discard 0 64k",
    `write -P 12 ${end} 512`,
    `read -P 12 ${end} 512`,
    "flush",
  );
  assert(!/failed|error/i.test(said), said);
  target.disk.write(first, 0);
  target.disk.write(last, end);
}

/** qemu-storage-daemon is the client, and exports what it sees to nbdcopy. */
async function storageDaemon(target: Target): Promise<void> {
  const { objects, image } = qemuOptions(target);
  const socket = `${target.dir}/qsd.sock`;
  const writable = target.readOnly ? "off" : "on";
  await using daemon = new Background("qemu-storage-daemon", [
    ...objects,
    "--blockdev",
    `node-name=disk,read-only=${target.readOnly ? "on" : "off"},${image}`,
    "--nbd-server",
    `addr.type=unix,addr.path=${socket}`,
    "--export",
    `type=nbd,id=e,node-name=disk,name=through,writable=${writable}`,
  ]);
  await daemon.listens(socket);
  const uri = `nbd+unix:///through?socket=${socket}`;
  if (!target.readOnly) await run("nbdcopy", ["--flush", target.file, uri]);
  const copy = `${target.dir}/qsd`;
  await run("nbdcopy", [uri, copy]);
  assert(await target.disk.equalsFile(copy));
  await Deno.remove(copy);
}

async function fio(target: Target): Promise<void> {
  const first = new Uint8Array(2 ** 20);
  target.disk.read(first, 0);
  // fio does not allow its URI to name files, so it cannot know whom to trust.
  const uri = uriOf(target).replace(/tls-certificates=.*/, "tls-verify-peer=0");
  const job = ["--name=job", "--ioengine=nbd", `--uri=${uri}`, "--size=1m", "--bs=4k", "--iodepth=16"];
  const how = target.readOnly
    ? ["--rw=randread"]
    : ["--rw=randwrite", "--verify=crc32c", "--verify_state_save=0", "--fsync=32"];
  const said = await run("fio", [...job, ...how, "--output-format=json"]);
  // A line of libnbd's comes first.
  const { jobs: [{ error, read, write }] } = JSON.parse(said.slice(said.indexOf("{\n")));
  assertEquals(error, 0);
  assert(read.total_ios >= 256 && (target.readOnly || write.total_ios === 256));
  target.disk.write(first, 0);
}

/** Every client, by its name. */
export const CLIENTS: Readonly<Record<string, Client>> = {
  "nbdinfo": nbdinfo,
  "nbdcopy": nbdcopy,
  "nbdsh": nbdsh,
  "qemu-img": qemuImg,
  "qemu-io": qemuIo,
  "qemu-storage-daemon": storageDaemon,
  "fio": fio,
};

/** What a client has no way to do, and why. */
export const CANNOT: Readonly<Record<string, string>> = {
  "fio tls+cert": "fio's engine takes no certificates",
};
