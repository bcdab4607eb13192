"use strict";
// Draws each figure from the data beside it: marks told apart by their shape and their name, filled where they are on
// the Pareto front. Colour repeats what shape and name say.

const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "cross", "wye", "hexagon"];
const FONT = "11px system-ui, sans-serif";
const ROW = 13; // height of a name, in pixels
const measurer = document.createElement("canvas").getContext("2d");
measurer.font = FONT;

function symbols(points) {
  const methods = [...new Set(points.map((point) => point.method))].sort();
  return new Map(methods.map((method, place) => [method, SYMBOLS[place % SYMBOLS.length]]));
}

// A logarithmic axis has no room for a bar that reaches zero.
function bar(axis, value, bound) {
  return axis.base ? Math.max(bound, value / 10) : bound;
}

function scale(axis, values, room) {
  const words = `${axis.title} (${axis.better} is better)`;
  const label = { label: measurer.measureText(words).width < room ? words : axis.title, labelArrow: "none", labelAnchor: "center", labelOffset: 34 };
  const common = { ...label, grid: true, inset: 14 };
  if (!axis.base) return { ...common, nice: true };
  const tickFormat = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
  return { ...common, type: "log", base: axis.base, ticks: ticks(axis.base, values), tickFormat };
}

// Powers of the base; of ten also twice and five times these, where they do not run together.
function ticks(base, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const steps = base === 10 && high / low < 1e3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = Math.floor(Math.log(low) / Math.log(base)); base ** power <= high; power += 1) {
    found.push(...steps.map((step) => step * base ** power).filter((value) => value >= low && value <= high));
  }
  return found.length > 1 ? found : [low, high];
}

// From the best place around its point outwards, the first where a name covers neither a point nor another name.
function placed(points, x, y, box) {
  const names = [];
  const dots = points.map((point) => ({ left: x(point.x) - 6, right: x(point.x) + 6, top: y(point.y) - 6, bottom: y(point.y) + 6 }));
  const taken = [...dots];
  const order = [...points.keys()].sort((a, b) => points[b].front - points[a].front);
  for (const place of order) {
    const point = points[place];
    const [px, py] = [x(point.x), y(point.y)];
    const width = measurer.measureText(point.name).width + 2;
    for (const [dx, dy, anchor] of around()) {
      const left = anchor === "start" ? px + dx : anchor === "end" ? px + dx - width : px + dx - width / 2;
      const area = { left, right: left + width, top: py + dy - ROW / 2, bottom: py + dy + ROW / 2 };
      const inside = area.left >= box.left && area.right <= box.right && area.top >= box.top && area.bottom <= box.bottom;
      if (inside && !taken.some((other) => overlap(area, other))) {
        taken.push(area);
        names.push({ ...point, dx, dy, anchor });
        break;
      }
    }
  }
  return names;
}

function* around() {
  for (const distance of [9, 0, 16, 28, 40, 54, 72, 92]) {
    yield [9, -distance, "start"];
    yield [-9, -distance, "end"];
    yield [9, distance, "start"];
    yield [-9, distance, "end"];
    yield [0, -11 - distance, "middle"];
    yield [0, 11 + distance, "middle"];
    yield [24, -distance, "start"];
    yield [-24, distance, "end"];
  }
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function said(point, data) {
  const part = (letter) => {
    const [low, high] = [point[`${letter}1`], point[`${letter}2`]];
    const range = low === null ? "" : ` [${low.toPrecision(4)}, ${high.toPrecision(4)}]`;
    return `${data[letter].title} ${point[letter].toPrecision(4)}${range}`;
  };
  return `${point.name}\n${part("x")}\n${part("y")}`;
}

function draw(figure) {
  const canvas = figure.querySelector(".canvas");
  const data = JSON.parse(figure.querySelector("script").textContent);
  const { x, y, points } = data;
  const width = Math.max(canvas.clientWidth, 280);
  const height = Math.round(Math.min(Math.max(width * 0.62, 320), 520));
  const shape = symbols(points);
  const by = (letter) => points.filter((point) => point[`${letter}1`] !== null);
  const front = points.filter((point) => point.front).sort((a, b) => a.x - b.x || a.y - b.y);
  const lengths = points.filter((point) => point.length !== null || points.some((other) => other.method === point.method && other.length !== null));
  const base = {
    width,
    height,
    marginLeft: 60,
    marginRight: 16,
    marginTop: 12,
    marginBottom: 44,
    style: { fontSize: "11px", fontFamily: "system-ui, sans-serif" },
    x: scale(x, points.map((point) => point.x), width - 76),
    y: { ...scale(y, points.map((point) => point.y), height - 56), labelOffset: 52 },
  };
  const ink = (point) => (point.front ? "var(--accent)" : "var(--soft)");
  const marks = [
    Plot.line(front, { x: "x", y: "y", curve: x.better === "lower" ? "step-after" : "step-before", stroke: "var(--accent)", strokeWidth: 1.5, strokeDasharray: "5 3" }),
    Plot.line(lengths, { x: "x", y: "y", z: "method", sort: "x", stroke: "var(--line-strong)", strokeWidth: 1 }),
    Plot.ruleX(by("y"), { x: "x", y1: (p) => bar(y, p.y, p.y1), y2: "y2", stroke: "var(--soft)", strokeWidth: 1, strokeOpacity: 0.7 }),
    Plot.ruleY(by("x"), { y: "y", x1: (p) => bar(x, p.x, p.x1), x2: "x2", stroke: "var(--soft)", strokeWidth: 1, strokeOpacity: 0.7 }),
    Plot.dot(points, { x: "x", y: "y", r: 4.5, symbol: (p) => shape.get(p.method), stroke: ink, fill: (p) => (p.front ? ink(p) : "var(--paper)"), strokeWidth: 1.5 }),
  ];
  const constant = { symbol: { type: "identity" }, color: { type: "identity" } };
  const frame = Plot.plot({ ...base, ...constant, marks });
  const [sx, sy] = [frame.scale("x").apply, frame.scale("y").apply];
  const box = { left: base.marginLeft, right: width - 4, top: 4, bottom: height - base.marginBottom };
  const names = placed(points, sx, sy, box);
  const labels = names.flatMap((name) => {
    const far = Math.abs(name.dy) > 12 || Math.abs(name.dx) > 9;
    const end = { x: sx(name.x) + name.dx * 0.8, y: sy(name.y) + name.dy * 0.85 };
    const leader = far ? [Plot.link([name], { x1: "x", y1: "y", x2: () => frame.scale("x").invert(end.x), y2: () => frame.scale("y").invert(end.y), stroke: "var(--soft)", strokeWidth: 0.5 })] : [];
    const text = { x: "x", y: "y", text: "name", dx: name.dx, dy: name.dy, textAnchor: name.anchor, fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 3, fontWeight: name.front ? 600 : 400 };
    return [...leader, Plot.text([name], text)];
  });
  const tip = Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (point) => said(point, data) }));
  const domains = { x: { ...base.x, domain: frame.scale("x").domain }, y: { ...base.y, domain: frame.scale("y").domain } };
  const plot = Plot.plot({ ...base, ...constant, ...domains, marks: [...marks.slice(0, 4), ...labels, ...marks.slice(4), tip] });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", canvas.dataset.label);
  // an image has one name: those of its parts, which Plot gives them, have no place in it
  for (const part of plot.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
  canvas.replaceChildren(plot);
  const missing = points.length - names.length;
  figure.querySelector(".left").textContent = missing ? `· ${missing} of ${points.length} names found no room: point at a mark to see its name, or read the table` : "";
}

const figures = [...document.querySelectorAll("figure.plot")];
let drawn = 0;
function drawAll() {
  const width = document.documentElement.clientWidth;
  if (width === drawn) return;
  drawn = width;
  figures.forEach(draw);
}
window.addEventListener("resize", drawAll);
drawAll();
