// The page of a contest: quality against time, label-free measures against accuracy, and one method that stands out everywhere.

const data = JSON.parse(document.getElementById("data").textContent);

// What is pointed at, focused or picked stands out in every chart. Rules at the end of the style sheet name it, so charts may draw
// themselves again without losing it.
const standout = {
  picked: null,
  styles: [
    ['main[data-lit] svg [data-row="KEY"], main[data-lit] svg[data-row="KEY"]', "opacity: 1;"],
    ['main[data-lit] .few.many [data-row="KEY"] .band', "opacity: 0.2;"],
    ['main[data-lit] tr[data-row="KEY"] > *, main[data-lit] .key [data-row="KEY"]', "background: var(--sunk);"],
  ],
  show(key) {
    const main = document.getElementById("main");
    key ??= this.picked;
    if (key === null) return void delete main.dataset.lit;
    const sheet = document.styleSheets[0];
    this.rules ??= this.styles.map(([selector, style]) => sheet.cssRules[sheet.insertRule(`${selector} { ${style} }`, sheet.cssRules.length)]);
    this.rules.forEach((rule, i) => (rule.selectorText = this.styles[i][0].replaceAll("KEY", key)));
    main.dataset.lit = key;
  },
  pick(key) {
    this.picked = this.picked === key ? null : key;
    this.show(key === this.picked ? key : null);
  },
};
const keyOf = (element) => element?.closest("[data-row]")?.dataset.row ?? null;
document.addEventListener("pointerover", (event) => standout.show(keyOf(event.target)));
document.addEventListener("focusin", (event) => standout.show(keyOf(event.target)));
document.addEventListener("focusout", () => standout.show(null));

const UNITS = [[10800, 3600, "hours"], [180, 60, "minutes"], [0, 1, "seconds"]];

function clock(seconds) {
  if (seconds < 60) return Number(seconds.toPrecision(2)) + " s";
  const minutes = Math.floor(Math.round(seconds) / 60);
  return minutes < 60 ? minutes + " min " + (Math.round(seconds) % 60) + " s" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

// What a method had reached after so many seconds: nothing before its first point, and after its last one that.
function reached(line, seconds) {
  const { x, y } = line;
  const next = x.findIndex((v) => v >= seconds);
  if (next < 0) return y[y.length - 1];
  if (x[next] === seconds) return y[next];
  if (next === 0) return null;
  return y[next - 1] + ((y[next] - y[next - 1]) * (seconds - x[next - 1])) / (x[next] - x[next - 1]);
}

// Heights for labels that want to be at `wanted`, which climbs: at least `gap` apart, and inside low to high where they fit.
function spread(wanted, low, high, gap) {
  const step = Math.min(gap, (high - low) / Math.max(1, wanted.length - 1));
  const found = [];
  for (const place of wanted) found.push(Math.max(place, low, found.length ? found[found.length - 1] + step : low));
  for (let i = found.length - 1, roof = high; i >= 0; i--, roof = found[i + 1] - step) found[i] = Math.min(found[i], roof);
  return found;
}

function drawRace(figure, list, race) {
  const box = figure.querySelector(".plot");
  const lines = [...race.lines].sort((a, b) => b.mean.y[b.mean.y.length - 1] - a.mean.y[a.mean.y.length - 1]);
  const [low, high] = extent(lines.flatMap((line) => [line.mean, ...line.runs].flatMap((run) => run.y)), 0.05);
  const end = Math.max(...lines.flatMap((line) => [line.mean, ...line.runs].flatMap((run) => run.x))) || 1;
  const stops = [...new Set(lines.flatMap((line) => line.mean.x))].sort((a, b) => a - b);
  const svg = shape(box, "svg", { tabindex: 0, role: "slider", "aria-label": race.title + " against time", "aria-valuemin": 0, "aria-valuemax": Math.round(end) });
  const values = key(list);
  let at = null; // the seconds that are looked at
  let x, y, marker, bottom;

  function draw(width) {
    const named = width >= 560; // beside the lines; on narrow screens the key alone has to do
    const longest = Math.max(...lines.map((line) => line.name.length));
    const height = Math.round(Math.max(260, Math.min(460, width * 0.56), named ? lines.length * 28 + 60 : 0));
    const edge = { left: 40, right: named ? Math.min(190, 7.4 * longest + 34) : 10, top: 8, bottom: 40 };
    bottom = height - edge.bottom;
    x = (seconds) => edge.left + (seconds / end) * (width - edge.left - edge.right);
    y = (v) => edge.top + ((high - v) / (high - low)) * (bottom - edge.top);
    svg.replaceChildren();
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    rows(svg, ticks(low, high, 5), y, edge.left, width - edge.right, race.format);
    const [, unit, unitName] = UNITS.find(([least]) => end >= least);
    const across = ticks(0, end / unit, width < 560 ? 4 : 8);
    for (const value of across.values) {
      shape(svg, "text", { class: "tick", x: x(value * unit), y: bottom + 18, "text-anchor": "middle" }, tickText(value, across.step, ""));
    }
    shape(svg, "text", { class: "tick", x: x(end / 2), y: height - 4, "text-anchor": "middle" }, unitName + " of training");
    const heights = spread(lines.map((line) => y(line.mean.y[line.mean.y.length - 1])), edge.top + 6, bottom, 16);
    for (const [i, line] of [...lines.entries()].reverse()) {
      const group = shape(svg, "g", { class: "row " + line.look, "data-row": line.key });
      const [lastX, lastY] = [x(line.mean.x[line.mean.x.length - 1]), y(line.mean.y[line.mean.y.length - 1])];
      if (line.runs.length > 1) for (const run of line.runs) shape(group, "path", { class: "each", d: path(run.x.map(x), run.y.map(y)) });
      const middle = path(line.mean.x.map(x), line.mean.y.map(y));
      shape(group, "path", { class: "line", d: middle });
      shape(group, "path", { class: "hit", d: middle });
      shape(group, "path", { class: "marker", d: MARKERS[line.marker], transform: `translate(${lastX} ${lastY})` });
      if (!named) continue;
      const right = width - edge.right;
      shape(group, "path", { class: "lead", d: `M${lastX + 6} ${lastY}H${Math.max(lastX + 6, right + 4)}L${right + 18} ${heights[i]}` });
      shape(group, "text", { class: "name", x: right + 22, y: heights[i] + 4 }, line.name.length > 22 ? line.name.slice(0, 21) + "…" : line.name);
    }
    marker = shape(svg, "g", { class: "cursor" });
    show();
  }

  function key(parent) {
    const when = html(parent, "p", "at");
    const list = html(parent, "ul");
    const shown = lines.map((line) => {
      const button = html(html(list, "li"), "button", "row " + line.look);
      button.type = "button";
      button.dataset.row = line.key;
      button.setAttribute("aria-pressed", "false");
      swatch(button, line);
      html(button, "span", "", line.name);
      button.addEventListener("click", () => {
        standout.pick(line.key);
        for (const each of list.querySelectorAll("button")) each.setAttribute("aria-pressed", each.dataset.row === standout.picked);
      });
      return html(button, "b");
    });
    return { when, shown };
  }

  function show() {
    const seconds = at ?? end;
    const found = lines.map((line) => reached(line.mean, seconds));
    values.when.textContent = at === null ? "At the end" : "After " + clock(at);
    values.shown.forEach((element, i) => (element.textContent = printed(found[i], race.format)));
    svg.setAttribute("aria-valuenow", Math.round(seconds));
    svg.setAttribute("aria-valuetext", "after " + clock(seconds) + ": " + lines.map((line, i) => line.name + " " + printed(found[i], race.format)).join(", "));
    marker.replaceChildren();
    if (at === null) return;
    shape(marker, "line", { x1: x(at), x2: x(at), y1: 8, y2: bottom });
    lines.forEach((line, i) => {
      if (found[i] !== null && at <= line.mean.x[line.mean.x.length - 1]) shape(marker, "circle", { cx: x(at), cy: y(found[i]), r: 3 });
    });
  }

  const look = (seconds) => ((at = seconds), show());
  const pointed = (event) => look(stops[nearest(stops.map(x), event.clientX - svg.getBoundingClientRect().left)]);
  svg.addEventListener("pointermove", pointed);
  svg.addEventListener("pointerdown", pointed);
  svg.addEventListener("pointerleave", () => look(null));
  svg.addEventListener("blur", () => look(null));
  svg.addEventListener("keydown", (event) => {
    const to = keyed(event, at === null ? null : stops.indexOf(at), stops.length);
    if (to !== undefined) look(stops[to]);
  });
  onResize(box, draw);
}

// Every run as a point: a measure that needs no labels across, accuracy up.
function drawScatter(figure, plot) {
  const box = figure.querySelector(".plot");
  const output = figure.querySelector("output");
  const points = [...plot.points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const svg = shape(box, "svg", { tabindex: 0, role: "slider", height: 220, "aria-label": plot.title + " against kNN accuracy, run by run", "aria-valuemin": 1, "aria-valuemax": points.length });
  const sides = [extent(points.map((p) => p[0]), 0.08), extent(points.map((p) => p[1]), 0.08)];
  const edge = { left: 34, right: 10, top: 8, bottom: 24 };
  const y = (v) => edge.top + ((sides[1][1] - v) / (sides[1][1] - sides[1][0])) * (220 - edge.top - edge.bottom);
  let at = null; // the point that is looked at
  let x, ring;

  function draw(width) {
    x = (v) => edge.left + ((v - sides[0][0]) / (sides[0][1] - sides[0][0])) * (width - edge.left - edge.right);
    svg.replaceChildren();
    svg.setAttribute("width", width);
    rows(svg, ticks(...sides[1], 4), y, edge.left, width - edge.right, "percent");
    const across = ticks(...sides[0], 4);
    for (const value of across.values) {
      shape(svg, "text", { class: "tick", x: x(value), y: 216, "text-anchor": "middle" }, tickText(value, across.step, ""));
    }
    for (const [value, accuracy, entrant] of points) {
      const [key, look, marker] = data.looks[entrant];
      const group = shape(svg, "g", { class: "row " + look, "data-row": key });
      shape(group, "path", { class: "marker", d: MARKERS[marker], transform: `translate(${x(value)} ${y(accuracy)})` });
    }
    ring = shape(svg, "circle", { class: "chosen", r: 7, visibility: "hidden" });
    show();
  }

  function show() {
    const point = points[at ?? 0];
    const said = `kNN ${printed(point[1], "percent")} at ${printed(point[0], "number")}: ${data.names[point[2]]}, seed ${point[3]}`;
    output.textContent = at !== null ? said : plot.rho === null ? "" : "ρ = " + (plot.rho < 0 ? "−" : "+") + Math.abs(plot.rho).toFixed(2);
    svg.setAttribute("aria-valuenow", (at ?? 0) + 1);
    svg.setAttribute("aria-valuetext", said);
    ring.setAttribute("visibility", at === null ? "hidden" : "visible");
    ring.setAttribute("cx", x(point[0]));
    ring.setAttribute("cy", y(point[1]));
  }

  function look(place) {
    at = place;
    show();
    standout.show(at === null ? null : data.looks[points[at][2]][0]);
  }

  const pointed = (event) => {
    const frame = svg.getBoundingClientRect();
    const far = points.map((p) => Math.hypot(x(p[0]) - event.clientX + frame.left, y(p[1]) - event.clientY + frame.top));
    look(far.indexOf(Math.min(...far)));
  };
  svg.addEventListener("pointermove", pointed);
  svg.addEventListener("pointerdown", pointed);
  svg.addEventListener("pointerleave", () => look(null));
  svg.addEventListener("blur", () => look(null));
  svg.addEventListener("keydown", (event) => {
    const to = keyed(event, at, points.length);
    if (to !== undefined) look(to);
  });
  onResize(box, draw);
}

if (data.race) drawRace(document.getElementById("race"), document.getElementById("race-key"), data.race);
if (data.few) drawFewLabel(document.getElementById("few"), document.getElementById("key"), data.few);
for (const figure of document.querySelectorAll("[data-scatter]")) drawScatter(figure, data.agreement[figure.dataset.scatter]);
