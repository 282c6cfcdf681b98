// SPDX-License-Identifier: MIT
/**
 * Loads a TypeScript module of the user's, and the files it imports, from the disk of this machine: anew each time, and
 * also in an executable, whose own loader knows neither TypeScript nor files. What the module exports is module_disk.ts's
 * business.
 */
import { placeOf } from "./module_place.ts";
import { dirname, resolve } from "../system/path.ts";
import * as sdk from "../mod.ts";
import * as cli from "./cli.ts";
import { DblockError, describe, ERRNO, errnoOf } from "../disk/errors.ts";
import { type Mark, markOf } from "./file_watch.ts";
import { quoteWord } from "./words.ts";

/** What a module exports. */
export type ModuleExports = Readonly<Record<string, unknown>>;

/** This package, or a part of it, under the names by which modules import it. */
const SDK = /^(?:jsr:\/?)?@dblock\/dblock(?:@[^/]*)?(?:\/(.*))?$/;
/** The parts that a disk can use, "" being the whole. */
const SDK_PARTS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = { "": sdk, cli };
/** Specifiers of files. */
const FILE = /^\.{1,2}\/|^\/|^file:/;
const REMOTE = /^(jsr|npm|https?):/;

/** What the runtime has for modules whose text comes from elsewhere: V8's own, linked here, so imports in a circle work. */
type Vm = typeof import("node:vm");
type VmModule = InstanceType<Vm["Module"]>;
type Code = InstanceType<Vm["SourceTextModule"]>;

/**
 * Loads a module. Each call loads it again, whatever was loaded before.
 *
 * @param files gets the files it is made of, absolute, the module's own first, with marks of what was read; also those that it
 * imports later. If the module cannot be loaded: those that were looked for.
 * @throws {DblockError} ENOENT (no such file), EINVAL (it cannot be understood, or imports what cannot be had here): one line
 * with what to type instead.
 */
export async function loadModule(path: string, files: Map<string, Mark> = new Map()): Promise<ModuleExports> {
  const attempted = `Cannot load ${path}`;
  // Asked for by name, so that a program which loads no module does not load this either.
  const loader = new Loader(await import("node:vm"), attempted, path, files);
  try {
    return await loader.run(resolve(path));
  } catch (error) {
    if (error instanceof DblockError && error.attempted === attempted) throw error;
    const place = await placeOf(error, files);
    const wrong = place === undefined ? oneLine(error) : `${place}: ${oneLine(error)}`;
    throw new DblockError("EINVAL", attempted, wrong, { cause: error });
  }
}

/** All modules of one load. */
class Loader {
  readonly #vm: Vm;
  readonly #attempted: string;
  readonly #path: string;
  readonly #files: Map<string, Mark>;
  /** By file, or by the name of what is no file. */
  readonly #modules = new Map<string, Promise<VmModule>>();
  readonly #fileOf = new Map<VmModule, string>();
  /** Ends when nothing is being linked: a module may be linked once, and two imports can ask for it. */
  #linked: Promise<unknown> = Promise.resolve();

  constructor(vm: Vm, attempted: string, path: string, files: Map<string, Mark>) {
    this.#vm = vm;
    this.#attempted = attempted;
    this.#path = path;
    this.#files = files;
  }

  /** Runs a file's code and what it imports; the exports. */
  async run(file: string): Promise<ModuleExports> {
    return (await this.#evaluated(await this.#once(file, () => this.#moduleOf(file)))).namespace as ModuleExports;
  }

  async #evaluated(module: VmModule): Promise<VmModule> {
    const linked = this.#linked.then(async () => {
      if (module.status === "unlinked") await module.link((specifier, from) => this.#imported(specifier, from));
    });
    this.#linked = linked.catch(() => {});
    await linked;
    await module.evaluate();
    return module;
  }

  #once(key: string, make: () => Promise<VmModule>): Promise<VmModule> {
    const known = this.#modules.get(key);
    if (known !== undefined) return known;
    const made = make();
    this.#modules.set(key, made);
    return made;
  }

  async #moduleOf(file: string): Promise<VmModule> {
    this.#files.set(file, await markOf(file)); // before it is read: a change after that is seen
    const text = await this.#read(file);
    if (file.endsWith(".json")) return this.#constant(file, { default: this.#parsedJson(text, file) });
    const code = /\.[cm]?ts$/.test(file) ? await this.#stripped(text, file) : text;
    const url = fileUrl(file);
    const module: Code = this.#checked(file, () =>
      new this.#vm.SourceTextModule(code, {
        identifier: url,
        initializeImportMeta: (meta) => {
          const resolveUrl = (specifier: string) => new URL(specifier, url).href;
          Object.assign(meta, { url, filename: file, dirname: dirname(file), main: false, resolve: resolveUrl });
        },
        importModuleDynamically: async (specifier) => await this.#evaluated(await this.#imported(specifier, module)),
      }));
    this.#fileOf.set(module, file);
    return module;
  }

  #checked(file: string, make: () => Code): Code {
    try {
      return make();
    } catch (error) {
      throw new DblockError("EINVAL", this.#attempted, `${file}: ${oneLine(error)}`, { cause: error });
    }
  }

  /** A module of values that are there. */
  #constant(name: string, values: Readonly<Record<string, unknown>>): VmModule {
    const names = Object.keys(values);
    const give = () => names.forEach((each) => module.setExport(each, values[each]));
    const module = new this.#vm.SyntheticModule(names, give, { identifier: name });
    return module;
  }

  async #read(file: string): Promise<string> {
    try {
      return await Deno.readTextFile(file);
    } catch (error) {
      const wrong = error instanceof Deno.errors.NotFound ? `there is no file ${file}` : describe(error);
      throw new DblockError(errnoOf(error) ?? ERRNO.EIO, this.#attempted, wrong, { cause: error });
    }
  }

  #parsedJson(text: string, file: string): unknown {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new DblockError("EINVAL", this.#attempted, `${file}: ${oneLine(error)}`, { cause: error });
    }
  }

  /** Without the types. */
  async #stripped(text: string, file: string): Promise<string> {
    // Asked for by name, so that a program which loads no module does not load this either.
    const { stripTypeScriptTypes } = await import("node:module") as unknown as {
      stripTypeScriptTypes(code: string, options: { mode: "transform" }): string;
    };
    try {
      return stripTypeScriptTypes(text, { mode: "transform" });
    } catch (error) {
      const [, place = ""] = /stripTypeScriptTypes\.ts(:\d+:\d+)/.exec(describe(error)) ?? [];
      const wrong = `${file}${place}: ${oneLine(error).replace(/ at file:.*/, "")}`;
      throw new DblockError("EINVAL", this.#attempted, wrong, { cause: error });
    }
  }

  /** What a module means by a specifier. */
  async #imported(specifier: string, from: VmModule): Promise<VmModule> {
    const file = this.#fileOf.get(from)!;
    if (FILE.test(specifier)) {
      const target = targetOf(specifier, file);
      return await this.#once(target, () => this.#moduleOf(target));
    }
    const [sdkName, part = ""] = SDK.exec(specifier) ?? [];
    if (sdkName !== undefined) {
      const values = SDK_PARTS[part];
      if (values === undefined) throw this.#noSuchPart(specifier, part);
      const name = `@dblock/dblock/${part}`;
      return await this.#once(name, () => Promise.resolve(this.#constant(name, values)));
    }
    if (/^(node|data):/.test(specifier)) {
      return await this.#once(specifier, async () => this.#constant(specifier, await import(specifier)));
    }
    throw await this.#cannotImport(specifier);
  }

  #noSuchPart(specifier: string, part: string): DblockError {
    const wrong = `it imports ${specifier}`;
    return part === "testing"
      ? new DblockError("EINVAL", this.#attempted, `${wrong}, which is for tests`, {
        hint: "test the disk in a file of its own, which imports both: deno test -A disk_test.ts",
      })
      : new DblockError("EINVAL", this.#attempted, `${wrong}, which is no part of this package`, {
        hint: "there are: @dblock/dblock and @dblock/dblock/cli",
      });
  }

  async #cannotImport(specifier: string): Promise<DblockError> {
    const wrong = REMOTE.test(specifier)
      ? `it imports ${specifier}, which dblock does not download`
      : `it imports ${specifier}, and only files can be imported, such as "./${specifier}.ts"`;
    const external = [...await this.#sdkNames()].map((name) => ` --external ${quoteWord(name)}`).join("");
    const path = quoteWord(this.#path);
    const hint = `make one file of it: deno bundle ${path} -o disk.js${external}, and serve ./disk.js`;
    return new DblockError("EINVAL", this.#attempted, wrong, { hint });
  }

  /** The names by which this package is imported anywhere in the disk's files: a bundle must not have it a second time. */
  async #sdkNames(): Promise<ReadonlySet<string>> {
    const names = new Set<string>();
    const files = new Set([resolve(this.#path)]);
    for (const file of files) { // it grows meanwhile
      // A file that is missing, or has a mistake, is said when the bundle is made.
      const module = await this.#once(file, () => this.#moduleOf(file)).catch(() => undefined);
      for (const specifier of (module as Code | undefined)?.dependencySpecifiers ?? []) {
        if (SDK.test(specifier)) names.add(specifier);
        else if (FILE.test(specifier)) files.add(targetOf(specifier, file));
      }
    }
    return names;
  }
}

/** The file that is meant by a specifier in another file. */
function targetOf(specifier: string, file: string): string {
  return specifier.startsWith("file:") ? fileOf(specifier) : resolve(dirname(file), specifier);
}

function fileUrl(file: string): string {
  return `file://${file.split("/").map(encodeURIComponent).join("/")}`;
}

function fileOf(url: string): string {
  return decodeURIComponent(new URL(url).pathname);
}

function oneLine(error: unknown): string {
  const text = error instanceof SyntaxError ? error.message : describe(error);
  return text.split("\n", 1)[0]!;
}
