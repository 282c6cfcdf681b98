// SPDX-License-Identifier: MIT
/** Syncs of files that a test holds or lets fail. */

/** What syncs of files do until this is disposed. */
export interface Syncs extends Disposable {
  /** Lets those that wait go on, and those that come. */
  readonly release: () => void;
}

/** Every sync waits, until it is released. */
export function heldSyncs(): Syncs {
  const held = Promise.withResolvers<void>();
  const undo = replaced(async (sync) => {
    await held.promise;
    await sync();
  });
  const release = () => held.resolve();
  return {
    release,
    [Symbol.dispose]: () => {
      release();
      undo();
    },
  };
}

/** Every sync fails. */
export function failingSyncs(): Disposable {
  return { [Symbol.dispose]: replaced(() => Promise.reject(new Error("no room for the mark"))) };
}

/** @returns what undoes it */
function replaced(instead: (sync: () => Promise<void>) => Promise<void>): () => void {
  const { syncData } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.syncData = function () {
    return instead(() => syncData.call(this));
  };
  return () => void (Deno.FsFile.prototype.syncData = syncData);
}
