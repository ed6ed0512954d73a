// The selected order: its steps, its timeline, and its state at each version.

import { $, el, list, setText, seldom, clock, count, money } from "./dom.js";
import { get, orders, settings } from "./api.js";

export const STEPS = [
  ["screen-order", "screened for fraud", "order cancelled"],
  ["reserve-stock", "stock reserved", "stock released"],
  ["authorize-payment", "payment authorized", "payment voided"],
  ["arrange-shipment", "parcel label created", "label cancelled"],
  ["capture-payment", "payment captured", "payment refunded"],
  ["confirm-order", "order confirmed", "stock returned"],
];
const MARKS = { completed: "✓ done", failed: "✗ failed", compensated: "↩ compensated", "compensation-failed": "✗ compensation failed", due: "… next" };
const ENDED = ["completed", "aborted"];
/** The most rows of the timeline: the first and the latest. */
const MOST_ROWS = 120;

const state = { id: null, order: null, past: null, events: [], moments: [], deliveries: new Map(), pinned: null, dirty: false };
const pasts = new Map();

export const watched = () => state.id;
export const hasEnded = () => state.order !== null && ENDED.includes(state.order.fulfilment.status);

/** Selects an order. */
export function watch(id) {
  if (state.id === id) return;
  Object.assign(state, { id, order: null, past: null, events: [], moments: [], deliveries: new Map(), pinned: null });
  pasts.clear();
  setText($("order-said"), "");
  draw();
  refresh();
  loadDeliveries();
}

/** Reads the order and its events again. */
export const refresh = seldom(150, async () => {
  const id = state.id;
  if (!id) return;
  const [order, events] = await Promise.all([orders.get(id), orders.events(id)]);
  if (id !== state.id || !order) return;
  state.order = order;
  state.events = events;
  state.moments = [...new Set(events.map((event) => event.time))];
  draw();
});

/** Loads the deliveries of its events from before it was selected. */
export async function loadDeliveries() {
  if (!settings.live || !state.id) return;
  const id = state.id;
  const { deliveries } = await get(`/console/orders/${id}/deliveries`);
  if (id === state.id) addDeliveries(deliveries);
}

/** Adds deliveries of any orders, each once. Returns whether one of them belongs to the selected order. */
export function addDeliveries(deliveries) {
  let news = false;
  for (const delivery of deliveries) {
    if (!state.id || !delivery.event.includes(state.id)) continue;
    const known = state.deliveries.get(delivery.event) ?? [];
    if (known.some((other) => other.n === delivery.n)) continue;
    known.push(delivery);
    known.sort((a, b) => a.n - b.n);
    state.deliveries.set(delivery.event, known);
    news = true;
  }
  if (news) draw();
  return news;
}

function draw() {
  if (state.dirty) return;
  state.dirty = true;
  requestAnimationFrame(() => {
    state.dirty = false;
    render();
  });
}

function render() {
  const shown = state.pinned === null ? state.order : state.past;
  $("order-actions").classList.toggle("unused", state.id === null);
  $("order-view").classList.toggle("past", state.pinned !== null);
  $("moment").disabled = state.id === null;
  // The steps are shown before an order is selected, so that nothing moves later.
  if (state.id === null) return saga(null);
  head(shown);
  help(state.order);
  saga(shown);
  slider();
  list(rows(), shownEvents(), (event) => event.id, makeRow, updateRow);
  const now = state.order;
  $("cancel").disabled = !now || !["placed", "confirmed"].includes(now.status);
  $("ship").disabled = !now || now.status !== "confirmed" || now.fulfilment.status !== "completed";
}

const rows = () => $("timeline").tBodies[0];

function shownEvents() {
  const { events } = state;
  return events.length <= MOST_ROWS ? events : [...events.slice(0, MOST_ROWS / 2), ...events.slice(-MOST_ROWS / 2)];
}

const TONES = { confirmed: "good", shipped: "good", completed: "good", cancelled: "bad", aborted: "bad", stuck: "bad", compensating: "warn" };
export const chip = (text) => el("span", { className: `pill ${TONES[text] ?? ""}` }, text);

function head(order) {
  const what = order ? order.lines.map((line) => `${line.quantity} × ${line.sku}`).join(", ") : "";
  const parts = order
    ? [el("span", {}, `${what}, ${money(order.total)}`), chip(order.status), el("span", {}, "fulfilment"), chip(order.fulfilment.status)]
    : [el("span", {}, "not stored yet")];
  const reason = order?.cancellation?.reason;
  const parcel = order?.shipment ? `${order.shipment.carrier} ${order.shipment.trackingNumber}` : null;
  const text = [reason, parcel].filter(Boolean).join(", ");
  const key = JSON.stringify([state.id, what, order?.status, order?.fulfilment.status, text]);
  if ($("order-head").dataset.said === key) return;
  $("order-head").dataset.said = key;
  const id = el("code", { id: "order-id" }, state.id);
  // Only an order that is stuck now can be settled.
  const more = order?.fulfilment.status === "stuck" ? el("button", { type: "button", className: "small", popoverTargetElement: $("order-help") }, "What to do") : null;
  $("order-head").replaceChildren(id, el("span", { className: "row" }, ...parts, ...(more ? [more] : []), el("span", { className: "quiet" }, text)));
}

/** The tool as a reader can call it: from the work tree where the system runs locally, as it is installed elsewhere. */
const TOOL = settings.endpoint ? `cargo run -p cairn-cli -- --endpoint-url ${settings.endpoint}` : "cairn";

/** Shows an operator how to settle a stuck order: in a popover, so that it moves nothing. */
function help(order) {
  const isStuck = order?.fulfilment.status === "stuck";
  if (!isStuck) $("order-help").hidePopover();
  if (!isStuck || $("order-help").dataset.id === state.id) return;
  $("order-help").dataset.id = state.id;
  $("order-help-text").replaceChildren(
    el("p", {}, "Settle the failed compensation with the provider. Then run one of these commands:"),
    el("p", {}, "Retry the compensation: ", el("code", {}, `${TOOL} saga resume ${state.id}`)),
    el("p", {}, "Skip it and compensate the remaining steps: ", el("code", {}, `${TOOL} saga abandon ${state.id} --reason 'refunded by hand'`)),
  );
}

function saga(order) {
  const steps = order?.fulfilment.steps ?? [];
  const status = order?.fulfilment.status;
  // Of a step that completed and was compensated, the last outcome counts.
  const outcomes = new Map(steps.map((step) => [step.step, step]));
  const due = status === "running" ? STEPS.find(([name]) => !outcomes.has(name))?.[0] : null;
  list($("saga"), STEPS, ([name]) => name, ([name]) => el("li", {}, el("b", {}, name), el("span", {}), el("small", {})), (item, [name, done, undone]) => {
    const step = outcomes.get(name);
    const outcome = step?.outcome ?? (name === due ? "due" : "");
    item.className = outcome;
    setText(item.children[1], MARKS[outcome] ?? "not started");
    // A step without an outcome in time is compensated as well.
    const wasDone = state.events.some((event) => event.type === "StepCompleted" && event.data.step === name);
    setText(item.children[2], step?.detail ?? { completed: done, compensated: wasDone ? undone : "no answer: cancelled" }[outcome] ?? "");
  });
}

function slider() {
  const input = $("moment");
  const last = Math.max(state.moments.length, 1);
  input.max = last;
  input.value = state.pinned ?? last;
  $("now").disabled = state.pinned === null;
  const place = state.pinned ?? last;
  const time = state.moments[place - 1];
  if (!time) return setText($("moment-says"), "");
  const upTo = state.events.filter((event) => event.time <= time);
  const versions = new Map(upTo.map((event) => [event.subject.split("-")[0], event.streamversion]));
  const at = [...versions].map(([stream, version]) => `${stream}@${version}`).join(", ");
  const text = state.pinned === null
    ? `Now: ${at}. Move the slider to see the order at each earlier version.`
    : `As of ${clock(time)}, ${after(time)} after it was placed: ${at}.`;
  setText($("moment-says"), text);
  input.setAttribute("aria-valuetext", text);
}

/** A duration as text. */
export const since = (ms) => (ms < 10_000 ? `${count(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

const after = (time) => since(Date.parse(time) - Date.parse(state.moments[0] ?? time));

function makeRow(event) {
  const about = [event.data?.step, event.data?.reason, event.data?.detail].filter((text) => typeof text === "string");
  const stream = event.subject.split("-")[0];
  const cell = (properties, ...children) => el("td", { role: "cell", ...properties }, ...children);
  return el(
    "tr",
    { role: "row" },
    cell({}, `+${after(event.time)}`),
    cell({}, el("b", {}, event.type)),
    cell({ className: "id" }, `${stream}@${event.streamversion}`),
    cell({ className: "about" }, about.join(", ")),
    cell({ "data-live": "" }),
  );
}

function updateRow(row, event) {
  const time = state.moments[(state.pinned ?? 0) - 1];
  row.classList.toggle("later", time !== undefined && event.time > time);
  const deliveries = state.deliveries.get(event.id) ?? [];
  const cell = row.lastElementChild;
  if (cell.childElementCount && Number(cell.dataset.n) === deliveries.length) return;
  cell.dataset.n = deliveries.length;
  const did = new Map();
  for (const { consumer, outcome, gap } of deliveries) {
    const key = `${consumer} ${outcome}`;
    const one = did.get(key) ?? { consumer, outcome, gap: 0, times: 0 };
    one.times += 1;
    one.gap += gap ?? 0;
    did.set(key, one);
  }
  const together = [...did.values()].sort((a, b) => a.consumer.localeCompare(b.consumer));
  cell.replaceChildren(...together.flatMap((one) => [chipOf(one), " "]));
}

const SIGNS = { applied: ["✓", "applied"], duplicate: ["=", "duplicate skipped"], "caught-up": ["↻", "arrived early, filled a gap of"], failed: ["✗", "failed, retried"], "dead-letter": ["✗", "dead letter"] };

function chipOf({ consumer, outcome, gap, times }) {
  const [sign, words] = SIGNS[outcome] ?? ["", outcome];
  const twice = times > 1 ? ` ×${times}` : "";
  // notify-customer has no record of a sent email. The email provider recognizes the key.
  const key = times > 1 && name(consumer) === "notify-customer" ? ", with one key" : "";
  const more = { "caught-up": ` +${gap}`, "dead-letter": ", dead letter" }[outcome] ?? twice + key;
  return el("span", { className: `did ${outcome}`, title: `${name(consumer)}: ${words}${outcome === "dead-letter" ? "" : more}` }, `${sign} ${name(consumer)}${more}`);
}

/** `ProjectOrdersFunction` as its crate is called: `project-orders`. */
export const name = (id) => id.replace(/Function$/, "").replace(/(?!^)([A-Z])/g, "-$1").toLowerCase();

async function look(place) {
  const { id } = state;
  state.pinned = place >= state.moments.length ? null : place;
  const time = state.moments[place - 1];
  if (state.pinned !== null) {
    // The past does not change, so each version is read once.
    if (!pasts.has(time)) pasts.set(time, await orders.at(id, time));
    if (id !== state.id || state.pinned !== place) return;
    state.past = pasts.get(time);
  }
  draw();
}

function show(work) {
  return async () => {
    const id = state.id;
    if (!id) return;
    try {
      await work(id);
      setText($("order-said"), "");
    } catch (error) {
      setText($("order-said"), error.message);
    }
    refresh();
  };
}

draw();
$("moment").addEventListener("input", (event) => look(Number(event.target.value)));
$("now").addEventListener("click", () => {
  state.pinned = null;
  draw();
  $("moment").focus();
});
$("cancel").addEventListener("click", show((id) => orders.cancel(id, "changed my mind")));
$("ship").addEventListener("click", show((id) => orders.ship(id)));
