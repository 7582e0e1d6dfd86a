"use strict";
// Sorting, filtering and charts; without it the page still shows all but the charts.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function number(text) {
  return parseFloat(text.replaceAll(",", ""));
}

function sortBy(table, heading, button) {
  const column = heading.cellIndex;
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const numeric = heading.classList.contains("number");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => {
    const text = row.cells[column].textContent;
    return { row, key: numeric ? number(text) : text };
  });
  const missing = ({ key }) => key === "" || Number.isNaN(key);
  rows.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b); // what is missing stays at the end
    const order = numeric ? a.key - b.key : collator.compare(a.key, b.key);
    return ascending ? order : -order;
  });
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...rows.map(({ row }) => row));
  button.focus();
}

function addFilter(box, lines, title) {
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter";
  input.setAttribute("aria-label", `Filter rows of: ${title}`);
  const count = document.createElement("output");
  const texts = lines.map((line) => line.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    lines.forEach((line, index) => {
      line.hidden = !words.every((word) => texts[index].includes(word));
      shown += !line.hidden;
    });
    count.textContent = words.length ? `${shown} of ${lines.length}` : "";
  });
  label.append(input, count);
  box.before(label);
}

for (const part of document.querySelectorAll(".table")) {
  const table = part.querySelector("table");
  for (const heading of table.tHead.rows[0].cells) {
    if (heading.classList.contains("markup")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading, button));
  }
  const rows = [...table.tBodies[0].rows];
  if (rows.length > 4) addFilter(part.querySelector(".scroll"), rows, part.dataset.title);
}
for (const part of document.querySelectorAll(".appendix")) {
  addFilter(part, [...part.children], part.dataset.title);
}

// One choice of family for all tables of the leaderboard; a line's own filter stays as it is.
const board = document.getElementById("leaderboard");
const families = JSON.parse(board.dataset.families);
if (families.length > 1) {
  const label = document.createElement("label");
  label.className = "filter";
  const select = document.createElement("select");
  select.append(...["every family", ...families].map((name, index) => new Option(name, index ? name : "")));
  select.addEventListener("change", () => {
    for (const table of board.querySelectorAll("table")) {
      const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "family");
      for (const row of table.tBodies[0].rows) row.classList.toggle("off", select.value && row.cells[column].textContent !== select.value);
    }
  });
  label.append("Family", select);
  board.querySelector(".table").before(label);
}

// A link into something closed opens it.
function reveal() {
  let target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  target.hidden = false;
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);

// Everything but the appendix goes to paper.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("main details:not([open])")].filter((part) => !part.closest("#cells, .cells, td"));
  for (const part of closed) part.open = true;
  for (const chart of charts) chart.draw();
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
});

// A tooltip at once, and for a finger too, in place of the browser's own.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll("svg title")) {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}
function say(text, event) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { innerWidth, scrollX, scrollY } = window;
  tip.style.left = `${scrollX + Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 16))}px`;
  tip.style.top = `${scrollY + event.clientY - tip.offsetHeight - 10}px`;
}
function point(event) {
  if (!event.target.closest?.(".chart")) say(event.target.closest?.("[data-tip]")?.dataset.tip, event);
}
addEventListener("pointermove", point);
addEventListener("pointerdown", point);

// Charts, drawn from the JSON beside them (`Chart.plain` in figures/chart.py says what is in it).
const DASHES = ["", "7 3", "2 2", "7 2 2 2", "12 4", "4 4", "10 2 2 2 2 2"];
const MARKERS = {
  o: "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
  s: "M-3.2-3.2h6.4v6.4h-6.4z",
  D: "M0-4.6L4.6 0 0 4.6-4.6 0z",
  d: "M0-5L3 0 0 5-3 0z",
  "^": "M0-4.4l4.4 7.6h-8.8z",
  v: "M0 4.4l4.4-7.6h-8.8z",
  "<": "M-4.4 0l7.6-4.4v8.8z",
  ">": "M4.4 0l-7.6-4.4v8.8z",
  P: "M-1.5-4.2h3v2.7h2.7v3h-2.7v2.7h-3v-2.7h-2.7v-3h2.7z",
  X: "M-4-2l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z",
  "*": "M0-5l1.3 3.4 3.6.1-2.8 2.2 1 3.6-3.1-2.1-3.1 2.1 1-3.6-2.8-2.2 3.6-.1z",
};
const LETTER = 5.7; // pixels that a letter takes
const NEAR = 30; // pixels from a pointer to the point that it means

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function html(name, attributes, ...children) {
  const element = Object.assign(document.createElement(name), attributes);
  element.append(...children);
  return element;
}
function written(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) < 100) return String(Number(value.toPrecision(4)));
  return value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}
function ticked(value) {
  const size = Math.abs(value);
  return size && (size >= 1e6 || size < 1e-3) ? value.toExponential() : String(Number(value.toPrecision(6)));
}
function ticks(low, high, log, given) {
  const inside = given.filter((value) => value >= low && value <= high);
  if (inside.length > 1) return inside;
  if (log && high / low > 5) {
    const subs = high / low > 100 ? [1] : [1, 2, 5];
    const decades = Math.ceil(Math.log10(high / low) / 8);
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += decades)
      for (const sub of subs) found.push(sub * 10 ** power);
    return found.filter((value) => value >= low && value <= high);
  }
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= raw);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high; index++) found.push(index * step);
  return found;
}

class Scale {
  constructor([low, high], log, from, to) {
    Object.assign(this, { low, high, log, from, to });
    this.bend = log ? Math.log : Number;
    this.unbend = log ? Math.exp : Number;
  }
  place(value) {
    const [low, high] = [this.bend(this.low), this.bend(this.high)];
    return this.from + ((this.bend(value) - low) / (high - low)) * (this.to - this.from);
  }
  value(place) {
    const [low, high] = [this.bend(this.low), this.bend(this.high)];
    return this.unbend(low + ((place - this.from) / (this.to - this.from)) * (high - low));
  }
}

class Chart {
  constructor(box, number) {
    Object.assign(this, { box, number, axis: 0, view: null, at: null, width: 0 });
    new ResizeObserver(() => box.clientWidth !== this.width && this.draw()).observe(box);
  }

  // Parts that stay, made when the chart is first seen.
  start() {
    Object.assign(this, JSON.parse(this.box.nextElementSibling.textContent));
    this.shown = new Set(this.curves.filter((curve) => curve.told));
    this.logs = { x: this.xs.map((axis) => axis.log), y: this.y.log };
    const help = "The arrow keys go through the values, plus and minus zoom, 0 shows everything.";
    this.plot = html("div", { className: "plot", tabIndex: 0 });
    this.plot.setAttribute("role", "group");
    this.plot.setAttribute("aria-label", `${this.box.dataset.title}. ${help}`);
    this.output = html("output", {});
    this.key = html("ul", { className: "key" });
    const panel = html("details", {}, html("summary", {}, "Methods, axes, zoom"));
    panel.addEventListener("toggle", () => panel.children.length > 1 || panel.append(...this.controls()));
    this.box.append(this.plot, this.output, this.key, panel);
    this.plot.addEventListener("keydown", (event) => this.press(event));
    this.plot.addEventListener("pointermove", (event) => this.hover(event));
    this.plot.addEventListener("pointerleave", () => say(""));
    this.plot.addEventListener("pointerdown", (event) => this.drag(event));
  }

  controls() {
    const box = (text, checked, change, ...more) => {
      const input = html("input", { type: "checkbox", checked });
      input.addEventListener("change", () => (change(input.checked), this.draw()));
      return html("label", {}, input, ...more, text);
    };
    const zoom = (text, change) => {
      const button = html("button", { type: "button" }, text);
      button.addEventListener("click", change);
      return button;
    };
    const axes = html("fieldset", {}, html("legend", {}, "Axes"));
    if (this.xs.length > 1) {
      const select = html("select", {}, ...this.xs.map((axis, value) => html("option", { value }, axis.label)));
      select.setAttribute("aria-label", "Horizontal axis");
      select.addEventListener("change", () => ((this.axis = Number(select.value)), (this.view = null), this.draw()));
      axes.append(select);
    }
    axes.append(
      box("logarithmic across", this.logs.x[this.axis], (on) => ((this.logs.x = this.xs.map(() => on)), (this.view = null))),
      ...(this.y.names.length ? [] : [box("logarithmic upwards", this.logs.y, (on) => ((this.logs.y = on), (this.view = null)))]),
      zoom("Zoom in", () => this.zoom(0.6)),
      zoom("Zoom out", () => this.zoom(1 / 0.6)),
      zoom("Show everything", () => this.everything()),
    );
    const families = Map.groupBy(this.curves, (curve) => curve.family);
    const methods = [...families].map(([family, curves]) => {
      const labels = Map.groupBy(curves, (curve) => curve.label);
      const show = (some, on) => some.forEach((curve) => (on ? this.shown.add(curve) : this.shown.delete(curve)));
      const names = [...labels].map(([label, own]) =>
        box(label, this.shown.has(own[0]), (on) => show(own, on), this.swatch(own[0])),
      );
      const all = box(`all (${names.length})`, curves.every((curve) => this.shown.has(curve)), (on) => {
        show(curves, on);
        for (const name of names) name.firstChild.checked = on;
      });
      return html("fieldset", {}, html("legend", {}, family), all, ...names);
    });
    return [axes, ...methods];
  }

  swatch(curve) {
    const line = svg("line", { x1: 0, y1: 6, x2: 28, y2: 6, class: curve.kind === "pale" ? "pale" : "line" });
    if (curve.kind === "line") line.setAttribute("stroke-dasharray", DASHES[curve.dash]);
    const mark = svg("path", { d: MARKERS[curve.marker], transform: "translate(14 6)", class: curve.kind === "open" ? "open" : "mark-at" });
    const parts = { line: [line, mark], pale: [line] }[curve.kind] ?? [mark];
    return svg("svg", { viewBox: "0 0 28 12", style: `--c: var(--c-${curve.colour})`, "aria-hidden": true }, ...parts);
  }

  // What is drawn: every shown point with its place, which a scale can hold.
  points() {
    const named = this.y.names.length > 0;
    const rows = [...new Set([...this.shown].flatMap((curve) => curve.points.map(([, y]) => y)))].sort((a, b) => a - b);
    const fits = (value, log) => value !== null && (!log || value > 0);
    const all = [...this.shown].map((curve) => ({
      curve,
      points: curve.points
        .map(([x, y, low, high]) => ({ x: x[this.axis], y: named ? rows.indexOf(y) : y, low, high, text: this.read(curve, x, y), xs: x }))
        .filter(({ x, y }) => fits(x, this.logs.x[this.axis]) && fits(y, !named && this.logs.y)),
    }));
    return { named, rows, all };
  }

  read(curve, [x, x2], y) {
    const values = { label: curve.label, x: written(x), x2: x2 === undefined ? "" : written(x2), y: written(y) };
    return this.reading.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  range(values, log, limits, rule) {
    let low = Math.min(...values, ...rule);
    let high = Math.max(...values, ...rule);
    const pad = log ? (high / low) ** 0.05 : (high - low) * 0.05;
    if (high === low) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
    else [low, high] = log ? [low / pad, high * pad] : [low - pad, high + pad];
    return [limits[0] ?? low, limits[1] ?? high];
  }

  ranges({ named, rows, all }) {
    const values = (pick, log) => all.flatMap(({ points }) => points.flatMap(pick)).filter((value) => value !== null && (!log || value > 0));
    const rule = this.rule ? [this.rule[0]] : [];
    const log = this.logs.x[this.axis];
    const { limits } = this.xs[this.axis];
    const across = this.range(values(({ x, low, high }) => (named ? [x, low, high] : [x]), log), log, limits, named ? rule : []);
    if (named) return [across, [-0.7, rows.length - 0.3]];
    return [across, this.range(values(({ y, low, high }) => [y, low, high], this.logs.y), this.logs.y, this.y.limits, rule)];
  }

  draw() {
    this.width = this.box.clientWidth;
    if (!this.width) return;
    if (!this.plot) this.start();
    const drawn = this.points();
    const { named, rows, all } = drawn;
    this.plot.replaceChildren();
    this.key.replaceChildren();
    if (!all.some(({ points }) => points.length)) return void (this.output.textContent = "No method is switched on.");
    const names = named ? rows.map((row) => this.y.names[row]) : [];
    const widest = Math.max(0, ...names.map((name) => name.length)) * LETTER + 12;
    const [across, upwards] = this.view ?? this.ranges(drawn);
    const heights = named ? [] : ticks(...upwards, this.logs.y, this.y.ticks).map(ticked);
    const left = named ? Math.min(this.width * 0.56, widest) : 26 + 6.5 * Math.max(3, ...heights.map((text) => text.length));
    const height = named ? 17 * rows.length + 64 : Math.max(210, Math.min(330, this.width * 0.55));
    const edge = { left, right: this.width - 14, top: named || this.gap ? 20 : 10, bottom: height - 40 };
    const x = new Scale(across, this.logs.x[this.axis], edge.left, edge.right);
    const y = new Scale(upwards, !named && this.logs.y, edge.bottom, edge.top);
    const root = svg("svg", { viewBox: `0 0 ${this.width} ${height}`, height, "aria-hidden": true });
    const clip = `clip-${this.number}`;
    root.append(svg("clipPath", { id: clip }, svg("rect", { x: left, y: edge.top - 6, width: edge.right - left + 6, height: edge.bottom - edge.top + 12 })));
    root.append(...this.frame(x, y, edge, height, names));
    const marks = svg("g", { "clip-path": `url(#${clip})` });
    for (const one of all) for (const point of one.points) Object.assign(point, { left: x.place(point.x), top: y.place(point.y) });
    for (const one of all.toSorted((a, b) => (b.curve.kind === "pale") - (a.curve.kind === "pale"))) marks.append(this.curve(one, x, y, named));
    if (this.rule) {
      const place = named ? x.place(this.rule[0]) : y.place(this.rule[0]);
      const ends = named ? { x1: place, x2: place, y1: edge.top, y2: edge.bottom } : { x1: left, x2: edge.right, y1: place, y2: place };
      marks.append(svg("line", { ...ends, class: "rule" }));
      if (named) root.append(this.text(`${this.rule[1]}, ${written(this.rule[0])}`, Math.min(place + 4, edge.right - 130), 12));
      else root.append(this.text(this.rule[1], left + 4, place - 4));
    }
    if (this.gap && this.axis === 0) {
      const [at, low, high, text] = this.gap;
      marks.append(svg("line", { x1: x.place(at), x2: x.place(at), y1: y.place(low), y2: y.place(high), class: "rule" }));
      root.append(this.text(text, left + 6, 13, { class: "title" }));
    }
    this.aim = svg("circle", { r: 7, class: "at", visibility: "hidden" });
    marks.append(this.aim);
    root.append(marks);
    this.plot.append(root);
    Object.assign(this, { all, x, scale: y, edge });
    this.at = null;
    this.output.textContent = "";
    this.legend(named);
  }

  legend(named) {
    const curves = [...this.shown];
    const seen = Map.groupBy(curves, (curve) => (named ? (curve.kind === "open" ? "published" : curve.family) : curve.label));
    for (const [label, [curve]] of seen) this.key.append(html("li", {}, this.swatch(named && curve.kind !== "open" ? { ...curve, marker: "o" } : curve), label));
    const hidden = this.curves.length - curves.length;
    if (hidden) this.key.append(html("li", {}, `${hidden} more below`));
  }

  text(text, x, y, attributes = {}) {
    return svg("text", { x, y, ...attributes }, text);
  }

  frame(x, y, edge, height, names) {
    const parts = [];
    let free = Infinity;
    for (const value of ticks(x.low, x.high, x.log, this.xs[this.axis].ticks).reverse()) {
      const place = x.place(value);
      parts.push(svg("line", { x1: place, x2: place, y1: edge.top, y2: edge.bottom, class: "grid" }));
      const label = ticked(value);
      const half = label.length * 3.4 + 3;
      if (place + half > free) continue;
      free = place - half;
      parts.push(this.text(label, Math.min(place, this.width - half), edge.bottom + 15, { "text-anchor": "middle" }));
    }
    if (names.length) {
      const most = Math.floor((edge.left - 10) / LETTER);
      names.forEach((name, index) => {
        const short = name.length > most ? `${name.slice(0, most - 1)}…` : name;
        parts.push(this.text(short, edge.left - 6, y.place(index) + 4, { "text-anchor": "end" }));
      });
    } else {
      for (const value of ticks(y.low, y.high, y.log, this.y.ticks)) {
        const place = y.place(value);
        parts.push(svg("line", { x1: edge.left, x2: edge.right, y1: place, y2: place, class: "grid" }));
        parts.push(this.text(ticked(value), edge.left - 5, place + 4, { "text-anchor": "end" }));
      }
      const middle = (edge.top + edge.bottom) / 2;
      parts.push(this.text(this.y.label, 0, 0, { "text-anchor": "middle", transform: `translate(11 ${middle}) rotate(-90)`, class: "title" }));
    }
    parts.push(svg("path", { d: `M${edge.left} ${edge.top}V${edge.bottom}H${edge.right}`, class: "frame" }));
    const { label } = this.xs[this.axis];
    const middle = Math.min((edge.left + edge.right) / 2, this.width - (label.length * LETTER) / 2);
    parts.push(this.text(label, middle, height - 6, { "text-anchor": "middle", class: "title" }));
    return parts;
  }

  curve({ curve, points }, x, y, named) {
    const group = svg("g", { style: `--c: var(--c-${curve.colour})` });
    const path = (places) => places.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
    const banded = points.filter(({ low, high }) => low !== null && high !== null);
    if (named) for (const { low, high, top } of banded) group.append(svg("line", { x1: x.place(low), x2: x.place(high), y1: top, y2: top, class: "bar" }));
    else if (banded.length > 1) {
      const above = banded.map((point) => [point.left, y.place(point.high)]);
      const below = banded.map((point) => [point.left, y.place(point.low)]).reverse();
      group.append(svg("path", { d: `M${path([...above, ...below])}z`, class: "band" }));
    }
    const pale = curve.kind === "pale";
    if (pale || curve.kind === "line") {
      const line = svg("path", { d: `M${path(points.map(({ left, top }) => [left, top]))}`, class: pale ? "pale" : "line" });
      if (!pale) line.setAttribute("stroke-dasharray", DASHES[curve.dash]);
      if (points.length) group.append(line);
    }
    if (pale) return group;
    const kind = curve.kind === "open" ? "open" : "mark-at";
    for (const { left, top } of points) group.append(svg("path", { d: MARKERS[curve.marker], transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`, class: kind }));
    const ring = points.find(({ xs }) => xs[0] === curve.ring);
    if (ring) group.append(svg("circle", { cx: ring.left, cy: ring.top, r: 7.5, class: "ring" }));
    return group;
  }

  // Values under the pointer, or one after the other by the arrow keys.
  show(point) {
    this.aim.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) return;
    this.aim.setAttribute("cx", point.left);
    this.aim.setAttribute("cy", point.top);
    this.output.textContent = point.text;
  }

  local(event) {
    const { left, top } = this.plot.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  hover(event) {
    if (!this.all) return;
    const [left, top] = this.local(event);
    const near = this.all.flatMap(({ points }) => points).map((point) => [Math.hypot(point.left - left, point.top - top), point]);
    const [distance, point] = near.reduce((best, one) => (one[0] < best[0] ? one : best), [NEAR, null]);
    this.show(distance < NEAR ? point : null);
    say(point?.text, event);
  }

  press(event) {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const other = { "+": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6), 0: () => this.everything() }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.all || !(step || other)) return;
    event.preventDefault();
    if (other) return other();
    const curves = this.all.filter(({ points }) => points.length).sort((a, b) => a.points.at(-1).top - b.points.at(-1).top);
    const [curve, index] = this.at ?? [-step[0], step[0] ? 0 : -step[1]];
    const next = (curve + step[0] + curves.length) % curves.length;
    const { points } = curves[next];
    this.at = [next, Math.max(0, Math.min(points.length - 1, index + step[1]))];
    this.show(points[this.at[1]]);
  }

  zoom(factor) {
    const ends = (scale) => {
      const [middle, half] = [(scale.from + scale.to) / 2, ((scale.to - scale.from) / 2) * factor];
      return [scale.value(middle - half), scale.value(middle + half)];
    };
    this.view = [ends(this.x), this.y.names.length ? [this.scale.low, this.scale.high] : ends(this.scale)];
    this.draw();
  }

  everything() {
    this.view = null;
    for (const axis of [...this.xs, this.y]) axis.limits = [null, null];
    this.draw();
  }

  drag(start) {
    if (start.pointerType !== "mouse" || start.button || !this.all) return;
    const [left, top] = this.local(start);
    const brush = svg("rect", { class: "brush" });
    this.plot.firstChild.append(brush);
    const move = (event) => {
      const [x, y] = this.local(event);
      const box = { x: Math.min(left, x), y: Math.min(top, y), width: Math.abs(x - left), height: Math.abs(y - top) };
      for (const [key, value] of Object.entries(box)) brush.setAttribute(key, value);
    };
    const end = (event) => {
      removeEventListener("pointermove", move);
      brush.remove();
      const [x, y] = this.local(event);
      if (Math.abs(x - left) < 8 || Math.abs(y - top) < 8) return;
      const between = (scale, ...places) => places.map((place) => scale.value(place)).sort((a, b) => a - b);
      this.view = [between(this.x, left, x), this.y.names.length ? [this.scale.low, this.scale.high] : between(this.scale, top, y)];
      this.draw();
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
  }
}
const charts = [...document.querySelectorAll(".chart")].map((box, number) => new Chart(box, number));
for (const chart of charts) chart.draw();
reveal(); // when what is above has its height
