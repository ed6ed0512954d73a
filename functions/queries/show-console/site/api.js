// The HTTP API, and what there is of it here.

let token = "";

/** `live`: this is one machine, which tells what happens; else the page asks again and again. */
export const settings = await fetch("/console/settings.json").then((answer) => answer.json());

export function use(given) {
  token = given.trim();
}

export const hasToken = () => token !== "";

/** What the API has refused, as it says it. */
export class Refused extends Error {
  constructor(status, problem) {
    const fields = (problem.errors ?? []).map((error) => `${error.pointer}: ${error.detail}`);
    super([problem.title ?? `status ${status}`, problem.detail, ...fields].filter(Boolean).join(": "));
    this.status = status;
    this.problem = problem;
  }
}

export async function ask(method, path, body) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    found = {};
  }
  if (!answer.ok) throw new Refused(answer.status, found);
  return found;
}

export const get = (path) => ask("GET", path);

/** Where there may be nothing yet: null instead of a 404. */
export async function find(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

/** A command with a key of its own: sent again after a failure of the network it is carried out once. */
export async function command(path, body) {
  const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID() };
  if (token) headers.authorization = `Bearer ${token}`;
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
      const found = await answer.json();
      if (answer.ok) return found;
      // Busy: the same again, which its key makes safe.
      if (answer.status !== 503 || attempt === 5) throw new Refused(answer.status, found);
    } catch (error) {
      if (error instanceof Refused || attempt === 5) throw error;
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

export const sales = async (window, from) => (await get(`/sales?window=${window}${from ? `&from=${from}` : ""}`)).windows;
