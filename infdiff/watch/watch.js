// Draws the state of a run, every few seconds. All text goes in as text, never as HTML.
"use strict";

const EVERY = 3000; // milliseconds
const COLOURS = ["--a", "--b", "--c", "--d", "--e"];
const WIDTH = 480, HEIGHT = 220, LEFT = 54, BOTTOM = 22, TOP = 8, RIGHT = 8;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function shown(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(2);
}

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// One diagram of several curves {name: [[step, value], ...]}. Losses that lie far apart are drawn logarithmically.
function diagram(title, curves, colours) {
  const points = Object.values(curves).flat();
  const values = points.map(([, value]) => value), steps = points.map(([step]) => step);
  let low = Math.min(...values), high = Math.max(...values);
  const logarithmic = title.startsWith("loss") && low > 0 && high / low > 5;
  const scale = logarithmic ? Math.log10 : (value) => value;
  const first = Math.min(...steps), last = Math.max(...steps);
  const [bottom, top] = low === high ? [scale(low) - Math.abs(scale(low) || 1) * 0.1, scale(low) + Math.abs(scale(low) || 1) * 0.1] : [scale(low), scale(high)];
  const x = (step) => LEFT + (WIDTH - LEFT - RIGHT) * (last === first ? 0.5 : (step - first) / (last - first));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (top - scale(value)) / (top - bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, last ${shown(values.at(-1))}` });
  for (let i = 0; i <= 3; i++) {
    const at = bottom + (top - bottom) * i / 3, value = logarithmic ? 10 ** at : at, height = y(value);
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: height, y2: height }));
    svg.append(drawn("text", { x: LEFT - 6, y: height + 4, "text-anchor": "end" }, shown(+value.toPrecision(3))));
  }
  svg.append(drawn("text", { x: LEFT, y: HEIGHT - 5 }, shown(first)));
  svg.append(drawn("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, `step ${shown(last)}`));
  Object.values(curves).forEach((curve, number) => {
    const style = `stroke: var(${colours[number % colours.length]})`;
    const line = curve.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    svg.append(drawn("polyline", { class: "curve", points: line, style }));
    if (curve.length < 40) for (const [step, value] of curve) {
      svg.append(drawn("circle", { cx: x(step), cy: y(value), r: 2.5, style: `fill: var(${colours[number % colours.length]})` }));
    }
  });
  return svg;
}

function curveSection(title, given) {
  const curves = Object.fromEntries(Object.entries(given).filter(([, curve]) => curve.length));
  const names = Object.keys(curves);
  if (!names.length) return [];
  const keys = names.map((name, number) =>
    element("span", { class: "key", style: `--own: var(${COLOURS[number % COLOURS.length]})` }, `${name} ${shown(curves[name].at(-1)[1])}`.trim()));
  return [element("section", {}, element("h2", {}, title), diagram(title, curves, COLOURS), element("p", {}, ...keys))];
}

function evaluations(rows) {
  if (!rows.length) return [];
  const names = [...new Set(rows.flatMap(Object.keys))];
  const head = element("tr", {}, ...names.map((name) => element("th", {}, name)));
  const body = rows.map((row) => element("tr", {}, ...names.map((name) => element("td", {}, name in row ? shown(row[name]) : ""))));
  return [element("h2", {}, "Evaluations"), element("div", { class: "wide" }, element("table", {}, head, ...body))];
}

function figures(names) {
  if (!names.length) return [];
  const made = names.map((name) => {
    const [, what, step] = name.match(/^(.*)-(\d+)\.png$/);
    const caption = `${what}, step ${shown(+step)}`;
    return element("figure", {}, element("a", { href: `/samples/${encodeURIComponent(name)}` },
      element("img", { src: `/samples/${encodeURIComponent(name)}`, alt: caption, loading: "lazy" })), element("figcaption", {}, caption));
  });
  return [element("h2", {}, "Samples"), element("div", { id: "pictures" }, ...made)];
}

function links(paths) {
  if (!paths.length) return [];
  const items = paths.map((path) => element("p", {}, element("a", { href: `/reports/${path.split("/").map(encodeURIComponent).join("/")}` }, path)));
  return [element("h2", {}, "Reports"), ...items];
}

const before = {};

// Replaces a part of the page where what it shows has changed: pictures do not flicker, and a selection stays.
function show(id, content, make) {
  const text = JSON.stringify(content);
  if (before[id] === text) return;
  before[id] = text;
  document.getElementById(id).replaceChildren(...make(content));
}

function update(state) {
  const done = state.step >= state.steps;
  document.title = `${done ? "done" : `${Math.floor(100 * state.step / state.steps)} %`} · ${state.name}`;
  document.getElementById("name").textContent = state.name;
  document.getElementById("bar").value = state.step / state.steps;
  const left = state.seconds_left === null ? "" : `, about ${duration(state.seconds_left)} left at its pace`;
  document.getElementById("status").textContent = `step ${shown(state.step)} of ${shown(state.steps)}${done ? ", done" : left}`;
  document.getElementById("age").textContent = state.age === null ? "nothing logged yet" : `last logged ${duration(state.age)} ago`;
  show("curves", state.curves, (curves) => Object.entries(curves).flatMap(([title, given]) => curveSection(title, given)));
  show("reports", state.reports, links);
  show("evaluations", state.evaluations, evaluations);
  show("samples", state.pictures, figures);
}

async function refresh() {
  try {
    const answer = await fetch("/state"), state = await answer.json();
    if (!answer.ok) throw new Error(state.error);
    update(state);
  } catch (error) {
    document.getElementById("age").textContent = `not up to date: ${error.message}`;
  }
  setTimeout(refresh, EVERY);
}

refresh();
