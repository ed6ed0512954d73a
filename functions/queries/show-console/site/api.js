// The HTTP API: the page's requests, and the errors that they end with.

let token = "";
/** Whether the system runs locally, once the settings say so. */
let isLive = false;

/** The server did not answer. */
export class Unreachable extends Error {
  constructor(method, path, cause) {
    const next = isLive ? "Start it again with cargo run" : "Check the connection";
    super(`${method} ${path} failed: the server at ${location.origin} does not answer. ${next}, then try again.`, { cause });
  }
}

/** The API has refused a request. The message is the problem document's. */
export class Refused extends Error {
  constructor(status, problem) {
    const fields = (problem.errors ?? []).map((error) => `${error.pointer}: ${error.detail}`);
    super([problem.title ?? `status ${status}`, problem.detail, ...fields].filter(Boolean).join(": "));
    this.status = status;
    this.problem = problem;
  }
}

/** Sends a request once. Returns the document of the answer. */
async function send(method, path, body, more = {}) {
  const headers = { ...more };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  let text;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    text = await answer.text();
  } catch (cause) {
    throw new Unreachable(method, path, cause);
  }
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    found = null;
  }
  if (!answer.ok) throw new Refused(answer.status, found ?? {});
  if (found === null) throw new Error(`${method} ${path} failed: the answer is not JSON. Reload the page.`);
  return found;
}

/**
 * `live`: the system runs locally and sends what happens; otherwise the page polls. `endpoint`: the local AWS endpoint,
 * where there is one.
 */
export const settings = await send("GET", "/console/settings.json");
isLive = settings.live;

export function use(given) {
  token = given.trim();
}

export const hasToken = () => token !== "";

export const ask = (method, path, body) => send(method, path, body);

export const get = (path) => send("GET", path);

/** Returns null instead of a 404, where there may be nothing yet. */
export async function find(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

const ATTEMPTS = 5;

/** A command with a key of its own: sent again after a failure of the network or a busy answer, it is carried out once. */
export async function command(path, body) {
  const key = { "idempotency-key": crypto.randomUUID() };
  for (let attempt = 1; ; attempt++) {
    try {
      return await send("POST", path, body, key);
    } catch (error) {
      const isTransient = error instanceof Unreachable || [429, 503].includes(error.status);
      if (!isTransient || attempt === ATTEMPTS) throw error;
    }
    await new Promise((done) => setTimeout(done, 200 * attempt));
  }
}

export const orders = {
  place: (order) => command("/orders", order),
  cancel: (id, reason) => command(`/orders/${id}/cancel`, { reason }),
  ship: (id) => command(`/orders/${id}/ship`, {}),
  get: (id) => find(`/orders/${id}`),
  at: (id, time) => find(`/orders/${id}?at=${encodeURIComponent(time)}`),
  events: async (id) => (await find(`/orders/${id}/events`))?.events ?? [],
  of: async (customer) => (await get(`/customers/${encodeURIComponent(customer)}/orders?limit=20`)).orders,
};

export const stock = {
  get: (sku) => find(`/stock/${sku}`),
  receive: (sku, quantity) => command(`/stock/${sku}/receipts`, { quantity }),
};

export const products = {
  price: (sku, price) => ask("PUT", `/products/${sku}`, { price }),
};

export const sales = async (window, from) => (await get(`/sales?window=${window}${from ? `&from=${encodeURIComponent(from)}` : ""}`)).windows;
