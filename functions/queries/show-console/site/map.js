// The map: the parts of the system, the events that travel between them, queues and faults.

import { $, count, el, list, setText } from "./dom.js";
import { about, consumers, metricsOf, RELAY } from "./consumers.js";
import { name } from "./order.js";

/** The parts that every deployment has: a title, what AWS calls it, and what it does. */
const PARTS = {
  api: ["API", "API Gateway", "Accepts commands and queries over HTTP. Each route has a function of its own."],
  store: ["Event store", "DynamoDB", "Keeps every event. A command appends its events with one conditional write."],
  stream: ["DynamoDB Stream", "of the event store", "Delivers each commit, in order, to the relay and to the deadline tracker."],
  relay: ["Relay", "Lambda", "Publishes each committed event to the bus."],
  bus: ["Bus", "Event\u200bBridge", "Delivers each event to the consumers whose rules match: at least once, in any order."],
  deadlines: ["Deadline tracker", "Lambda", "Keeps a deadline for each fulfilment that runs."],
  watchdog: ["Watchdog", "Lambda", "Finds fulfilments that make no progress, and retries their pending step."],
  models: ["Read models", "DynamoDB", "Answer the queries of the API. Each projection fills one."],
  dead: ["Dead letters", "SQS queue", "Keeps each delivery that failed three times, until an operator redrives it."],
};
const GROUPS = { step: "Saga", reaction: "Reactions", projection: "Projections" };

const NS = "http://www.w3.org/2000/svg";
/** The time between the departures of two events, and how far departures may be behind the events. */
const GAP_MS = 45;
const LATEST_MS = 900;
const TRUNK_MS = 1_000;
const HOP_MS = 500;
/** A line with more events per second shows their number instead of a dot for each. */
const BUSY = 20;
const MOST_DOTS = 120;
/** How long a failed delivery marks its consumer. */
const FAILED_MS = 4_000;

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const view = $("map-view");
/** By id: the button of a part, and the elements in it. */
const parts = new Map();
const lines = new Map();
const failedAt = new Map();
/** When the dot of an event reaches the bus, by the event. */
const arrivals = new Map();
let isSeen = true;
let selected = null;
let departure = 0;
let dots = 0;
let latest = null;

// ------------------------------------------------------------------------------------------ parts and lines

function part(id, title, kind) {
  const [fault, number, unit, more, bar] = ["fault", "number", "unit", "hidden", "bar"].map((className) => el(className === "number" ? "b" : "span", { className }));
  const button = el("button", { type: "button", className: "part", id: `part-${id}`, tabIndex: -1, onclick: () => select(id) },
    el("span", { className: "title" }, title), " ", kind && el("small", {}, kind), " ", number, unit, more, fault, bar);
  button.setAttribute("aria-pressed", false);
  parts.set(id, { id, title, button, fault, number, unit, more, bar });
  return button;
}

function line(from, to) {
  const path = document.createElementNS(NS, "path");
  const isBranch = to === "dead" && from !== "consumers";
  if (isBranch) path.classList.add("branch");
  else path.setAttribute("marker-end", "url(#arrow)");
  const rate = el("span", { className: from === "bus" ? "rate at-end" : "rate" });
  // A branch lies below the other lines.
  if (isBranch) $("map-lines").prepend(path);
  else $("map-lines").append(path);
  $("map-rates").append(rate);
  lines.set(`${from}>${to}`, { from, to, path, rate, isBranch, d: "", now: 0, perSecond: 0 });
}

function build() {
  for (const [id, [title, kind]] of Object.entries(PARTS)) $("parts").append(part(id, title, kind));
  const groups = Object.entries(GROUPS).map(([kind, title]) => {
    const members = consumers.filter((one) => one.kind === kind);
    return el("div", { className: "group", id: `part-${kind}s`, role: "group", "aria-label": title },
      el("span", { className: "group-title" }, title), ...members.map(({ id }) => part(id, name(id))));
  });
  // The parts are read in the order in which an event meets them.
  $("part-bus").after(el("div", { id: "part-consumers" }, ...groups));
  [["api", "store"], ["store", "stream"], ["stream", "relay"], ["relay", "bus"], ["stream", "deadlines"], ["deadlines", "watchdog"], ["watchdog", "store"], ["steps", "store"], ["consumers", "dead"]]
    .forEach(([from, to]) => line(from, to));
  for (const { id, kind } of consumers) {
    line("bus", id);
    line(id, "dead");
    if (kind === "projection") line(id, "models");
  }
  parts.get("api").button.tabIndex = 0;
}

/** The line between two boxes: straight where they face each other, else with two corners, as each branch is. */
function route(a, b, isBranch) {
  const isBeside = b.left >= a.right || b.right <= a.left;
  const [start, end, low, high] = isBeside ? ["left", "right", "top", "bottom"] : ["top", "bottom", "left", "right"];
  const [from, to] = b[start] >= a[end] ? [a[end], b[start]] : [a[start], b[end]];
  const [first, last] = [Math.max(a[low], b[low]), Math.min(a[high], b[high])];
  const facing = first < last && !isBranch ? (first + last) / 2 : null;
  const [out, into] = [facing ?? (a[low] + a[high]) / 2, facing ?? (b[low] + b[high]) / 2];
  const half = (from + to) / 2;
  return isBeside ? `M${from} ${out}H${half}V${into}H${to}` : `M${out} ${from}V${half}H${into}V${to}`;
}

/** The line from the saga back to the store: above the parts in between, or beside them. */
const detour = (a, b, isWide) =>
  isWide ? `M${(a.left + a.right) / 2} ${a.top}V5H${(b.left + b.right) / 2}V${b.top}` : `M${a.left} ${(a.top + a.bottom) / 2}H5V${(b.top + b.bottom) / 2}H${b.left}`;

function draw() {
  const origin = view.getBoundingClientRect();
  const box = (id) => {
    const { left, top, right, bottom } = $(`part-${id}`).getBoundingClientRect();
    return { left: left - origin.left, right: right - origin.left, top: top - origin.top, bottom: bottom - origin.top };
  };
  const bus = box("bus");
  const isWide = bus.bottom - bus.top > bus.right - bus.left;
  for (const one of lines.values()) {
    one.d = one.from === "steps" ? detour(box("steps"), box("store"), isWide) : route(box(one.from), box(one.to), one.isBranch);
    one.path.setAttribute("d", one.d);
    const { x, y } = one.path.getPointAtLength(one.path.getTotalLength() / (one.from === "bus" ? 1 : 2));
    one.rate.style.translate = `${x}px ${y}px`;
  }
}

// ------------------------------------------------------------------------------------------ events that travel

/** Sends a dot along lines, or only counts it. */
function send(way, outcome, delay, duration) {
  const along = way.map((key) => lines.get(key)).filter(Boolean);
  for (const one of along) one.now += 1;
  const isBusy = along.some(({ now, perSecond }) => now > BUSY || perSecond > BUSY);
  if (!along.length || isBusy || calm.matches || !isSeen || document.hidden || delay > LATEST_MS + TRUNK_MS + HOP_MS || dots >= MOST_DOTS) return;
  const dot = el("i", { className: `dot ${outcome}` });
  dot.style.offsetPath = `path("${along.map(({ d }) => d).join("").replace(/(?!^)M/g, "L")}")`;
  $("map-dots").append(dot);
  dots += 1;
  const travelled = dot.animate({ offsetDistance: ["0%", "100%"], opacity: [1, 1] }, { delay, duration });
  travelled.onfinish = () => {
    dots -= 1;
    dot.remove();
  };
}

/** Shows the events and the deliveries of a frame. */
export function travel({ events, deliveries }) {
  const now = performance.now();
  if (arrivals.size > 1_000) arrivals.clear();
  for (const { id, type, cause } of events) {
    departure = Math.max(departure, now);
    const wait = departure - now;
    if (wait < LATEST_MS) departure += GAP_MS;
    arrivals.set(id, now + wait + TRUNK_MS);
    // An event without a cause comes from a command, or from the watchdog.
    const source = cause ? [] : [type === "StepRetried" ? "watchdog>store" : "api>store"];
    send([...source, "store>stream", "stream>relay", "relay>bus"], "event", wait, TRUNK_MS);
  }
  for (const { consumer, event, outcome } of deliveries) {
    const wait = Math.max((arrivals.get(event) ?? now) - now, 0);
    send([`bus>${consumer}`], outcome, wait, HOP_MS);
    if (outcome === "failed" || outcome === "dead-letter") failedAt.set(consumer, now);
    if (outcome === "dead-letter") send([`${consumer}>dead`], outcome, wait + HOP_MS, HOP_MS);
    if (outcome !== "applied" && outcome !== "caught-up") continue;
    const isStep = consumers.some(({ id, kind }) => id === consumer && kind === "step");
    send([isStep ? "steps>store" : `${consumer}>models`], "event", wait + HOP_MS, isStep ? TRUNK_MS : HOP_MS);
  }
}

setInterval(() => {
  for (const one of lines.values()) {
    one.perSecond = one.now;
    one.now = 0;
    const isCounted = one.perSecond > (calm.matches ? 0 : BUSY);
    setText(one.rate, isCounted ? `${count(one.perSecond)}/s` : "");
    one.path.classList.toggle("busy", isCounted);
  }
}, 1_000);

// ------------------------------------------------------------------------------------------ numbers

/** The number of each part with its unit, by its id. */
function numbers({ frame, perSecond }) {
  const { running, stuck } = frame.fulfilments;
  return {
    store: [count(frame.seen), " events"],
    bus: [count(perSecond), "/s"],
    relay: [metricsOf(RELAY).latency, ""],
    deadlines: [count(running), " running"],
    watchdog: [count(stuck), " stuck"],
    dead: [count(frame.deadLetters), " waiting"],
    ...Object.fromEntries(consumers.map(({ id }) => [id, [metricsOf(id).applied, ""]])),
  };
}

/** The metrics that the panel shows of a part. */
function metricsOfPart(id, { frame, perSecond }) {
  const { running, stuck } = frame.fulfilments;
  const waiting = Object.values(frame.waiting).reduce((sum, one) => sum + one, 0);
  return {
    api: {},
    store: { "events since the start": count(frame.seen), "events per second": count(perSecond) },
    stream: {},
    relay: metricsOf(RELAY),
    bus: { "events since the start": count(frame.seen), "events per second": count(perSecond), "deliveries waiting": count(waiting) },
    deadlines: { "running fulfilments": count(running) },
    watchdog: { "running fulfilments": count(running), "stuck fulfilments": count(stuck) },
    models: {},
    dead: { "dead letters": count(frame.deadLetters) },
  }[id] ?? metricsOf(id);
}

/** Shows the numbers of a frame. `faults`: the titles of the active faults, by the part where they are. */
export function show(frame, perSecond, faults) {
  latest = { frame, perSecond, faults, numbers: {} };
  latest.numbers = numbers(latest);
  const now = performance.now();
  for (const { id, button, fault, number, unit, more, bar } of parts.values()) {
    const [value, of] = latest.numbers[id] ?? ["", ""];
    const waiting = frame.waiting[id] ?? 0;
    const problems = [...(faults.get(id) ?? []).map((title) => `fault: ${title}`), ...(now - (failedAt.get(id) ?? -Infinity) < FAILED_MS ? ["deliveries fail"] : [])];
    if (id === "dead" && frame.deadLetters) problems.push("needs a redrive");
    if (id === "watchdog" && frame.fulfilments.stuck) problems.push("needs manual action");
    setText(number, value);
    setText(unit, of);
    setText(more, ["", waiting && `${count(waiting)} waiting`, ...problems].filter((one) => one !== 0).join(", "));
    setText(fault, problems.length ? "!" : "");
    button.title = problems.join(", ");
    button.classList.toggle("faulty", problems.length > 0);
    // The bar is full at a thousand deliveries.
    bar.style.inlineSize = `${Math.min(Math.log10(1 + waiting) / 3, 1) * 100}%`;
  }
  panel();
}

function panel() {
  $("part").classList.toggle("open", selected !== null);
  $("part-close").hidden = selected === null;
  if (!selected || !latest) return;
  const { button, title } = parts.get(selected);
  const isConsumer = !(selected in PARTS);
  setText($("part-title"), title);
  setText($("part-about"), [isConsumer ? about(selected) : PARTS[selected][2], button.title && `Now: ${button.title}.`].filter(Boolean).join(" "));
  list($("part-metrics"), Object.entries(metricsOfPart(selected, latest)), ([key]) => key, ([key]) => el("div", {}, el("dt", {}, key), el("dd")), (item, [, text]) => setText(item.lastChild, text));
}

/** Scrolls a part into view from under the panel. */
function uncover(id) {
  const hidden = $(`part-${id}`).getBoundingClientRect().bottom + 8 - $("part").getBoundingClientRect().top;
  if (selected && hidden > 0 && getComputedStyle($("part")).position === "fixed") scrollBy(0, hidden);
}

function select(id) {
  selected = selected === id ? null : id;
  for (const one of parts.values()) one.button.setAttribute("aria-pressed", one.id === selected);
  if (selected === null) {
    setText($("part-title"), "No part selected");
    setText($("part-about"), "Select a part of the map for its metrics.");
    $("part-metrics").replaceChildren();
  }
  panel();
  uncover(id);
  setText($("part-said"), [$("part-title"), $("part-about"), ...$("part-metrics").querySelectorAll("div")].map((one) => one.innerText).join(" "));
}

// ------------------------------------------------------------------------------------------ keyboard and size

/** The gap from one box to another in the direction of a key. */
const GAPS = {
  ArrowLeft: (a, b) => a.left - b.right,
  ArrowRight: (a, b) => b.left - a.right,
  ArrowUp: (a, b) => a.top - b.bottom,
  ArrowDown: (a, b) => b.top - a.bottom,
};

/** An arrow key moves the focus to the nearest part in its direction. */
$("parts").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected) select(selected);
  const along = GAPS[event.key];
  if (!along) return;
  event.preventDefault();
  const own = event.target.getBoundingClientRect();
  const distance = (box) => {
    // A part that is straight ahead comes first, and of those the one whose middle is nearest.
    const sides = /Left|Right/.test(event.key) ? [GAPS.ArrowUp, GAPS.ArrowDown] : [GAPS.ArrowLeft, GAPS.ArrowRight];
    const aside = Math.max(...sides.map((gap) => gap(own, box)), 0);
    return along(own, box) + 3 * aside + Math.hypot(box.left + box.right - own.left - own.right, box.top + box.bottom - own.top - own.bottom) / 50;
  };
  const ahead = [...parts.values()].map(({ button }) => ({ button, box: button.getBoundingClientRect() })).filter(({ box }) => along(own, box) > -1);
  ahead.sort((a, b) => distance(a.box) - distance(b.box))[0]?.button.focus();
});
$("parts").addEventListener("focusin", ({ target }) => {
  for (const { button } of parts.values()) button.tabIndex = button === target ? 0 : -1;
});
$("part-close").addEventListener("click", () => {
  const { button } = parts.get(selected);
  select(selected);
  button.focus();
});

if (consumers.length) {
  build();
  new ResizeObserver(draw).observe(view);
  new IntersectionObserver(([entry]) => (isSeen = entry.isIntersecting), { rootMargin: "100%" }).observe(view);
}
