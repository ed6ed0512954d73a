// Sales in windows of time: a chart by uPlot, and the same as a table.

import { $, list, row as tableRow, setText, setCells, seldom, count, money } from "./dom.js";
import { sales } from "./api.js";

const WINDOWS = { minute: [60, 30], hour: [3_600, 24], day: [86_400, 14] };
let chart = null;
let data = [[], [], [], []];

/** Reads the sales again. */
export const refresh = seldom(1_000, async () => {
  const window = $("window").value;
  const [seconds, many] = WINDOWS[window];
  const first = (Math.floor(Date.now() / 1000 / seconds) - many + 1) * seconds;
  const [windows, today] = await Promise.all([sales(window, new Date(first * 1000).toISOString()), day()]);
  if (window !== $("window").value) return;
  const found = new Map(windows.map((one) => [Date.parse(one.start) / 1000, one]));
  const times = Array.from({ length: many }, (_, index) => first + index * seconds);
  const row = (name) => times.map((time) => found.get(time)?.[name] ?? 0);
  data = [times, row("ordersPlaced"), row("ordersConfirmed"), row("ordersCancelled")];
  requestAnimationFrame(draw);
  table(windows);
  books(today);
});

async function day() {
  const midnight = new Date();
  midnight.setUTCHours(0, 0, 0, 0);
  return (await sales("day", midnight.toISOString()))[0];
}

function books(today) {
  setText($("n-placed"), count(today?.ordersPlaced));
  setText($("n-confirmed"), count(today?.ordersConfirmed));
  setText($("n-cancelled"), count(today?.ordersCancelled));
  setText($("n-revenue"), today?.revenue.map(money).join(", ") || "0");
}

function table(windows) {
  const cells = (one) => [one.ordersPlaced, one.ordersConfirmed, one.ordersCancelled].map(count).concat(one.revenue.map(money).join(", "));
  const from = (one) => one.start.slice(0, 16).replace("T", " ");
  const make = (one) => tableRow($("windows"), [from(one)]);
  list($("windows").tBodies[0], windows.toReversed(), (one) => one.start, make, (item, one) => setCells(item, cells(one)));
  const sum = (name) => count(windows.reduce((total, one) => total + one[name], 0));
  const text = `${sum("ordersPlaced")} placed, ${sum("ordersConfirmed")} confirmed and ${sum("ordersCancelled")} cancelled in this time (UTC).`;
  setText($("sales-says"), text);
  $("chart").setAttribute("aria-label", `A chart: ${text}`);
}

const size = () => ({ width: Math.max($("chart").clientWidth, 100), height: 230 });

/** The width of an axis: as wide as its widest label needs. uPlot asks again until the sizes no longer change. */
function widthOf(chart, labels, index, cycle) {
  const axis = chart.axes[index];
  if (cycle > 1) return axis._size;
  const { ctx } = chart;
  ctx.save();
  ctx.font = axis.font[0];
  const widest = Math.max(0, ...(labels ?? []).map((label) => ctx.measureText(label).width / devicePixelRatio));
  ctx.restore();
  return Math.ceil(axis.ticks.size + axis.gap + widest + 2);
}

/** The hour and minute, or the day. */
function tick(seconds) {
  const time = new Date(seconds * 1000).toISOString();
  return $("window").value === "day" ? time.slice(5, 10) : time.slice(11, 16);
}

function draw() {
  if (chart) return chart.setData(data);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const line = (label, name, dash) => ({ label, stroke: colour(name), width: 2, dash, points: { size: 5, fill: colour("--card") } });
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  chart = new uPlot(
    {
      ...size(),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      legend: { show: false },
      cursor: { y: false },
      scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.1, 4)] } },
      axes: [{ ...axis, values: (_, times) => times.map(tick) }, { ...axis, size: widthOf, values: (_, values) => values.map((value) => (Number.isInteger(value) ? count(value) : "")) }],
      series: [{}, line("placed", "--accent"), line("confirmed", "--good"), line("cancelled", "--bad", [6, 4])],
    },
    data,
    $("chart"),
  );
}

new ResizeObserver(() => chart?.setSize(size())).observe($("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  chart?.destroy();
  chart = null;
  draw();
});
$("window").addEventListener("change", refresh);
