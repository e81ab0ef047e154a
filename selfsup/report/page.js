// Starts what the page's data calls for. The data are inert JSON in this file; nothing is fetched.

const data = JSON.parse(document.getElementById("data").textContent);

const cursor = {
  step: null,
  listeners: [],
  set(step) {
    if (step === this.step) return;
    this.step = step;
    for (const listener of this.listeners) listener(step);
  },
};

if (data.curves.length) {
  const steps = data.curves.flatMap((curve) => curve.x);
  const range = [Math.min(...steps), Math.max(...steps)];
  for (const figure of document.querySelectorAll("[data-curve]")) {
    drawCurve(figure, data.curves[figure.dataset.curve], data.best, range, cursor);
  }
}
const few = document.getElementById("few");
if (few) drawFewLabel(few, document.getElementById("key"), data.few);
const atlas = document.getElementById("atlas");
if (atlas) drawMap(atlas, data.map);
