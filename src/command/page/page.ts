// SPDX-License-Identifier: MIT
/// <reference lib="dom" />
/** The page: listens to what it is told each second, and puts the disks, the table and what happened in their places. */
import { Card, element, formatField, latest, setText } from "./card.ts";
import { buttonsOf } from "./control.ts";
import { type Disk, Model } from "./model.ts";
import { counted, formatBytes, formatCount, formatTime } from "./units.ts";
import type { Happening } from "../happenings.ts";
import type { Beginning } from "../lookout.ts";
import type { Moment } from "../moment.ts";
import type { Field } from "./terms.ts";
import { byName } from "./order.ts";

const COLUMNS: readonly Field[] = [
  "reads",
  "writes",
  "readBytes",
  "writeBytes",
  "p50Ms",
  "p99Ms",
  "inFlight",
  "errors",
];
/** Without a word for so long, the numbers are old. */
const SILENCE_MS = 4_000;
/** Where dark.css holds, by what the user has chosen. */
const THEMES: Readonly<Record<string, string>> = {
  auto: "(prefers-color-scheme: dark)",
  dark: "all",
  light: "not all",
};

const model = new Model();
const cards = new Map<string, Card>();
const rows = new Map<string, HTMLTableRowElement>();
let mayControl = false;
let heardMs = 0;

const byId = (id: string) => document.getElementById(id)!;

function connect(): void {
  const source = new EventSource("events");
  source.addEventListener("beginning", (event) => {
    const beginning = JSON.parse(event.data) as Beginning;
    mayControl = beginning.control;
    setText(byId("host"), beginning.host);
    setText(byId("version"), `dblock ${beginning.version}`);
    document.title = `${beginning.host}: dblock`;
    for (const card of cards.values()) card.remove();
    cards.clear();
    model.begin(beginning);
    show();
  });
  source.addEventListener("moment", (event) => {
    heardMs = Date.now();
    model.add(JSON.parse(event.data) as Moment);
    show();
  });
  source.addEventListener("error", () => {
    // A browser comes back by itself, unless it was refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, SILENCE_MS);
    showLive();
  });
}

function show(): void {
  const names = [...model.disks].sort(([, a], [, b]) => byName(a.description.name, b.description.name));
  for (const [key, card] of cards) {
    if (model.disks.has(key)) continue;
    card.remove();
    cards.delete(key);
  }
  const place = byId("disks");
  for (const [i, [key, disk]] of names.entries()) {
    let card = cards.get(key);
    if (card === undefined) {
      const buttons = mayControl ? buttonsOf(() => model.disks.get(key)?.description, disk.description.transport) : [];
      card = new Card(key, model, buttons);
      cards.set(key, card);
    }
    if (place.children[i] !== card.root) place.insertBefore(card.root, place.children[i] ?? null);
    card.update();
  }
  byId("none").hidden = names.length > 0 || model.times.length === 0;
  byId("disks").dataset.count = `${names.length}`;
  showTable(names);
  showHappenings();
  showTotals(names.map(([, disk]) => disk));
  const note = byId("note");
  setText(note, model.notes.join(" "));
  note.hidden = model.notes.length === 0;
  showLive();
}

function showTable(names: readonly (readonly [string, Disk])[]): void {
  byId("overview").hidden = names.length < 2;
  const body = byId("rows");
  for (const [key, row] of rows) {
    if (model.disks.has(key)) continue;
    row.remove();
    rows.delete(key);
  }
  for (const [i, [key, disk]] of names.entries()) {
    let row = rows.get(key);
    if (row === undefined) {
      const name = element("button", { class: "name" });
      name.addEventListener("click", () => cards.get(key)?.root.scrollIntoView({ behavior: "smooth" }));
      row = element("tr", {}, element("th", {}, name), ...COLUMNS.map((field) => element("td", { class: field })));
      rows.set(key, row);
    }
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
    setText(row.cells[0]!.firstChild!, disk.description.name);
    for (const [column, field] of COLUMNS.entries()) {
      setText(row.cells[column + 1]!, formatField(field, latest(disk, field)));
    }
    row.classList.toggle("failing", (latest(disk, "errors") ?? 0) > 0);
  }
}

function showTotals(disks: readonly Disk[]): void {
  const sum = (...fields: Field[]) =>
    disks.reduce((total, disk) => fields.reduce((all, field) => all + (latest(disk, field) ?? 0), total), 0);
  const requests = sum("reads", "writes", "others");
  const bytes = sum("readBytes", "writeBytes");
  setText(byId("count"), counted(disks.length, "disk"));
  setText(byId("requests"), `${formatCount(requests)} ${requests === 1 ? "request" : "requests"}/s`);
  setText(byId("bytes"), `${formatBytes(bytes)}/s`);
}

function showHappenings(): void {
  const list = byId("list");
  const items = new Map(
    [...list.children].map((item) => [Number((item as HTMLElement).dataset.number), item as HTMLElement]),
  );
  for (const [i, happening] of model.happenings.entries()) {
    const item = items.get(happening.number) ?? makeItem(happening);
    items.delete(happening.number);
    fillItem(item, happening);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  }
  for (const item of items.values()) item.remove();
  byId("quiet").hidden = model.happenings.length > 0;
  const bad = (kind: Happening["kind"]) =>
    model.happenings.reduce((sum, one) => one.kind === kind ? sum + one.count : sum, 0);
  const alarm = byId("alarm");
  const [deaths, errors] = [bad("death"), bad("error")];
  const parts = [...(deaths > 0 ? [counted(deaths, "death")] : []), ...(errors > 0 ? [counted(errors, "error")] : [])];
  setText(alarm, parts.join(", "));
  alarm.hidden = parts.length === 0;
}

function makeItem({ number, kind }: Happening): HTMLElement {
  const item = element("li", { class: kind }, element("time"), element("b"), element("span"));
  item.dataset.number = `${number}`;
  return item;
}

function fillItem(item: HTMLElement, { disk, timeMs, lastMs, text }: Happening): void {
  const [time, name, what] = [...item.children] as [HTMLElement, HTMLElement, HTMLElement];
  const [from, to] = [formatTime(timeMs), formatTime(lastMs)];
  setText(time, from === to ? from : `${from} – ${to}`);
  setText(name, disk);
  setText(what, text);
}

function showLive(): void {
  const isLive = Date.now() - heardMs < SILENCE_MS;
  const live = byId("live");
  setText(live, isLive ? "live" : heardMs === 0 ? "connecting" : "no answer from dblock top");
  live.dataset.live = `${isLive}`;
}

/** The colours are the system's, or the user's choice, which is kept. */
function chooseTheme(theme: string): void {
  document.documentElement.dataset.theme = theme;
  byId("dark").setAttribute("media", THEMES[theme]!);
  setText(byId("theme"), `theme: ${theme}`);
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // It is not kept.
  }
  recolour();
}

function recolour(): void {
  for (const card of cards.values()) card.recolour();
}

function keptTheme(): string {
  try {
    const kept = localStorage.getItem("theme") ?? "auto";
    return Object.hasOwn(THEMES, kept) ? kept : "auto";
  } catch {
    return "auto";
  }
}

byId("theme").addEventListener("click", () => {
  const themes = Object.keys(THEMES);
  const at = themes.indexOf(document.documentElement.dataset.theme!);
  chooseTheme(themes[(at + 1) % themes.length]!);
});
matchMedia(THEMES["auto"]!).addEventListener("change", recolour);
byId("dark").addEventListener("load", recolour); // a browser is in no hurry with a file that does not hold
chooseTheme(keptTheme());
setInterval(showLive, 1_000);
connect();
