/**
 * The lab's page: draws what the lab tells (view.ts), and posts what its buttons ask for. It knows nothing else.
 */

import type { Action, DatagramView, HeapView, LabView, Resume, SlotView, WakeView } from "./view.js";

const SVG = "http://www.w3.org/2000/svg";

function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function element(name: string, className = "", ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

function shape(name: string, attributes: Readonly<Record<string, string | number>>, ...children: (Node | string)[]) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, String(value));
  }
  made.append(...children);
  return made;
}

const grouped = (count: number): string => count.toLocaleString("en");

// ---- datagrams ----

/** Bytes of a datagram that takes the whole height: the device's MTU. */
const TALLEST = 1232;

/** Pixels between two labels of the axis. */
const TICK_APART = 48;

interface Lane {
  readonly width: number;
  readonly height: number;
  /** Pixels between two datagrams, where there is room. */
  readonly gap: number;
  readonly left: number;
  readonly axis: "labelled" | "bare";
}

/** In their order and, where they are not too close to each other, where their time puts them. */
function places(datagrams: readonly DatagramView[], width: number, gap: number): number[] {
  const last = datagrams.length - 1;
  const whole = Math.max(datagrams.at(-1)?.at ?? 0, 1);
  const apart = Math.min(gap, width / Math.max(last, 1));
  const x = datagrams.map(({ at }) => (at / whole) * width);
  for (let i = 1; i <= last; i++) {
    x[i] = Math.max(x[i]!, x[i - 1]! + apart);
  }
  for (let i = last; i >= 0; i--) {
    x[i] = Math.min(x[i]!, width - (last - i) * apart);
  }
  return x;
}

/** Times between which the axis can be labelled. */
function steps(whole: number): number {
  const raw = whole / 6;
  const magnitude = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  return [1, 2, 5, 10].map((factor) => factor * magnitude).find((step) => step >= raw) ?? 10 * magnitude;
}

function summary(datagrams: readonly DatagramView[]): string {
  const of = (direction: string) => datagrams.filter((datagram) => datagram.direction === direction);
  const sum = (all: readonly DatagramView[]): string =>
    `${all.length} of ${grouped(all.reduce((bytes, datagram) => bytes + datagram.bytes, 0))} bytes`;
  const lost = datagrams.filter(({ isLost }) => isLost).length;
  return `datagrams: ${sum(of("out"))} out, ${sum(of("in"))} in${lost > 0 ? `, ${lost} of them lost` : ""}`;
}

function arrow(datagram: DatagramView, x: number, middle: number, reach: number, isLabelled: boolean): Node {
  const { direction, bytes, kind, isLost, at } = datagram;
  const up = direction === "out" ? -1 : 1;
  const length = Math.max(9, Math.min(1, bytes / TALLEST) * reach);
  const base = middle + up * 2;
  const tip = middle + up * (2 + length);
  // What goes out points away from the axis, what comes in points to it.
  const [from, to] = direction === "out" ? [base, tip] : [tip, base];
  const way = Math.sign(to - from);
  const title = `${Math.round(at)} ms: ${bytes} bytes ${direction}, ${kind}${isLost ? ", lost" : ""}`;
  const parts: Node[] = [
    shape("title", {}, title),
    shape("line", { x1: x, x2: x, y1: from, y2: to - way * 4, class: "shaft" }),
    shape("path", { d: `M${x - 4} ${to - way * 5.5}L${x} ${to}L${x + 4} ${to - way * 5.5}Z`, class: "head" }),
  ];
  if (isLost) {
    const y = (from + to) / 2;
    parts.push(shape("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, class: "cross" }));
  }
  if (isLabelled) {
    parts.push(shape("text", { x, y: tip + up * 5 + (up > 0 ? 7 : 0), "text-anchor": "middle" }, String(bytes)));
  }
  return shape(
    "g",
    { class: "datagram", "data-kind": kind, "data-direction": direction, ...(isLost && { "data-lost": "" }) },
    ...parts,
  );
}

function laneOf(wake: WakeView, { width, height, gap, left, axis }: Lane): SVGElement {
  const { datagrams } = wake;
  const isLabelled = axis === "labelled";
  const foot = isLabelled ? 20 : 0;
  const middle = (height - foot) / 2;
  const reach = middle - (isLabelled ? 18 : 4);
  const right = width - (isLabelled ? 20 : 8);
  const room = right - left - 12;
  const x = places(datagrams, room, gap).map((place) => left + 12 + place);
  const svg = shape("svg", {
    class: `lane ${axis}`,
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": summary(datagrams),
  });
  svg.append(shape("line", { class: "axis", x1: left, x2: right + 6, y1: middle, y2: middle }));
  if (isLabelled) {
    svg.append(
      shape("text", { class: "side", x: 0, y: middle - reach / 2 + 4 }, "out"),
      shape("text", { class: "side", x: 0, y: middle + reach / 2 + 4 }, "in"),
    );
    const whole = datagrams.at(-1)?.at ?? 0;
    const step = steps(whole);
    const label = (place: number, text: string): void => {
      svg.append(
        shape("line", { class: "tick", x1: place, x2: place, y1: 12, y2: height - foot }),
        shape("text", { class: "time", x: place, y: height - 4, "text-anchor": "middle" }, text),
      );
    };
    // The first and the last one, and between them what has room.
    const end = x.at(-1) ?? left;
    let free = left - TICK_APART;
    for (let time = 0; datagrams.length > 0 && time <= whole; time += step) {
      const next = datagrams.findIndex(({ at }) => at >= time);
      const [before, after] = [datagrams[Math.max(next - 1, 0)]!, datagrams[next]!];
      const share = after.at > before.at ? (time - before.at) / (after.at - before.at) : 1;
      const place = x[Math.max(next - 1, 0)]! + share * (x[next]! - x[Math.max(next - 1, 0)]!);
      if (time === 0 || (place - free >= TICK_APART && end - place >= TICK_APART)) {
        label(place, time === 0 ? "0 ms" : grouped(time));
        free = place;
      }
    }
    if (end - free >= TICK_APART) {
      label(end, grouped(Math.round(whole)));
    }
  }
  const sides = { out: -99, in: -99 };
  datagrams.forEach((datagram, i) => {
    const hasRoom = x[i]! - sides[datagram.direction] >= 30;
    svg.append(arrow(datagram, x[i]!, middle, reach, isLabelled && hasRoom));
    if (hasRoom) {
      sides[datagram.direction] = x[i]!;
    }
  });
  if (wake.state === "awake") {
    svg.append(shape("circle", { class: "now", cx: datagrams.length > 0 ? right + 6 : left, cy: middle, r: 3.5 }));
  }
  if (wake.state === "cut") {
    const end = (x.at(-1) ?? left) + 12;
    svg.append(shape("path", { class: "end", d: `M${end} ${middle - 12}v24M${end + 4} ${middle - 12}v24` }));
  }
  return svg;
}

// ---- wakes ----

const WAYS = { full: "full handshake", session: "session id", ticket: "ticket", context: "context" } as const;

function figure(value: string, name: string, more = ""): HTMLElement {
  return element("div", "figure", element("dt", "", name, element("span", "more", more)), element("dd", "", value));
}

function chipOf(wake: WakeView): HTMLElement {
  const way = wake.figures?.way ?? undefined;
  const chip = element("span", "chip", way ? WAYS[way] : wake.state === "done" ? "nothing due" : wake.state);
  chip.dataset.way = way ?? wake.state;
  return chip;
}

/** A bar whose parts are to scale. */
function bar(
  className: string,
  label: string,
  whole: number,
  parts: readonly (readonly [string, number])[],
): HTMLElement {
  const made = element("div", `bar ${className}`);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
  for (const [part, size] of parts) {
    const piece = element("span");
    piece.dataset.part = part;
    piece.style.width = `${Math.min(100, (100 * size) / whole)}%`;
    made.append(piece);
  }
  return made;
}

function heapOf({ xsPeak, dtlsPeak, xs }: HeapView, limit: number): HTMLElement {
  const row = (
    name: string,
    bytes: number,
    detail: string,
    parts: readonly (readonly [string, number])[],
  ): HTMLElement => {
    const label = `${name} heap: ${grouped(bytes)} of ${grouped(limit)} bytes at the peak${detail}`;
    const made = element("div", "heap-row", element("span", "name", name), bar("heap", label, limit, parts));
    made.append(element("span", "value", grouped(bytes), element("span", "more", ` of ${grouped(limit)} B`)));
    made.title = label;
    return made;
  };
  const parts = xs === undefined ? [["chunks", xsPeak] as const] : (Object.entries(xs) as [string, number][]);
  const detail = xs === undefined ? "" : `: ${parts.map(([part, size]) => `${grouped(size)} ${part}`).join(", ")}`;
  return element("div", "heap-rows", row("XS", xsPeak, detail, parts), row("DTLS", dtlsPeak, "", [["dtls", dtlsPeak]]));
}

function figuresOf({ handshake, application, ms, percent }: NonNullable<WakeView["figures"]>): HTMLElement {
  return element(
    "dl",
    "figures",
    figure(`${grouped(handshake.bytesOut)} + ${grouped(handshake.bytesIn)} B`, "handshake", ", out + in"),
    figure(percent === undefined ? "–" : `${percent}%`, "of a full handshake"),
    figure(String(handshake.roundTrips), "round trips"),
    figure(`${grouped(application.bytesOut)} + ${grouped(application.bytesIn)} B`, "requests", ", out + in"),
    figure(`${grouped(ms)} ms`, "awake"),
  );
}

function drawLatest(wake: WakeView | undefined, limit: number): void {
  const place = byId("latest");
  if (wake === undefined) {
    place.replaceChildren(element("p", "empty", "No wake yet."));
    return;
  }
  const width = Math.max(place.clientWidth, 240);
  const head = element(
    "p",
    "latest-head",
    element("strong", "", `Wake ${wake.id}`),
    ` ${wake.operation} `,
    chipOf(wake),
  );
  const said =
    wake.datagrams.length > 0
      ? laneOf(wake, { width, height: 208, gap: 32, left: 30, axis: "labelled" })
      : element(
          "p",
          "empty lane",
          wake.state === "awake" ? "The device starts." : "No datagram: the radio stayed off.",
        );
  place.replaceChildren(head, said);
  if (wake.figures !== undefined) {
    place.append(figuresOf(wake.figures), heapOf(wake.figures.heap, limit));
  } else if (wake.state !== "awake") {
    place.append(element("p", "said", wake.text));
  }
}

/** The item of each wake, and what it was drawn from. */
const drawn = new Map<number, { readonly item: HTMLElement; readonly from: string }>();

function drawWakes(wakes: readonly WakeView[], limit: number): void {
  const list = byId("wakes");
  const width = list.clientWidth > 760 ? list.clientWidth - 560 : Math.max(list.clientWidth, 200);
  const items = wakes.map((wake) => {
    const from = `${width} ${limit} ${JSON.stringify(wake)}`;
    const found = drawn.get(wake.id);
    if (found?.from === from) {
      return found.item;
    }
    const head = element(
      "div",
      "who",
      element("strong", "", `${wake.id}`),
      element("span", "", wake.operation),
      chipOf(wake),
    );
    const lane = element("div", "strip", laneOf(wake, { width, height: 72, gap: 9, left: 0, axis: "bare" }));
    const item = element("li", "wake", head, lane);
    item.dataset.wake = String(wake.id);
    item.dataset.state = wake.state;
    if (wake.figures !== undefined) {
      item.append(figuresOf(wake.figures), heapOf(wake.figures.heap, limit));
    } else if (wake.state !== "awake") {
      item.append(element("p", "said", wake.text));
    }
    drawn.set(wake.id, { item, from });
    return item;
  });
  for (const id of drawn.keys()) {
    if (!wakes.some((wake) => wake.id === id)) {
      drawn.delete(id);
    }
  }
  list.replaceChildren(...(items.length > 0 ? items.reverse() : [element("li", "empty", "Each wake is listed here.")]));
}

// ---- device and table ----

const KEPT = { retained: "in retained memory", flash: "in flash" } as const;

/** Bytes for each cell of a slot's picture. */
const CELL_BYTES = 16;

function slotOf({ slot, slotBytes, generation, content, bytes = 0, session }: SlotView): HTMLElement {
  const item = element("li", "slot");
  item.dataset.content = content;
  const isContext = session?.ways[0] === "context";
  const kind = session === undefined ? content : isContext ? "context" : (session.ways[0] ?? "none");
  item.dataset.kind = kind;
  const cells = element("div", "cells");
  cells.setAttribute("role", "img");
  cells.setAttribute("aria-label", `${bytes} of ${slotBytes} bytes`);
  for (let at = 0; at < slotBytes; at += CELL_BYTES) {
    cells.append(element("span", at < bytes ? "on" : ""));
  }
  const chips = element("p", "chips");
  const chip = (text: string, way: string): void => {
    const made = element("span", "chip", text);
    made.dataset.way = way;
    chips.append(made);
  };
  if (session === undefined) {
    chip(content, content);
  } else {
    for (const way of session.ways) {
      chip(way === "session" ? "session id" : way, way);
    }
    if (session.contextUsed) {
      chip("context used", "used");
    }
    if (content === "expired") {
      chip("expired", "expired");
    }
    if (session.sealed) {
      chip("sealed", "sealed");
    }
  }
  const head = element("p", "slot-head", element("strong", "", `slot ${slot}`));
  head.append(element("span", "", `${bytes} of ${slotBytes} B`));
  item.append(head, cells, chips);
  if (session !== undefined) {
    const list = element("dl");
    for (const [name, value] of [
      ["peer", session.peer],
      ["age", session.ageText],
      ["left", session.leftText],
      ["generation", String(generation)],
    ] as const) {
      const title = element("dt", name === "peer" ? "hidden" : "", name);
      list.append(element("div", "", title, element("dd", "", value)));
    }
    item.append(list);
  }
  return item;
}

function drawSlots(slots: readonly SlotView[], sessionsText: string): void {
  const [first] = slots;
  const kept = slots.find(({ session }) => session !== undefined)?.session?.in;
  byId("slots-note").textContent =
    first === undefined
      ? ""
      : `${slots.length} slots of ${first.slotBytes} bytes${kept === "retained" || kept === "flash" ? `, ${KEPT[kept]}` : ""}`;
  const items = slots.map(slotOf);
  byId("slots").replaceChildren(...(items.length > 0 ? items : [element("li", "empty", sessionsText)]));
}

function drawStatus({ status, validity }: LabView): void {
  const list = byId("status");
  list.replaceChildren(
    ...status.map(([name, value]) => {
      const row = element("div", "", element("dt", "", name), element("dd", "", value));
      row.dataset.name = name;
      return row;
    }),
  );
  const place = byId("validity");
  place.hidden = validity === undefined;
  if (validity !== undefined) {
    const { notBefore, notAfter, next, now } = validity;
    const percent = (time: number): number =>
      Math.min(100, Math.max(0, (100 * (time - notBefore)) / (notAfter - notBefore)));
    const track = bar("life", "", 100, [["life", percent(now)]]);
    track.setAttribute("aria-label", `${Math.round(percent(now))}% of the certificate's life is over`);
    const mark = element("i", "mark");
    mark.style.left = `${percent(next)}%`;
    track.append(mark);
    const due = element("span", "", "due");
    due.style.left = `${percent(next)}%`;
    place.replaceChildren(track, element("p", "", element("span", "", "issued"), due, element("span", "", "expires")));
  }
}

// ---- all of it ----

let shown: LabView | undefined;
const sections = new Map<string, string>();

/** Draws a section where what it shows has changed. */
function section(name: string, from: unknown, draw: () => void): void {
  const text = JSON.stringify(from);
  if (sections.get(name) !== text) {
    sections.set(name, text);
    draw();
  }
}

function drawControls({ device, isBusy, armed, resume, loss }: LabView, isConnected: boolean): void {
  const isAwake = device === "awake";
  for (const button of document.querySelectorAll<HTMLButtonElement>("button")) {
    const { when, arm } = button.dataset;
    button.disabled = !isConnected || (when === "awake" && !isAwake) || (when === "asleep" && isBusy);
    if (arm !== undefined) {
      button.setAttribute("aria-pressed", String(armed.some((what) => what === arm)));
    }
  }
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=way]")) {
    radio.checked = radio.value === resume;
    radio.disabled = !isConnected;
  }
  const slider = byId<HTMLInputElement>("loss");
  slider.disabled = !isConnected;
  if (document.activeElement !== slider || !isSliding) {
    slider.value = String(loss);
    byId("loss-text").textContent = `${loss} %`;
  }
}

function draw(view: LabView): void {
  const { wakes, heapLimit, outcome } = view;
  const latest = wakes.at(-1);
  byId("where").textContent = view.server;
  byId("folder").textContent = `The device's memory is ${view.folder}`;
  section("device", view.device, () => {
    byId("device").dataset.state = view.device;
    byId("device-text").textContent = view.device;
  });
  section("status", [view.status, view.validity], () => drawStatus(view));
  section("slots", [view.slots, view.sessionsText], () => drawSlots(view.slots, view.sessionsText));
  section("latest", [latest, window.innerWidth], () => drawLatest(latest, heapLimit));
  section("wakes", [wakes, window.innerWidth], () => drawWakes(wakes, heapLimit));
  section("outcome", outcome, () => {
    byId("outcome").textContent = outcome.text;
    byId("outcome").classList.toggle("error", outcome.isError);
    byId("command").hidden = outcome.command === undefined;
    byId("called").textContent = outcome.called ?? "";
    byId("whole").textContent = outcome.command ?? "";
  });
}

function refresh(isConnected: boolean): void {
  byId("lost").hidden = isConnected;
  if (shown !== undefined) {
    draw(shown);
    drawControls(shown, isConnected);
  }
}

function refuse(text: string): void {
  const place = byId("refusal");
  place.textContent = text;
  place.hidden = text === "";
}

async function post(action: Action): Promise<void> {
  refuse("");
  try {
    const body = JSON.stringify(action);
    const response = await fetch("/action", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!response.ok) {
      refuse((await response.text()).trim());
    }
  } catch {
    refuse("the lab does not answer");
  }
}

let isSliding = false;

function listen(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-do]")) {
    button.addEventListener("click", () => void post(JSON.parse(button.dataset.do!) as Action));
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-arm]")) {
    const what = button.dataset.arm as "lose" | "cut" | "move";
    button.addEventListener("click", () => void post({ action: "arm", what }));
  }
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=way]")) {
    radio.addEventListener("change", () => void post({ action: "resume", way: radio.value as Resume }));
  }
  const slider = byId<HTMLInputElement>("loss");
  slider.addEventListener("input", () => {
    isSliding = true;
    byId("loss-text").textContent = `${slider.value} %`;
  });
  slider.addEventListener("change", () => {
    isSliding = false;
    void post({ action: "loss", percent: Number(slider.value) });
  });
  // Erasing a device asks twice.
  const reset = byId("reset");
  const question = reset.textContent;
  let asked: number | undefined;
  const calm = (): void => {
    clearTimeout(asked);
    asked = undefined;
    reset.textContent = question;
    reset.classList.remove("danger");
  };
  reset.addEventListener("click", () => {
    if (asked === undefined) {
      reset.textContent = "Once more: erases keys, certificates, sessions";
      reset.classList.add("danger");
      asked = window.setTimeout(calm, 5000);
    } else {
      calm();
      void post({ action: "reset" });
    }
  });
  window.addEventListener("resize", () => shown && draw(shown));
}

listen();
const events = new EventSource("/events");
events.addEventListener("message", ({ data }) => {
  shown = JSON.parse(data as string) as LabView;
  refresh(true);
});
events.addEventListener("error", () => refresh(false));
