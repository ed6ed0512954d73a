// A page's elements. Text from anywhere goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** Creates an element with properties and children. A child that is not an element becomes text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Sets a text if it differs, so that a screen reader announces only changes. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of an element those of a list, in its order. `make` creates a child, and `update` updates it.
 * A child that exists already stays the same element and keeps its focus.
 */
export function list(parent, items, key, make, update = () => {}) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = there.get(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    there.delete(name);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of there.values()) child.remove();
}

/**
 * A row of a table: a head, its small print, and empty cells. On a narrow screen the cells are stacked, so each names
 * its column, and the roles keep what the new display takes from the elements.
 */
export function row(table, [head, small], many = table.tHead.rows[0].cells.length - 1) {
  const labels = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
  const cells = Array.from({ length: many }, (_, index) => el("td", { role: "cell", "data-label": labels[index] }));
  return el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, head, small && el("small", {}, small)), ...cells);
}

/** Sets the texts of the cells of a row. */
export function setCells(row, texts) {
  texts.forEach((text, index) => {
    const cell = row.children[index + 1];
    setText(cell, text);
    cell.classList.toggle("none", text === "0" || text === "–");
  });
}

/** Shows the state of the connection. */
export function connected(text, tone) {
  setText($("connection"), text);
  $("connection").className = `pill ${tone}`;
}

/** The text of each problem by its source, the latest last. */
const problems = new Map();

/** Shows the problem of a source until that source works again, which it reports without a text. */
export function problem(source, text = "") {
  problems.delete(source);
  if (text) problems.set(source, text);
  setText($("problem"), [...problems.values()].at(-1) ?? "");
  $("problem").hidden = problems.size === 0;
}

/**
 * Limits work that is requested often: it runs at once, then at most once in `pause` ms, and always after the last
 * request. Runs never overlap. The page shows an error until a later run succeeds.
 */
export function seldom(pause, work) {
  let asked = false;
  let busy = false;
  return async function ask() {
    asked = true;
    if (busy) return;
    busy = true;
    while (asked) {
      asked = false;
      try {
        await work();
        problem(work);
      } catch (error) {
        problem(work, error.message);
      }
      await new Promise((done) => setTimeout(done, pause));
    }
    busy = false;
  };
}

const numbers = new Intl.NumberFormat("en");
export const count = (value) => numbers.format(value ?? 0);

export function money({ amount, currency }) {
  // Minor units: two digits for all that are ordered here.
  return new Intl.NumberFormat("en", { style: "currency", currency }).format(amount / 100);
}

export const clock = (time) => `${new Date(time).toISOString().slice(11, 19)} UTC`;
