// SPDX-License-Identifier: MIT
/** What a power cut may leave of a file that is written through `Deno.FsFile`. */

/** Contents of a file after a power cut, each of them once. */
export interface PowerCuts extends Disposable {
  readonly contents: readonly Uint8Array<ArrayBuffer>[];
}

/**
 * Notes, until it is disposed, what the file would be after a cut at each moment: what was durable, with one of the writes
 * since then alone, or with all of them.
 */
export function powerCuts(path: string): PowerCuts {
  const { write, syncData } = Deno.FsFile.prototype;
  const contents: Uint8Array<ArrayBuffer>[] = [];
  let durable = new Uint8Array();
  const add = (content: Uint8Array<ArrayBuffer>) => {
    if (!contents.some((known) => isSame(known, content))) contents.push(content);
  };
  Deno.FsFile.prototype.write = async function (data) {
    const before = Deno.readFileSync(path);
    const count = await write.call(this, data);
    const after = Deno.readFileSync(path);
    const alone = new Uint8Array(after.length > before.length ? after.length : durable.length);
    alone.set(durable.subarray(0, alone.length));
    for (const [i, byte] of after.entries()) if (byte !== before[i] && i < alone.length) alone[i] = byte;
    for (const content of [durable, alone, after]) add(content);
    return count;
  };
  Deno.FsFile.prototype.syncData = async function () {
    await syncData.call(this);
    durable = Deno.readFileSync(path);
    add(durable);
  };
  return { contents, [Symbol.dispose]: () => void Object.assign(Deno.FsFile.prototype, { write, syncData }) };
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}
