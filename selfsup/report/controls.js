// How a person moves the map: keys, pointer, touch, buttons and the legend.

function connectKeys(map) {
  const keys = {
    ArrowLeft: () => map.walk(-1, 0),
    ArrowRight: () => map.walk(1, 0),
    ArrowUp: () => map.walk(0, -1),
    ArrowDown: () => map.walk(0, 1),
    "+": () => map.zoom(1.5),
    "=": () => map.zoom(1.5),
    "-": () => map.zoom(1 / 1.5),
    0: () => map.all(),
    Enter: () => map.pick(map.at),
    " ": () => map.pick(map.at),
    Escape: () => (map.point(-1), map.pick(-1)),
  };
  map.canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
}

function connectPointers(map) {
  const { canvas } = map;
  const fingers = new Map(); // pointers that are down -> their places
  let travelled = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1) travelled = 0;
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") map.point(map.pointAt(...now, 14));
      return;
    }
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    travelled += Math.hypot(dx, dy);
    fingers.set(event.pointerId, now);
    if (other) {
      const spread = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      map.zoom(spread(now) / spread(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      map.move(dx / 2, dy / 2);
    } else if (travelled > 5) map.move(dx, dy);
  });

  canvas.addEventListener("pointerup", (event) => {
    if (!fingers.delete(event.pointerId) || travelled > 5) return;
    const touch = event.pointerType === "touch";
    const i = map.pointAt(...place(event), touch ? 26 : 14);
    if (touch) map.point(i);
    map.pick(i);
  });

  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", (event) => {
    // A finger that is lifted has left too, but what it tapped stays named.
    if (event.pointerType !== "touch" && fingers.size === 0) map.point(-1);
  });

  const wheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the bare wheel belongs to the page
    event.preventDefault();
    map.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.004)), ...place(event));
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
}

function connectButtons(map) {
  const actions = { in: () => map.zoom(1.6), out: () => map.zoom(1 / 1.6), all: () => map.all() };
  for (const button of map.root.querySelectorAll(".tools button")) {
    if (button.dataset.do in actions) button.addEventListener("click", actions[button.dataset.do]);
    else if (map.sprite) {
      button.hidden = false;
      button.addEventListener("click", () => {
        map.pictures = !map.pictures;
        button.setAttribute("aria-pressed", map.pictures);
        map.draw();
      });
    }
  }
}

function drawLegend(map) {
  const { data } = map;
  const legend = map.root.querySelector(".legend");
  const unknown = data.labels.filter((label) => label < 0).length;
  const entries = data.order.map((label) => [label, ...data.classes[label]]);
  if (entries.length && unknown) entries.push([-1, "class unknown", unknown]);
  if (data.order.length > data.coloured.length) {
    html(legend, "p", "", `${grouped.format(data.order.length)} classes, the ${data.coloured.length} largest in colour. Pick any to see it alone.`);
  }
  const buttons = entries.map(([label, name, items]) => {
    const button = html(legend, "button");
    const at = data.coloured.indexOf(label);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    html(button, "i", at < 0 ? "" : "c" + at);
    html(button, "span", "", name);
    html(button, "small", "", grouped.format(items));
    button.addEventListener("click", () => {
      map.label = map.label === label ? null : label;
      for (const each of buttons) each.setAttribute("aria-pressed", each === button && map.label !== null);
      map.draw();
    });
    return button;
  });
}

function drawMap(root, data) {
  const map = new AtlasMap(root, data);
  connectKeys(map);
  connectPointers(map);
  connectButtons(map);
  drawLegend(map);
}
