// The map of the vectors: what is drawn on its canvas, and what is said of the point that is looked at. Controls: controls.js.

const FOOT = 46; // height of the strip with the buttons, kept free of points at first sight

class AtlasMap {
  constructor(root, data) {
    this.data = data;
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.tip = root.querySelector(".tip");
    this.picked = root.querySelector(".picked");
    this.width = this.height = 0;
    this.view = { zoom: 1, x: 0, y: 0 };
    this.at = this.chosen = -1; // the points that are looked at, and whose neighbours are shown
    this.label = null; // the class that is shown alone
    this.pictures = false;
    this.sprite = data.sprite ? new Image() : null;
    const span = (values) => Math.max(...values) - Math.min(...values) || 1;
    this.spans = [span(data.x), span(data.y)];
    this.readColours();
    new ResizeObserver(() => {
      if (this.stage.clientWidth === this.width && this.stage.clientHeight === this.height) return;
      [this.width, this.height] = [this.stage.clientWidth, this.stage.clientHeight];
      this.move(0, 0);
    }).observe(this.stage);
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(query).addEventListener("change", () => (this.readColours(), this.draw()));
    }
    if (this.sprite) {
      this.sprite.addEventListener("load", () => this.draw());
      this.sprite.src = data.sprite.image;
    }
  }

  readColours() {
    const style = getComputedStyle(this.root);
    const value = (name) => style.getPropertyValue(name).trim();
    this.colours = { rest: value("--rest"), ink: value("--ink"), accent: value("--accent"), ground: value("--surface") };
    this.data.coloured.forEach((label, i) => (this.colours[label] = value("--c" + i)));
    if (this.data.order.length === 0) this.colours[-1] = this.colours.accent;
  }

  colour(label) {
    return this.colours[label] ?? (label === this.label ? this.colours.accent : this.colours.rest);
  }

  className(label) {
    return label in this.data.classes ? this.data.classes[label][0] : "class unknown";
  }

  get middle() {
    return (this.height - FOOT) / 2;
  }

  get scale() {
    return Math.min((this.width - 40) / this.spans[0], (this.height - FOOT - 40) / this.spans[1]) * this.view.zoom;
  }

  get side() {
    return Math.min(56, 20 * Math.sqrt(this.view.zoom) + 2);
  }

  place(i) {
    return [this.width / 2 + this.view.x + (this.data.x[i] - 0.5) * this.scale, this.middle + this.view.y + (this.data.y[i] - 0.5) * this.scale];
  }

  draw() {
    const { canvas, context, data } = this;
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(this.width * density);
    canvas.height = Math.round(this.height * density);
    context.setTransform(density, 0, 0, density, 0, 0);
    const near = data.neighbours[this.chosen] ?? [];
    const shown = new Set([this.at, this.chosen, ...near]);
    const radius = Math.min(7, (data.x.length > 800 ? 2.6 : 3.4) * Math.sqrt(this.view.zoom));
    // Grey points first, then the others, so that what has no colour hides nothing.
    const layer = (i) => (data.labels[i] === this.label ? 2 : data.labels[i] in this.colours ? 1 : 0);
    for (const i of [...data.x.keys()].sort((a, b) => layer(a) - layer(b))) {
      this.drawItem(i, radius, this.label !== null && data.labels[i] !== this.label && !shown.has(i));
    }
    context.globalAlpha = 1;
    for (const i of near) this.ring(i, radius + 3, 1.2);
    for (const i of new Set([this.chosen, this.at])) if (i >= 0) this.ring(i, radius + 5, 2.4);
  }

  drawItem(i, radius, faint) {
    const { context } = this;
    const [x, y] = this.place(i);
    if (x < -60 || y < -60 || x > this.width + 60 || y > this.height + 60) return;
    context.globalAlpha = faint ? 0.13 : 0.9;
    context.fillStyle = this.colour(this.data.labels[i]);
    if (this.pictures && this.sprite.complete && !faint) {
      const half = this.side / 2;
      context.fillRect(x - half - 2, y - half - 2, 2 * half + 4, 2 * half + 4);
      this.thumbnail(context, i, x - half, y - half, 2 * half);
    } else {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    }
  }

  ring(i, radius, line) {
    const { context } = this;
    const [x, y] = this.place(i);
    const half = this.side / 2 + 4;
    for (const [ink, wide] of [[this.colours.ground, line + 2.4], [this.colours.ink, line]]) {
      context.strokeStyle = ink;
      context.lineWidth = wide;
      context.beginPath();
      if (this.pictures) context.rect(x - half, y - half, 2 * half, 2 * half);
      else context.arc(x, y, radius, 0, 7);
      context.stroke();
    }
  }

  // Copies thumbnail i of the sprite into a context.
  thumbnail(into, i, x, y, size) {
    const { side, columns } = this.data.sprite;
    into.imageSmoothingEnabled = size < side || side >= 24; // an 8 x 8 digit keeps its pixels
    into.drawImage(this.sprite, (i % columns) * side, Math.floor(i / columns) * side, side, side, x, y, size, size);
  }

  small(parent, i, size) {
    if (!this.sprite) return;
    const image = html(parent, "canvas", "thumb");
    const density = Math.ceil(window.devicePixelRatio || 1);
    image.width = image.height = size * density;
    image.setAttribute("aria-hidden", "true");
    const paint = () => this.thumbnail(image.getContext("2d"), i, 0, 0, size * density);
    if (this.sprite.complete) paint();
    else this.sprite.addEventListener("load", paint);
  }

  // Picture, class and name of an item.
  describe(parent, i, size) {
    this.small(parent, i, size);
    const text = html(parent, "div");
    if (this.data.order.length) html(text, "b", "", this.className(this.data.labels[i]));
    html(text, "span", "", this.data.names[i]);
  }

  pointAt(x, y, reach) {
    let best = -1;
    let distance = reach;
    for (const i of this.data.x.keys()) {
      const [px, py] = this.place(i);
      const d = Math.hypot(px - x, py - y);
      if (d < distance) [best, distance] = [i, d];
    }
    return best;
  }

  // Look at a point, or with -1 at none.
  point(i) {
    if (this.at === i) return;
    const { tip } = this;
    this.at = i;
    tip.hidden = i < 0;
    tip.replaceChildren();
    if (i >= 0) {
      this.describe(tip, i, 56);
      const [x, y] = this.place(i);
      const right = x + 14 + tip.offsetWidth > this.width;
      tip.style.left = Math.max(4, right ? x - 14 - tip.offsetWidth : x + 14) + "px";
      tip.style.top = Math.min(this.height - tip.offsetHeight - 4, Math.max(4, y - tip.offsetHeight / 2)) + "px";
    }
    this.draw();
  }

  // Show the neighbours of a point, or with -1 none.
  pick(i) {
    this.chosen = i;
    const { picked, data } = this;
    picked.replaceChildren();
    if (i < 0) html(picked, "p", "", "Pick a point to see its neighbours.");
    else {
      this.describe(html(picked, "div", "own"), i, 64);
      html(picked, "p", "", "Its nearest neighbours:");
      const list = html(picked, "ol");
      for (const j of data.neighbours[i]) {
        const button = html(html(list, "li"), "button");
        button.type = "button";
        this.small(button, j, 40);
        html(button, "span", this.sprite ? "aside-name" : "", data.order.length ? this.className(data.labels[j]) : data.names[j]);
        button.title = data.names[j];
        button.addEventListener("click", () => this.pick(j));
        button.addEventListener("pointerenter", () => this.point(j));
        button.addEventListener("pointerleave", () => this.point(-1));
      }
    }
    this.draw();
  }

  // Zoom keeps the place (x, y) of the canvas where it is.
  zoom(factor, x = this.width / 2, y = this.middle) {
    const { view } = this;
    const to = Math.min(40, Math.max(1, view.zoom * factor));
    const ratio = to / view.zoom;
    view.x = (x - this.width / 2) * (1 - ratio) + view.x * ratio;
    view.y = (y - this.middle) * (1 - ratio) + view.y * ratio;
    view.zoom = to;
    this.move(0, 0);
  }

  // Never so far that the map leaves its window. One finger scrolls the page until there is something to move.
  move(dx, dy) {
    const { view } = this;
    const limit = (length, span) => Math.max(0, (this.scale * span) / 2 + 24 - length / 2 + (view.zoom > 1 ? length / 3 : 0));
    const within = (value, most) => Math.min(most, Math.max(-most, value));
    view.x = within(view.x + dx, limit(this.width, this.spans[0]));
    view.y = within(view.y + dy, limit(this.height, this.spans[1]));
    this.canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    this.point(-1);
    this.draw();
  }

  all() {
    this.view = { zoom: 1, x: 0, y: 0 };
    this.move(0, 0);
  }

  // To the nearest point in a direction, those straight ahead first; it is brought into view.
  walk(dx, dy) {
    const start = this.at < 0;
    const from = !start ? this.at : this.chosen >= 0 ? this.chosen : this.pointAt(this.width / 2, this.middle, Infinity);
    const [fx, fy] = this.place(from);
    let best = start ? from : -1;
    let cost = Infinity;
    for (const i of start ? [] : this.data.x.keys()) {
      const [x, y] = this.place(i);
      const ahead = (x - fx) * dx + (y - fy) * dy;
      const price = ahead + 2.5 * Math.abs((x - fx) * dy + (y - fy) * dx);
      if (i !== from && ahead > 0.5 && price < cost) [best, cost] = [i, price];
    }
    if (best < 0) return;
    const [x, y] = this.place(best);
    const out = (value, length) => (value < 30 ? 30 - value : value > length - 30 ? length - 30 - value : 0);
    const [ox, oy] = [out(x, this.width), out(y, this.height)];
    if (ox || oy) this.move(ox, oy);
    this.point(best);
  }
}
