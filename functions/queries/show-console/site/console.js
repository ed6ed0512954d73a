// Puts the page together: orders to place, faults to inject, and the live state of the system.

import { $, connected, el, list, problem, row, setText, seldom, setCells, count, money } from "./dom.js";
import { ask, get, hasToken, orders, products, Refused, settings, stock, Unreachable, use } from "./api.js";
import { draw as drawConsumers } from "./consumers.js";
import { show as showMap, travel } from "./map.js";
import { addDeliveries, chip, hasEnded, loadDeliveries, name, refresh as refreshOrder, watch, watched } from "./order.js";
import { refresh as refreshSales } from "./sales.js";

document.body.classList.toggle("live", settings.live);

/** Shows the sections. Before that their sizes are not known, and whatever is seen would move. */
const reveal = () => document.body.classList.add("ready");

// ------------------------------------------------------------------------------------------ placing orders

const PRICE = 1_250;
const HOME = { name: "A. Lovelace", line1: "1 Main St", city: "Berlin", postalCode: "10115", country: "DE" };
const SCENARIOS = [
  { id: "good", title: "Success", says: "Paid, labelled, confirmed. Then you can ship it." },
  { id: "flaky", title: "Paid on the third attempt", says: "The payment provider is busy twice.", token: "tok_flaky" },
  { id: "declined", title: "Payment declined", says: "The saga releases the stock.", token: "tok_declined" },
  { id: "none", title: "Out of stock", says: "9,000 units at €1: there is no stock.", sku: "NONE-01", quantity: 9_000, price: 100 },
  { id: "fraud", title: "Rejected by screening", says: "The customer is fraud-42.", customer: "fraud-42" },
  { id: "carrier", title: "Rejected by the carrier", says: "To country XX: the saga voids the payment.", country: "XX" },
  { id: "down", title: "No answer on payment", says: "Retried, then abandoned after 90 seconds.", token: "tok_down" },
  { id: "cancelled", title: "Cancelled halfway", says: "The customer cancels immediately.", cancel: true },
  { id: "stuck", title: "Refund fails", says: "The saga is stuck and needs an operator.", token: "tok_norefund", country: "XX" },
];

$("scenarios").append(
  ...SCENARIOS.map((scenario, index) =>
    el("label", { className: "choice" },
      el("input", { type: "radio", name: "scenario", value: scenario.id, checked: index === 0 }),
      el("span", {}, scenario.title),
      el("small", {}, scenario.says))),
);

function order(sku, quantity, customerId, { token = "tok_visa", country = "DE", price = PRICE } = {}) {
  return {
    customerId,
    lines: [{ sku, quantity, unitPrice: { amount: price, currency: "EUR" } }],
    payment: { token },
    shipTo: { ...HOME, country },
  };
}

/** Receives stock where there is too little for an order that should not fail for lack of it. */
async function provide(sku, quantity) {
  // A product that the live stream never named has no stock.
  const level = settings.live && !levels.heard.has(sku) ? null : await stock.get(sku);
  if ((level?.available ?? 0) >= quantity) return "";
  await stock.receive(sku, 1_000);
  return `Received 1,000 units of ${sku} first. `;
}

/** With as much room as this, the map is beside the form, and the events of a new order are seen on it. */
const isWide = matchMedia("(min-width: 1201px)");

/** Shows an order, and scrolls to it where it is not in view. */
function lookAt(id) {
  watch(id);
  // After the frame that draws it: before, it has no place yet.
  requestAnimationFrame(() => {
    const [top, bottom] = [$("order").getBoundingClientRect().top, $("saga").getBoundingClientRect().bottom];
    if (top >= 0 && bottom <= innerHeight) return;
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    $("order").scrollIntoView({ behavior });
  });
}

let placing = false;

/** Places an order of one line. The catalogue may have another price, which is taken, or none, which is set. */
async function place(order) {
  try {
    return await orders.place(order);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const [line] = order.lines;
    const { price, errors = [] } = error.problem;
    if (price) line.unitPrice = price;
    else if (errors.some(({ pointer }) => pointer === "/lines/0/sku")) await products.price(line.sku, line.unitPrice);
    else throw error;
    return await orders.place(order);
  }
}

$("order-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  // The button is not disabled meanwhile, because it would lose the focus.
  if (placing) return;
  placing = true;
  const scenario = SCENARIOS.find(({ id }) => id === new FormData(event.target).get("scenario"));
  const sku = scenario.sku ?? $("sku").value;
  const quantity = scenario.quantity ?? Number($("quantity").value);
  const customer = scenario.customer ?? $("customer").value;
  try {
    const first = scenario.quantity ? "" : await provide(sku, quantity);
    const placed = await place(order(sku, quantity, customer, scenario));
    setText($("placed"), `${first}Placed ${placed.orderId}, for ${money(placed.total)}.`);
    if (settings.live && isWide.matches) watch(placed.orderId);
    else lookAt(placed.orderId);
    if (scenario.cancel) await orders.cancel(placed.orderId, "changed my mind");
  } catch (error) {
    setText($("placed"), error.message);
  }
  placing = false;
  if (!settings.live) poll.orders();
});

// A browser has six connections to one server: one is the feed's, and one is left for the visitor.
const LOAD = { seconds: 20, aSecond: 50, ticksASecond: 10, products: 20, mostAtOnce: 4 };
const LOAD_TITLE = $("load").textContent;
let load = null;

$("load").addEventListener("click", () => (load ? load.stop() : run().catch(fail)));

function fail(error) {
  load = null;
  setText($("load"), LOAD_TITLE);
  setText($("placed"), error.message);
}

/** The load test: orders of many products, some of which fail. */
async function run() {
  const boxes = Array.from({ length: LOAD.products }, (_, index) => `BOX-${String(index + 1).padStart(2, "0")}`);
  const kinds = [{}, {}, { token: "tok_declined" }, {}, {}, { token: "tok_flaky" }, {}, {}, { country: "XX" }, {}];
  const most = LOAD.seconds * LOAD.aSecond;
  let [sent, placed, refused, ticks] = [0, 0, 0, 0];
  let stopped = false;
  let unreachable = null;
  load = { stop: () => (stopped = true) };
  setText($("load"), "Stop");
  setText($("placed"), "Receiving stock first.");
  await Promise.all(boxes.map((sku) => stock.receive(sku, 1_000)));
  const began = performance.now();
  const progress = () => {
    const seconds = Math.max((performance.now() - began) / 1_000, 0.1);
    const rate = Math.round(placed / seconds);
    setText($("placed"), `${count(placed)} of ${count(most)} placed, ${rate} a second${refused ? `, ${refused} refused` : ""}.`);
  };
  const one = async (index) => {
    try {
      await place(order(boxes[index % boxes.length], 1, "c-load", kinds[index % kinds.length]));
      placed += 1;
    } catch (error) {
      refused += 1;
      // Without a server the rest would fail as well, each after a second.
      if (error instanceof Unreachable) [stopped, unreachable] = [true, error];
    }
  };
  await new Promise((done) => {
    const fill = () => {
      const due = Math.min(Math.floor((ticks * LOAD.aSecond) / LOAD.ticksASecond), most);
      while (!stopped && sent < due && sent - placed - refused < LOAD.mostAtOnce) one(sent++).then(fill);
    };
    const timer = setInterval(() => {
      ticks += 1;
      fill();
      if (ticks % 5 === 0) progress();
      if ((stopped || sent >= most) && placed + refused >= sent) {
        clearInterval(timer);
        done();
      }
    }, 1_000 / LOAD.ticksASecond);
  });
  if (unreachable) throw unreachable;
  progress();
  load = null;
  setText($("load"), LOAD_TITLE);
}

// ------------------------------------------------------------------------------------------ faults

/** The last column: the parts of the map where a fault shows. */
const TROUBLES = [
  ["duplicates", "Duplicates", "The bus delivers every event twice.", ["bus"]],
  ["disorder", "Out of order", "Deliveries overtake each other.", ["bus"]],
  ["delays", "Delays", "Each delivery is one to two seconds late.", ["bus"]],
  ["provider-away", "Payment provider unavailable", "Its steps are retried and become dead letters. The watchdog retries them once the provider is back.", ["AuthorizePaymentFunction", "CapturePaymentFunction"]],
  ["broken-reader", "Failing projection", "project-sales fails at every event. Fix it and redrive its dead letters: no sale is missing.", ["ProjectSalesFunction"]],
];

/** The titles of faults, by the part where they are. */
function faultsAt(troubles) {
  const found = new Map();
  for (const [id, title, , places] of TROUBLES) {
    if (!troubles.includes(id)) continue;
    for (const place of places) found.set(place, [...(found.get(place) ?? []), title]);
  }
  return found;
}

$("troubles").append(
  ...TROUBLES.map(([id, title, says]) =>
    el("li", {},
      el("label", { className: "choice" },
        el("input", { type: "checkbox", role: "switch", name: id }),
        el("span", {}, title),
        el("small", {}, says)))),
);

/** Until this time a frame may be older than the visitor's choice. */
let chosen = 0;
/** Choices are sent one after the other, so that the last one stays. */
let sent = Promise.resolve();
let unsent = 0;

async function sendTroubles() {
  const on = [...$("troubles").querySelectorAll("input:checked")].map((input) => input.name);
  try {
    await ask("PUT", "/console/troubles", { troubles: on });
    problem("troubles");
  } catch (error) {
    problem("troubles", error.message);
  }
  unsent -= 1;
  if (unsent === 0) chosen = performance.now() + 300;
}

$("troubles").addEventListener("change", () => {
  chosen = Infinity;
  unsent += 1;
  sent = sent.then(sendTroubles);
});

function show(troubles) {
  if (performance.now() < chosen) return;
  for (const input of $("troubles").querySelectorAll("input")) input.checked = troubles.includes(input.name);
}

// ------------------------------------------------------------------------------------------ latest orders

const MOST_KNOWN = 400;
const MOST_SHOWN = 25;
/** By id, oldest first. */
const known = new Map();

const STATUS = { OrderPlaced: "placed", OrderConfirmed: "confirmed", OrderShipped: "shipped", OrderCancelled: "cancelled" };
const FULFILMENT = {
  FulfilmentStarted: "running", StepCompleted: "running", StepFailed: "compensating", StepCompensated: "compensating",
  FulfilmentResumed: "compensating", FulfilmentCompleted: "completed", FulfilmentAborted: "aborted", FulfilmentStuck: "stuck",
};

/** Records the status that an event gives its order. Of each stream the latest version counts. */
function note(event) {
  const [stream, version] = event.id.split("@");
  const dash = stream.indexOf("-");
  const [category, id] = [stream.slice(0, dash), stream.slice(dash + 1)];
  if (category === "stock") return levels.add(id);
  if (category !== "order" && category !== "fulfilment") return;
  const row = known.get(id) ?? { id, what: "", order: 0, fulfilment: 0, status: "placed", saga: "running" };
  if (event.type === "OrderPlaced") row.what = contents(event.data);
  if (row[category] < Number(version)) {
    row[category] = Number(version);
    if (category === "order") row.status = STATUS[event.type] ?? row.status;
    else if (row.saga !== "compensating" || event.type !== "StepCompleted") row.saga = FULFILMENT[event.type] ?? row.saga;
  }
  known.set(id, row);
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
}

const contents = ({ lines }) => lines.map((line) => `${line.quantity} × ${line.sku}`).join(", ");

const latestOrders = () => [...known.values()].slice(-MOST_SHOWN).reverse();

/** Reads the orders of which the stream sent only later events: it sends a new reader no more than the latest events. */
const readOrders = seldom(500, async () => {
  for (const row of latestOrders().filter(({ what }) => !what)) {
    const order = await orders.get(row.id);
    if (!order) continue;
    row.what = contents(order);
    if (row.order < order.version) [row.order, row.status] = [order.version, order.status];
    if (row.fulfilment === 0) row.saga = order.fulfilment.status;
  }
  drawOrders();
});

function drawOrders() {
  const latest = latestOrders();
  if (settings.live && latest.some(({ what }) => !what)) readOrders();
  const make = ({ id }) =>
    el("li", {}, el("button", { type: "button", onclick: () => lookAt(id) }, el("code", {}, id.slice(0, 8)), el("span", { className: "what-of" }), chip("")));
  list($("orders"), latest, (row) => row.id, make, (item, row) => {
    const [button] = item.children;
    button.setAttribute("aria-pressed", row.id === watched());
    setText(button.children[1], row.what);
    const standing = ["completed", "aborted"].includes(row.saga) ? row.status : row.saga;
    if (button.children[2].textContent !== standing) button.children[2].replaceWith(chip(standing));
  });
}

// ------------------------------------------------------------------------------------------ stock

const levels = {
  all: new Map(["TEA-01", "POT-07", "CUP-03"].map((sku) => [sku, null])),
  /** Those that the feed has named: they have stock. */
  heard: new Set(),
  stale: new Set(),
  add(sku) {
    if (!this.all.has(sku)) this.all.set(sku, null);
    this.heard.add(sku);
    this.stale.add(sku);
  },
  /** Reads the levels that have changed. */
  refresh: seldom(500, async () => {
    const stale = [...levels.stale];
    levels.stale.clear();
    const found = await Promise.all(stale.map(stock.get));
    stale.forEach((sku, index) => levels.all.set(sku, found[index]));
    levels.draw();
  }),
  refreshAll() {
    for (const sku of settings.live ? this.heard : this.all.keys()) this.stale.add(sku);
    this.refresh();
  },
  draw() {
    const make = ([sku]) => {
      const made = row($("levels"), [sku]);
      made.lastChild.append(el("button", { type: "button", className: "small", onclick: () => take(sku) }, "+100", el("span", { className: "hidden" }, ` of ${sku}`)));
      return made;
    };
    const rows = [...this.all].sort(([a], [b]) => a.localeCompare(b));
    list($("levels").tBodies[0], rows, ([sku]) => sku, make, (item, [, level]) =>
      setCells(item, ["onHand", "reserved", "available"].map((key) => (level ? count(level[key]) : "–"))));
  },
};

async function take(sku) {
  try {
    await stock.receive(sku, 100);
  } catch (error) {
    setText($("placed"), error.message);
  }
  levels.add(sku);
  levels.refresh();
}

// ------------------------------------------------------------------------------------------ dead letters

const letters = {
  many: 0,
  refresh: seldom(1_000, async () => {
    const { letters } = await get("/console/dead-letters");
    const make = (letter) =>
      el("li", {},
        el("span", {}, el("b", {}, letter.function ? name(letter.function) : letter.queue), letter.event ? " at " : "", letter.event ? el("code", {}, short(letter.event)) : ""),
        el("small", {}, `${letter.error}${letter.attempts ? `, ${letter.attempts} attempts` : ""}`),
        el("button", { type: "button", className: "small", onclick: () => redrive({ message: letter.message }) }, "Redrive", el("span", { className: "hidden" }, ` ${letter.event ?? letter.message}`)));
    list($("letters"), letters.slice(0, 20), (letter) => `${letter.queue} ${letter.message}`, make);
  }),
  update(many) {
    setText($("dead-count"), count(many));
    $("dead-count").className = many ? "pill bad" : "pill";
    $("redrive-all").disabled = many === 0;
    $("no-letters").hidden = many > 0;
    if (many !== this.many) this.refresh();
    // The result of a redrive does not cover new dead letters.
    if (many > this.many) setText($("redriven"), "");
    this.many = many;
  },
};

const short = (event) => event.replace(/-([0-9a-f]{8})-[0-9a-f-]{27}/, "-$1…");

async function redrive(which) {
  setText($("redriven"), "redriving…");
  try {
    const report = await ask("POST", "/console/dead-letters/redrive", which);
    const stay = report.unresolved.length ? `, ${report.unresolved.length} not redrivable` : "";
    setText($("redriven"), `${count(report.redriven)} redriven${stay}${report.complete ? "" : "; more are left"}`);
  } catch (error) {
    setText($("redriven"), error.message);
  }
  letters.refresh();
}

$("redrive-all").addEventListener("click", () => redrive({}));

// ------------------------------------------------------------------------------------------ the live feed

const feed = { frame: null, drawn: true, counts: [], stale: false };

const RECONNECT_MS = 3_000;

function listen() {
  const source = new EventSource("/console/stream");
  source.addEventListener("open", () => connected("live", "good"));
  source.addEventListener("error", () => {
    connected("reconnecting", "bad");
    problem(listen, `The server at ${location.origin} does not answer. Start it again with cargo run: this page then reconnects.`);
    reveal();
    // The browser reconnects by itself except after an answer that is not a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RECONNECT_MS);
  });
  source.addEventListener("frame", (message) => {
    const frame = JSON.parse(message.data);
    receive(frame);
    travel(frame);
  });
  // The current state: at the start, and when this page is too far behind.
  source.addEventListener("state", (message) => {
    known.clear();
    receive(JSON.parse(message.data));
    loadDeliveries();
    refreshAll();
  });
}

function receive(frame) {
  connected("live", "good");
  problem(listen);
  frame.events.forEach(note);
  frame.skus?.forEach((sku) => levels.add(sku));
  const id = watched();
  const touches = frame.events.some((event) => id && event.id.includes(id));
  const theirs = addDeliveries(frame.deliveries);
  if (touches || theirs) refreshOrder();
  let sold = false;
  for (const { consumer, event } of frame.deliveries) {
    if (consumer === "ProjectStockFunction") levels.add(event.slice("stock-".length, event.lastIndexOf("@")));
    if (consumer === "ProjectSalesFunction") sold = true;
  }
  if (sold) refreshSales();
  if (levels.stale.size) levels.refresh();
  // Reads during a burst may be outdated: everything is read again when the burst has ended.
  const isQuiet = !frame.events.length && !frame.deliveries.length;
  if (isQuiet && feed.stale) refreshAll();
  feed.stale = !isQuiet;
  const now = performance.now();
  feed.counts.push([now, frame.seen]);
  while (now - feed.counts[0][0] > 2_000) feed.counts.shift();
  feed.frame = { ...frame, consumers: merged(frame.consumers) };
  if (!feed.drawn) return;
  feed.drawn = false;
  requestAnimationFrame(() => {
    feed.drawn = true;
    draw(feed.frame);
  });
}

/** The greatest lag of the frames that are drawn together. */
function merged(consumers) {
  if (feed.drawn) return consumers;
  for (const [id, tally] of Object.entries(consumers)) {
    const before = feed.frame.consumers[id]?.lagMs ?? null;
    if (before !== null) tally.lagMs = Math.max(before, tally.lagMs ?? 0);
  }
  return consumers;
}

function draw(frame) {
  const [[from, first], [to, last]] = [feed.counts[0], feed.counts.at(-1)];
  setText($("n-events"), count(frame.seen));
  const perSecond = to > from ? Math.round(((last - first) * 1_000) / (to - from)) : 0;
  setText($("n-rate"), count(perSecond));
  setText($("n-running"), count(frame.fulfilments.running));
  setText($("n-stuck"), count(frame.fulfilments.stuck));
  $("n-stuck").classList.toggle("alarming", frame.fulfilments.stuck > 0);
  show(frame.troubles);
  drawOrders();
  drawConsumers(frame.consumers, frame.waiting);
  showMap(frame, perSecond, faultsAt(frame.troubles));
  letters.update(frame.deadLetters);
  if (document.body.classList.contains("ready")) return;
  levels.draw();
  reveal();
}

function refreshAll() {
  refreshOrder();
  refreshSales();
  levels.refreshAll();
}

// ------------------------------------------------------------------------------------------ polling

const poll = {
  orders: seldom(1_000, async () => {
    // No path leads to the orders of an id that the API refuses.
    if (!$("customer").checkValidity()) return;
    for (const one of (await orders.of($("customer").value)).reverse()) {
      known.delete(one.orderId);
      known.set(one.orderId, { id: one.orderId, what: contents(one), order: one.version, fulfilment: 0, status: one.status, saga: one.fulfilment.status });
    }
    drawOrders();
    connected("polling", "");
  }),
  every(seconds, ask) {
    setInterval(() => {
      if (!document.hidden && (settings.authorization === "none" || hasToken())) ask();
    }, seconds * 1_000);
  },
  begin() {
    connected("polling", "");
    reveal();
    this.every(1, () => watched() && !hasEnded() && refreshOrder());
    this.every(3, () => this.orders());
    this.every(5, () => watched() && refreshOrder());
    this.every(5, () => levels.refreshAll());
    this.every(10, refreshSales);
    if (settings.authorization === "none") this.now();
  },
  now() {
    this.orders();
    refreshAll();
  },
};

/** The subject of a token: the customer who places the orders. */
function subjectOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub;
  } catch {
    return "";
  }
}

$("token-panel").hidden = settings.authorization === "none";
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  use($("token").value);
  const subject = subjectOf($("token").value);
  if (subject) $("customer").value = subject;
  poll.now();
});

levels.draw();
drawOrders();
if (settings.live) listen();
else poll.begin();
