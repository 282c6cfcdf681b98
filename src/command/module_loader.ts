// SPDX-License-Identifier: MIT
/**
 * Loads a TypeScript module of the user's, and the files it imports, from the disk of this machine: anew each time, and
 * also in an executable, whose own loader knows neither TypeScript nor files. What the module exports is module_disk.ts's
 * business.
 */
import { dirname, resolve } from "./path.ts";
import * as sdk from "../mod.ts";
import { DblockError, describe, ERRNO, errnoOf } from "../disk/errors.ts";
import { type Mark, markOf } from "./file_watch.ts";

/** What a module exports. */
export type ModuleExports = Readonly<Record<string, unknown>>;

/** This package, under the names by which modules import it. */
const SDK = /^(jsr:)?@dblock\/dblock(@[^/]*)?$/;
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
    throw new DblockError("EINVAL", attempted, oneLine(error), { cause: error });
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
    if (/^\.{1,2}\/|^\/|^file:/.test(specifier)) {
      const target = specifier.startsWith("file:") ? fileOf(specifier) : resolve(dirname(file), specifier);
      return await this.#once(target, () => this.#moduleOf(target));
    }
    if (SDK.test(specifier)) {
      return await this.#once("@dblock/dblock", () => Promise.resolve(this.#constant("@dblock/dblock", sdk)));
    }
    if (/^(node|data):/.test(specifier)) {
      return await this.#once(specifier, async () => this.#constant(specifier, await import(specifier)));
    }
    throw this.#cannotImport(specifier, from as Code);
  }

  #cannotImport(specifier: string, { dependencySpecifiers }: Code): DblockError {
    const wrong = REMOTE.test(specifier)
      ? `it imports ${specifier}, which dblock does not download`
      : `it imports ${specifier}, and only files can be imported, such as "./${specifier}.ts"`;
    const external = dependencySpecifiers.filter((name) => SDK.test(name)).map((name) => ` --external ${name}`).join(
      "",
    );
    const hint = `make one file of it: deno bundle ${this.#path} -o disk.js${external}, and serve ./disk.js`;
    return new DblockError("EINVAL", this.#attempted, wrong, { hint });
  }
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
