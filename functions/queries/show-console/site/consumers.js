// The metrics of each consumer: kept for the map, shown as a table.

import { $, count, list, row, setText, setCells } from "./dom.js";
import { settings } from "./api.js";
import { name, since } from "./order.js";

/** The consumers that the rules of the bus name, in the order of the template. `kind`: `step`, `reaction` or `projection`. */
export const consumers = settings.consumers ?? [];

export const RELAY = "RelayEventsFunction";

const ABOUT = {
  step: "Runs one step of the saga of an order and appends the outcome.",
  reaction: "Acts on events and appends none.",
  projection: "Keeps a read model up to date.",
};
const KIND = { step: "step of the saga", reaction: "reaction", projection: "projection" };
const kinds = new Map(consumers.map(({ id, kind }) => [id, kind]));
const turns = [RELAY, ...kinds.keys()];

export const about = (id) => ABOUT[kinds.get(id)] ?? "";

const LAG_MS = 3_000;
/** The lags of the last seconds, by consumer. */
const lags = new Map();
/** The metrics of each consumer as texts, by its id. */
const metrics = new Map();

const NONE = { applied: "0", skipped: "0", "gaps filled": "0", retries: "0", "dead letters": "0", waiting: "0", latency: "–" };

export const metricsOf = (id) => metrics.get(id) ?? NONE;

/** Takes the counts of a frame, and shows them. */
export function draw(tallies, waiting) {
  const now = Date.now();
  for (const [id, tally] of Object.entries(tallies)) {
    const recent = (lags.get(id) ?? []).filter(({ at }) => now - at < LAG_MS);
    if (tally.lagMs !== null) recent.push({ at: now, ms: tally.lagMs });
    lags.set(id, recent);
    const lag = recent.length ? Math.max(...recent.map(({ ms }) => ms)) : tally.latestLagMs;
    metrics.set(id, {
      // The relay applies no event.
      ...(id !== RELAY && { applied: count(tally.applied), skipped: count(tally.duplicates), "gaps filled": count(tally.caughtUp) }),
      retries: count(tally.retried),
      "dead letters": count(tally.deadLetters),
      waiting: count(waiting[id]),
      latency: lag === null ? "–" : since(lag),
    });
  }
  const rows = [...metrics].sort(([a], [b]) => turns.indexOf(a) - turns.indexOf(b));
  const make = ([id]) => row($("tallies"), [name(id), id === RELAY ? "publishes committed events" : KIND[kinds.get(id)]]);
  list($("tallies").tBodies[0], rows, ([id]) => id, make, (item, [, own]) => setCells(item, Object.keys(NONE).map((key) => own[key] ?? "–")));
  setText($("n-waiting"), count(Object.values(waiting).reduce((sum, one) => sum + one, 0)));
}
