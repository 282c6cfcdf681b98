// SPDX-License-Identifier: MIT
/** What the module's sources say of it: its parameters, its files in sysfs, its calls. */
import { ATTRIBUTES } from "./attributes.ts";

/** A name and what it means. */
export interface Named {
  readonly name: string;
  readonly text: string;
}

/** Everything that the page of the module has from its sources. */
export interface ModuleSources {
  readonly parameters: readonly Named[];
  /** Files of /sys/block/NAME/dblock/, in their order. */
  readonly attributes: readonly Named[];
  /** Calls of the ABI. */
  readonly calls: readonly Named[];
  readonly states: readonly string[];
}

/** What the calls do, where no structure of the header says it. */
const EXCHANGE = "Here are n completions; give me what is next: the one call that answers requests and gets them";

/** Reads the folder `kmod/`. */
export function readModuleSources(folder: string): ModuleSources {
  const texts = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    /\.c$/.test(name) && !/\.mod\.c$/.test(name)
  )
    .sort().map((name) => Deno.readTextFileSync(`${folder}/${name}`));
  const header = Deno.readTextFileSync(`${folder}/uapi/dblock.h`);
  const sysfs = Deno.readTextFileSync(`${folder}/sysfs.c`);
  const state = Deno.readTextFileSync(`${folder}/state.c`);
  const parameters = texts.flatMap((text) =>
    [...text.matchAll(/MODULE_PARM_DESC\((\w+), "(.*)"\)/g)].map(([, name, text]) => ({ name: name!, text: text! }))
  );
  const described = new Map(
    [...header.matchAll(/^ \* struct dblock_\w+ - (.*) \((DBLOCK_IOC_\w+)(?:, (_\w+))?\)$/gm)].flatMap((
      [, text, name, more],
    ) =>
      [
        [name!, text!],
        ...(more === undefined ? [] : [[`DBLOCK_IOC${more}`, "all devices, or several at once"]]),
      ] as [string, string][]
    ),
  );
  const names = [...header.matchAll(/^#define (DBLOCK_IOC_\w+)\s+_IO/gm)].map((match) => match[1]!);
  return {
    parameters,
    attributes: [...sysfs.matchAll(/&(?:dblock|dev)_attr_(\w+)\.attr\b/g)].map(([, name = ""]) => {
      const text = ATTRIBUTES[name];
      if (text === undefined) throw new Error(`src/build/manual/attributes.ts does not say what ${name} is`);
      return { name, text };
    }),
    calls: names.map((name) => ({ name, text: described.get(name) ?? (name.endsWith("EXCHANGE") ? EXCHANGE : "") })),
    states: [...(/dblock_state_names\[\][^{]*\{([^}]*)\}/.exec(state)?.[1] ?? "").matchAll(/"(\w+)"/g)].map((match) =>
      match[1]!
    ),
  };
}
