// SPDX-License-Identifier: MIT
/// <reference lib="dom" />
/** What the page changes, if it may: a question before, and what came of it. */
import type { Description } from "../moment.ts";
import { element } from "./card.ts";
import { exactBytes } from "./units.ts";

/** The buttons of a disk; none for what cannot be changed from here. */
export function buttonsOf(disk: () => Description | undefined, transport: Description["transport"]): HTMLElement[] {
  if (transport === "nbd") return [];
  const destroy = element("button", { class: "danger", text: "Destroy…" });
  destroy.addEventListener("click", () => {
    const one = disk();
    if (one !== undefined) askToDestroy(one);
  });
  if (transport !== "dblock.ko") return [destroy];
  const resize = element("button", { text: "Resize…" });
  resize.addEventListener("click", () => {
    const one = disk();
    if (one !== undefined) askToResize(one);
  });
  return [resize, destroy];
}

function askToDestroy({ name, path, id, openCount }: Description): void {
  const force = element("input");
  force.type = "checkbox";
  const inUse = openCount !== undefined && openCount > 0;
  const users = inUse ? ` It is in use: open ${openCount} ${openCount === 1 ? "time" : "times"}.` : "";
  ask({
    title: `Destroy ${path ?? name}?`,
    text: `The disk goes. What is in a file or on another machine stays; what is in memory is lost.${users}`,
    fields: [
      element("label", {}, force, document.createTextNode(" even if somebody uses it: what is not written is lost")),
    ],
    button: "Destroy",
    isDangerous: true,
    send: () => post("destroy", { disk: name, ...(id === undefined ? {} : { id }), force: force.checked }),
  });
}

function askToResize({ name, path, id, sizeBytes }: Description): void {
  const size = element("input");
  size.value = exactBytes(sizeBytes);
  ask({
    title: `Another size for ${path ?? name}`,
    text: "What lies behind the end of a disk that becomes smaller is lost.",
    fields: [element("label", {}, document.createTextNode("Size: "), size)],
    button: "Resize",
    isDangerous: false,
    send: () => post("resize", { disk: name, ...(id === undefined ? {} : { id }), size: size.value.trim() }),
  });
}

interface Question {
  readonly title: string;
  readonly text: string;
  readonly fields: readonly HTMLElement[];
  readonly button: string;
  readonly isDangerous: boolean;
  /** @returns why it was refused; undefined if it is done */
  readonly send: () => Promise<string | undefined>;
}

function ask({ title, text, fields, button, isDangerous, send }: Question): void {
  const refused = element("p", { class: "refused" });
  refused.setAttribute("role", "alert");
  const [go, cancel] = [element("button", { text: button }), element("button", { text: "Cancel" })];
  if (isDangerous) go.className = "danger";
  const dialog = element(
    "dialog",
    {},
    element("h2", { text: title }),
    element("p", { text }),
    ...fields,
    refused,
    element("div", { class: "buttons" }, cancel, go),
  );
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  go.addEventListener("click", async () => {
    go.disabled = true;
    refused.textContent = "";
    const why = await send();
    go.disabled = false;
    if (why === undefined) dialog.close();
    else refused.textContent = why;
  });
  document.body.append(dialog);
  dialog.showModal();
  cancel.focus();
}

/** @returns why it was refused */
async function post(what: string, asked: unknown): Promise<string | undefined> {
  try {
    const response = await fetch(`control/${what}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-dblock-control": "1" },
      body: JSON.stringify(asked),
    });
    return response.ok ? undefined : (await response.text()).trim();
  } catch {
    return "dblock top does not answer";
  }
}
