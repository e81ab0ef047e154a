// The map of the vectors: a canvas to look at, to move and to zoom, by pointer, touch and keys.

const FOOT = 46; // height of the strip with the buttons, kept free of points at first sight

function drawMap(root, data) {
  const canvas = root.querySelector("canvas");
  const stage = root.querySelector(".stage");
  const tip = root.querySelector(".tip");
  const picked = root.querySelector(".picked");
  const context = canvas.getContext("2d");
  const count = data.x.length;
  const view = { zoom: 1, x: 0, y: 0 };
  const state = { at: -1, picked: -1, label: null, pictures: false };
  const sprite = data.sprite ? new Image() : null;
  let width = 0;
  let height = 0;
  let colours = {};

  const className = (label) => (label in data.classes ? data.classes[label][0] : "class unknown");
  const scale = () => (Math.min(width, height - FOOT) - 40) * view.zoom;
  const sx = (i) => width / 2 + view.x + (data.x[i] - 0.5) * scale();
  const sy = (i) => middle() + view.y + (data.y[i] - 0.5) * scale();
  const middle = () => (height - FOOT) / 2;
  const side = () => Math.min(56, 20 * Math.sqrt(view.zoom) + 2);

  function readColours() {
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(name).trim();
    colours = { rest: value("--rest"), ink: value("--ink"), accent: value("--accent"), ground: value("--surface") };
    data.coloured.forEach((label, i) => (colours[label] = value("--c" + i)));
    if (data.order.length === 0) colours[-1] = colours.accent;
  }

  const colour = (label) => colours[label] ?? (label === state.label ? colours.accent : colours.rest);

  // Copies thumbnail i into a context; the sprite's tiles are `side` pixels square.
  function thumbnail(into, i, x, y, size) {
    const from = data.sprite.side;
    into.imageSmoothingEnabled = size < from || from >= 24; // an 8 x 8 digit keeps its pixels
    into.drawImage(sprite, (i % data.sprite.columns) * from, Math.floor(i / data.sprite.columns) * from, from, from, x, y, size, size);
  }

  function draw() {
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    context.setTransform(density, 0, 0, density, 0, 0);
    const pictures = state.pictures && sprite.complete;
    const radius = Math.min(7, (count > 800 ? 2.6 : 3.4) * Math.sqrt(view.zoom));
    const shown = new Set([state.at, state.picked, ...(data.neighbours[state.picked] ?? [])]);
    // Grey points first, then the others, so that what has no colour hides nothing.
    const order = [...Array(count).keys()].sort((a, b) => layer(a) - layer(b));
    for (const i of order) {
      const [x, y] = [sx(i), sy(i)];
      if (x < -60 || y < -60 || x > width + 60 || y > height + 60) continue;
      const faint = state.label !== null && data.labels[i] !== state.label && !shown.has(i);
      context.globalAlpha = faint ? 0.13 : 0.9;
      context.fillStyle = colour(data.labels[i]);
      if (pictures && !faint) {
        const size = side();
        context.fillRect(x - size / 2 - 2, y - size / 2 - 2, size + 4, size + 4);
        thumbnail(context, i, x - size / 2, y - size / 2, size);
      } else {
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    if (state.picked >= 0) data.neighbours[state.picked].forEach((i) => ring(i, radius + 3, 1.2));
    for (const i of new Set([state.picked, state.at])) if (i >= 0) ring(i, radius + 5, 2.4);
  }

  const layer = (i) => (data.labels[i] === state.label ? 2 : data.labels[i] in colours ? 1 : 0);

  function ring(i, radius, line) {
    const size = state.pictures ? side() / 2 + 4 : radius;
    for (const [ink, wide] of [[colours.ground, line + 2.4], [colours.ink, line]]) {
      context.strokeStyle = ink;
      context.lineWidth = wide;
      context.beginPath();
      if (state.pictures) context.rect(sx(i) - size, sy(i) - size, 2 * size, 2 * size);
      else context.arc(sx(i), sy(i), size, 0, 7);
      context.stroke();
    }
  }

  function small(parent, i, size) {
    if (!sprite) return;
    const image = html(parent, "canvas", "thumb");
    const density = Math.ceil(window.devicePixelRatio || 1);
    image.width = image.height = size * density;
    image.setAttribute("aria-hidden", "true");
    const paint = () => thumbnail(image.getContext("2d"), i, 0, 0, size * density);
    if (sprite.complete) paint();
    else sprite.addEventListener("load", paint);
  }

  function pointAt(x, y, reach) {
    let best = -1;
    let distance = reach;
    for (let i = 0; i < count; i++) {
      const d = Math.hypot(sx(i) - x, sy(i) - y);
      if (d < distance) [best, distance] = [i, d];
    }
    return best;
  }

  function point(i) {
    if (state.at === i) return;
    state.at = i;
    tip.hidden = i < 0;
    tip.replaceChildren();
    if (i >= 0) {
      small(tip, i, 56);
      const text = html(tip, "div");
      if (data.order.length) html(text, "b", "", className(data.labels[i]));
      html(text, "span", "", data.names[i]);
      const right = sx(i) + 14 + tip.offsetWidth > width;
      tip.style.left = Math.max(4, right ? sx(i) - 14 - tip.offsetWidth : sx(i) + 14) + "px";
      tip.style.top = Math.min(height - tip.offsetHeight - 4, Math.max(4, sy(i) - tip.offsetHeight / 2)) + "px";
    }
    draw();
  }

  function pick(i) {
    state.picked = i;
    picked.replaceChildren();
    if (i < 0) html(picked, "p", "", "Pick a point to see its neighbours.");
    else {
      const own = html(picked, "div", "own");
      small(own, i, 64);
      const text = html(own, "div");
      if (data.order.length) html(text, "b", "", className(data.labels[i]));
      html(text, "span", "", data.names[i]);
      html(picked, "p", "", "Its nearest neighbours:");
      const list = html(picked, "ol");
      for (const j of data.neighbours[i]) {
        const button = html(html(list, "li"), "button");
        button.type = "button";
        small(button, j, 40);
        html(button, "span", sprite ? "aside-name" : "", data.order.length ? className(data.labels[j]) : data.names[j]);
        button.title = data.names[j];
        button.addEventListener("click", () => pick(j));
        button.addEventListener("pointerenter", () => point(j));
        button.addEventListener("pointerleave", () => point(-1));
      }
    }
    draw();
  }

  // Zoom keeps the place (x, y) of the canvas where it is.
  function zoom(factor, x = width / 2, y = middle()) {
    const to = Math.min(40, Math.max(1, view.zoom * factor));
    const ratio = to / view.zoom;
    view.x = (x - width / 2) * (1 - ratio) + view.x * ratio;
    view.y = (y - middle()) * (1 - ratio) + view.y * ratio;
    view.zoom = to;
    move(0, 0);
  }

  // Never so far that the map leaves its window. One finger scrolls the page until there is something to move.
  function move(dx, dy) {
    const limit = (length) => Math.max(0, scale() / 2 + 24 - length / 2 + (view.zoom > 1 ? length / 3 : 0));
    view.x = Math.min(limit(width), Math.max(-limit(width), view.x + dx));
    view.y = Math.min(limit(height), Math.max(-limit(height), view.y + dy));
    canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    point(-1);
    draw();
  }

  function all() {
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    move(0, 0);
  }

  // The nearest point in a direction, those straight ahead first; it is brought into view.
  function walk(dx, dy) {
    const from = state.at >= 0 ? state.at : state.picked >= 0 ? state.picked : pointAt(width / 2, middle(), Infinity);
    let best = state.at < 0 ? from : -1;
    let cost = best < 0 ? Infinity : -1;
    for (let i = 0; i < count; i++) {
      const [x, y] = [sx(i) - sx(from), sy(i) - sy(from)];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (i !== from && ahead > 0.5 && ahead + 2.5 * aside < cost) [best, cost] = [i, ahead + 2.5 * aside];
    }
    if (best < 0) return;
    const out = (place, length) => (place < 30 ? 30 - place : place > length - 30 ? length - 30 - place : 0);
    const [ox, oy] = [out(sx(best), width), out(sy(best), height)];
    if (ox || oy) move(ox, oy);
    point(best);
    picked.setAttribute("aria-label", (data.order.length ? className(data.labels[best]) + ", " : "") + data.names[best]);
  }

  const KEYS = {
    ArrowLeft: () => walk(-1, 0),
    ArrowRight: () => walk(1, 0),
    ArrowUp: () => walk(0, -1),
    ArrowDown: () => walk(0, 1),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: all,
    Enter: () => pick(state.at),
    " ": () => pick(state.at),
    Escape: () => (point(-1), pick(-1)),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const fingers = new Map();
  let travelled = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1) travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") point(pointAt(...now, 14));
      return;
    }
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    fingers.set(event.pointerId, now);
    if (other) {
      const spread = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      zoom(spread(now) / spread(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    } else if (travelled > 5) move(now[0] - before[0], now[1] - before[1]);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (fingers.delete(event.pointerId) && travelled <= 5) {
      const i = pointAt(...place(event), event.pointerType === "touch" ? 26 : 14);
      point(event.pointerType === "touch" ? i : state.at);
      pick(i);
    }
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => fingers.size || point(-1));
  // The bare wheel belongs to the page.
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.004)), ...place(event));
    },
    { passive: false },
  );

  const tools = { in: () => zoom(1.6), out: () => zoom(1 / 1.6), all };
  for (const button of root.querySelectorAll(".tools button")) {
    if (button.dataset.do !== "pictures") button.addEventListener("click", tools[button.dataset.do]);
    else if (sprite) {
      button.hidden = false;
      button.addEventListener("click", () => {
        state.pictures = !state.pictures;
        button.setAttribute("aria-pressed", state.pictures);
        draw();
      });
    }
  }

  const legend = root.querySelector(".legend");
  const unknown = data.labels.filter((label) => label < 0).length;
  const entries = data.order.map((label) => [label, ...data.classes[label]]);
  if (entries.length && unknown) entries.push([-1, "class unknown", unknown]);
  if (data.order.length > data.coloured.length) {
    html(legend, "p", "", `${grouped.format(data.order.length)} classes, the ${data.coloured.length} largest in colour. Pick any to see it alone.`);
  }
  for (const [label, name, items] of entries) {
    const button = html(legend, "button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const at = data.coloured.indexOf(label);
    html(button, "i", at < 0 ? "" : "c" + at);
    html(button, "span", "", name);
    html(button, "small", "", grouped.format(items));
    button.addEventListener("click", () => {
      state.label = state.label === label ? null : label;
      for (const each of legend.querySelectorAll("button")) each.setAttribute("aria-pressed", each === button && state.label !== null);
      draw();
    });
  }

  readColours();
  new ResizeObserver(() => {
    if (stage.clientWidth === width && stage.clientHeight === height) return;
    [width, height] = [stage.clientWidth, stage.clientHeight];
    move(0, 0);
  }).observe(stage);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => (readColours(), draw()));
  }
  if (sprite) {
    sprite.addEventListener("load", draw);
    sprite.src = data.sprite.image;
  }
}
