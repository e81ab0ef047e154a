// Curves and the few-label plot: SVG as wide as its box. Names enter the page through textContent only.

const SVG = "http://www.w3.org/2000/svg";

function shape(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const grouped = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function printed(value, format) {
  if (value === null || value === undefined) return "–";
  if (format === "percent") return (100 * value).toFixed(1) + " %";
  if (Math.abs(value) >= 1e4) return short.format(value);
  if (format === "compact") return grouped.format(Math.round(value));
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(2).replaceAll("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

// Round numbers that cover low to high, at most `most` of them between the ends.
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) found.push(i * step);
  return { step, values: found };
}

// Digits behind the point that multiples of a step of 1, 2, 2.5 or 5 times a power of ten need.
function digitsOf(step) {
  const power = Math.floor(Math.log10(step) + 1e-6);
  return Math.max(0, (Math.abs(step / 10 ** power - 2.5) < 1e-6 ? 1 : 0) - power);
}

function tickText(value, step, format) {
  if (format === "percent") return (100 * value).toFixed(Math.min(1, digitsOf(100 * step)));
  if (Math.abs(value) >= 1e4) return short.format(value);
  if (step >= 100) return grouped.format(value);
  const digits = digitsOf(step);
  if (digits > 4) return value === 0 ? "0" : value.toExponential(1).replace(".0", "").replaceAll("-", "−");
  return value.toFixed(digits).replace("-", "−");
}

// A vertical scale for values; equal values get room around them.
function extent(values, margin) {
  const known = values.filter((v) => v !== null);
  let low = Math.min(...known);
  let high = Math.max(...known);
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) {
    const room = Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  }
  const room = (high - low) * margin;
  low = low >= 0 && low - room < 0 ? 0 : low - room;
  return [low, high + room];
}

function path(xs, ys) {
  let text = "";
  let joined = false;
  xs.forEach((x, i) => {
    if (ys[i] !== null) text += (joined ? "L" : "M") + x.toFixed(1) + " " + ys[i].toFixed(1);
    joined = ys[i] !== null;
  });
  return text;
}

// The area between two lines, once for every stretch without gaps.
function area(xs, lows, highs) {
  let text = "";
  for (let start = 0; start < xs.length; start++) {
    if (lows[start] === null) continue;
    let end = start;
    while (end + 1 < xs.length && lows[end + 1] !== null) end++;
    const there = [];
    const back = [];
    for (let i = start; i <= end; i++) {
      there.push(xs[i].toFixed(1) + " " + highs[i].toFixed(1));
      back.unshift(xs[i].toFixed(1) + " " + lows[i].toFixed(1));
    }
    text += "M" + there.concat(back).join("L") + "Z";
    start = end;
  }
  return text;
}

function nearest(xs, x) {
  let best = 0;
  xs.forEach((value, i) => {
    if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i;
  });
  return best;
}

function onResize(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width || box.clientWidth === 0) return;
    width = box.clientWidth;
    draw(width);
  }).observe(box);
}

// Lines and figures of a vertical scale.
function rows(svg, across, y, left, right, format) {
  for (const value of across.values) {
    shape(svg, "line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) });
    shape(svg, "text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value, across.step, format));
  }
}

// Where a key moves a cursor among `length` places; the first small step only shows it, at the end. Undefined for other keys.
function keyed(event, at, length) {
  const move = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 }[event.key];
  if (move === undefined) return undefined;
  event.preventDefault();
  const to = at !== null ? at + move : move === -1e9 ? 0 : length - 1;
  return Math.min(length - 1, Math.max(0, to));
}

// One small multiple. `cursor` is shared: pointing at one curve shows the values of all at that step.
function drawCurve(figure, curve, best, range, cursor) {
  const box = figure.querySelector(".plot");
  const output = figure.querySelector("output");
  const svg = shape(box, "svg", { tabindex: 0, role: "slider", height: 132, "aria-label": curve.title, "aria-valuemin": range[0], "aria-valuemax": range[1] });
  const [low, high] = extent([...curve.low, ...curve.high], 0.06);
  const edge = { left: 44, right: 10, top: 8, bottom: 22 };
  const bottom = 132 - edge.bottom;
  const y = (v) => (v === null ? null : edge.top + ((high - v) / (high - low)) * (bottom - edge.top));
  let x = (step) => step;
  let marker = null;

  function draw(width) {
    const span = Math.max(1, range[1] - range[0]);
    x = (step) => edge.left + ((step - range[0]) / span) * (width - edge.left - edge.right);
    svg.replaceChildren();
    svg.setAttribute("width", width);
    rows(svg, ticks(low, high, 4), y, edge.left, width - edge.right, curve.format);
    [range[0], range[1]].forEach((step, i) => {
      shape(svg, "text", { class: "tick", x: x(step), y: 128, "text-anchor": i ? "end" : "start" }, (i ? "" : "step ") + grouped.format(step));
    });
    const xs = curve.x.map(x);
    if (curve.low.some((v, i) => v !== curve.high[i])) shape(svg, "path", { class: "band", d: area(xs, curve.low.map(y), curve.high.map(y)) });
    if (best) {
      const at = nearest(curve.x, best.step);
      shape(svg, "line", { class: "best", x1: x(best.step), x2: x(best.step), y1: edge.top, y2: bottom });
      if (curve.y[at] !== null) shape(svg, "circle", { class: "best", cx: x(best.step), cy: y(curve.y[at]), r: 3.5 });
    }
    shape(svg, "path", { class: "line", d: path(xs, curve.y.map(y)) });
    curve.y.forEach((v, i) => {
      const alone = v !== null && (i === 0 || curve.y[i - 1] === null) && (i + 1 === curve.y.length || curve.y[i + 1] === null);
      if (alone) shape(svg, "circle", { class: "point", cx: xs[i], cy: y(v), r: 2.5 });
    });
    marker = shape(svg, "g", { class: "cursor" });
    show(cursor.step);
  }

  function show(step) {
    const last = curve.y.findLastIndex((v) => v !== null);
    const at = step === null ? last : nearest(curve.x, step);
    const value = printed(curve.y[at], curve.format);
    const spread = curve.low[at] !== curve.high[at] ? " (" + printed(curve.low[at], curve.format) + " to " + printed(curve.high[at], curve.format) + ")" : "";
    output.textContent = step === null ? value : value + (spread && figure.matches(":hover, :focus-within") ? spread : "");
    svg.setAttribute("aria-valuenow", curve.x[at]);
    svg.setAttribute("aria-valuetext", "step " + grouped.format(curve.x[at]) + ": " + value + spread);
    if (marker === null) return;
    marker.replaceChildren();
    if (step === null) return;
    const across = x(curve.x[at]);
    shape(marker, "line", { x1: across, x2: across, y1: edge.top, y2: bottom });
    if (curve.y[at] !== null) shape(marker, "circle", { cx: across, cy: y(curve.y[at]), r: 3.5 });
    const anchor = across > x((range[0] + range[1]) / 2) ? "end" : "start";
    const label = shape(marker, "text", { class: "tick now", x: across, y: 128, "text-anchor": "middle" }, grouped.format(curve.x[at]));
    const half = label.getComputedTextLength() / 2;
    const limit = anchor === "end" ? Math.min(across, x(range[1]) - half) : Math.max(across, x(range[0]) + half);
    label.setAttribute("x", limit);
    // Covers the printed ends of the axis where they would run into each other.
    const back = shape(marker, "rect", { class: "under", x: limit - half - 6, y: 116, width: 2 * half + 12, height: 16 });
    marker.insertBefore(back, label);
  }

  const stepAt = (event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    return curve.x[nearest(curve.x.map(x), place)];
  };
  svg.addEventListener("pointermove", (event) => cursor.set(stepAt(event)));
  svg.addEventListener("pointerdown", (event) => cursor.set(stepAt(event)));
  svg.addEventListener("pointerleave", () => cursor.set(null));
  svg.addEventListener("blur", () => cursor.set(null));
  svg.addEventListener("keydown", (event) => {
    const at = keyed(event, cursor.step === null ? null : nearest(curve.x, cursor.step), curve.x.length);
    if (at !== undefined) cursor.set(curve.x[at]);
  });
  cursor.listeners.push(show);
  onResize(box, draw);
}

const MARKERS = { circle: "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", square: "M-3.6 -3.6H3.6V3.6H-3.6Z", diamond: "M0 -5L5 0L0 5L-5 0Z", triangle: "M0 -4.6L4.6 3.6H-4.6Z" };

// A line and a marker, as a key shows them.
function swatch(parent, row) {
  const drawn = shape(parent, "svg", { width: 30, height: 12, viewBox: "-15 -6 30 12", "aria-hidden": "true" });
  shape(drawn, "path", { class: "line", d: "M-14 0H14" });
  shape(drawn, "path", { class: "marker", d: MARKERS[row.marker] });
}

function drawFewLabel(figure, key, few) {
  const box = figure.querySelector(".plot");
  const svg = shape(box, "svg", { role: "img", "aria-label": "Accuracy against labels per class; the table below has the same figures." });
  const all = few.plot.flatMap((row) => row.points.flatMap((p) => p.slice(1)));
  const [low, high] = extent(all, 0.05);
  const first = Math.log(few.counts[0]);
  const span = Math.log(few.counts[few.counts.length - 1]) - first || 1;
  let at = few.focus ?? few.counts[0];

  function draw(width) {
    const height = Math.round(Math.min(380, Math.max(230, width * 0.52)));
    const edge = { left: 34, right: 14, top: 10, bottom: 40 };
    const x = (count) => edge.left + 10 + ((Math.log(count) - first) / span) * (width - edge.left - edge.right - 10);
    const y = (v) => (v === null ? null : edge.top + ((high - v) / (high - low)) * (height - edge.top - edge.bottom));
    svg.replaceChildren();
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    rows(svg, ticks(low, high, 5), y, edge.left, width - edge.right, "percent");
    shape(svg, "line", { class: "chosen", x1: x(at), x2: x(at), y1: edge.top, y2: height - edge.bottom });
    let right = -Infinity;
    for (const count of few.counts) {
      if (x(count) - right < 22 && count !== at) continue;
      shape(svg, "text", { class: count === at ? "tick now" : "tick", x: x(count), y: height - edge.bottom + 18, "text-anchor": "middle" }, grouped.format(count));
      right = x(count);
    }
    shape(svg, "text", { class: "tick", x: (edge.left + width - edge.right) / 2, y: height - 4, "text-anchor": "middle" }, "labels per class");
    for (const row of [...few.plot].reverse()) {
      const xs = row.points.map((p) => x(p[0]));
      const group = shape(svg, "g", { class: "row " + row.look, "data-row": row.key });
      shape(group, "path", { class: "band", d: area(xs, row.points.map((p) => y(p[2])), row.points.map((p) => y(p[3]))) });
      shape(group, "path", { class: "line", d: path(xs, row.points.map((p) => y(p[1]))) });
      row.points.forEach((p, i) => shape(group, "path", { class: "marker", d: MARKERS[row.marker], transform: `translate(${xs[i]} ${y(p[1])})` }));
    }
    svg.onpointermove = svg.onpointerdown = (event) => choose(few.counts[nearest(few.counts.map(x), event.clientX - svg.getBoundingClientRect().left)], width);
    svg.onpointerleave = () => choose(few.focus ?? few.counts[0], width);
  }

  function choose(count, width) {
    if (count === at) return;
    at = count;
    draw(width);
    legend();
  }

  function legend() {
    key.replaceChildren();
    html(key, "p", "at", "With " + grouped.format(at) + (at === 1 ? " label" : " labels") + " per class");
    const list = html(key, "ul");
    for (const row of few.plot) {
      const entry = html(list, "li", "row " + row.look);
      entry.dataset.row = row.key;
      swatch(entry, row);
      html(entry, "span", "", row.name);
      const point = row.points.find((p) => p[0] === at);
      html(entry, "b", "", point ? printed(point[1], "percent") : "–");
      html(entry, "small", "", point && point[2] !== null ? (100 * point[2]).toFixed(1) + "–" + (100 * point[3]).toFixed(1) : "");
    }
  }

  legend();
  onResize(box, draw);
}
