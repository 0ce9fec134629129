"use strict";
// Brings the charts, the slider and the words of each optimizer together, and the colours of the page.
(() => {
  const { KINDS, options, text, lasting, shade, most } = charts;
  const all = JSON.parse(document.getElementById("numbers").textContent);

  // The charts of one optimizer, kept at one stretch of steps and one cursor.
  const sections = all.map((data, place) => {
    const at = document.getElementById(`optimizer-${place}`);
    const controls = at.querySelector(".controls"), slider = controls.querySelector("input");
    const output = controls.querySelector("output"), buttons = controls.querySelectorAll("button");
    const ends = [data.steps[0] - 0.5, data.steps[data.steps.length - 1] + 0.5];
    const drawn = [];
    data.heat.ends = most(data.heat.cells.flat());
    const words = at.querySelectorAll(".ramp span");
    if (words.length) {
      words[0].textContent = `${text(10 ** data.heat.ends.low, 2)} or less`;
      words[1].textContent = `${text(10 ** data.heat.ends.high, 2)} or more`;
    }
    let busy = false, chosen = -1;

    const together = (change) => {
      if (busy) return;
      busy = true;
      change();
      busy = false;
    };
    const zoom = (from, to, index = chosen) => together(() => {
      const room = Math.max(to - from, 2), low = Math.max(Math.min(from, ends[1] - room), ends[0]);
      const window = { min: low, max: Math.min(low + room, ends[1]) };
      drawn.forEach((chart) => chart.setScale("x", window));
      choose(index);
    });
    const choose = (index) => {
      if (index === null || index === undefined || index < 0) return;
      chosen = index;
      slider.value = index;
      slider.setAttribute("aria-valuetext", `step ${data.steps[index]}`);
      output.replaceChildren(...told(data, index));
      drawn.forEach((chart) => chart.setCursor({ left: chart.valToPos(data.steps[index], "x"), top: 0 }, false));
    };
    const draw = () => {
      const { min, max } = drawn.length ? drawn[0].scales.x : { min: ends[0], max: ends[1] };
      drawn.splice(0).forEach((chart) => chart.destroy());
      at.querySelectorAll("[data-chart]").forEach((box) => {
        const parts = KINDS[box.dataset.chart](data);
        drawn.push(new uPlot(options(box, parts, data, {
          zoomed: (chart) => zoom(chart.scales.x.min, chart.scales.x.max),
          moved: (chart) => together(() => choose(chart.cursor.idx)),
        }), [data.steps, ...parts.curves], box));
      });
      zoom(min, max);
      together(() => choose(chosen < 0 ? data.steps.length - 1 : chosen));
    };

    slider.max = data.steps.length - 1;
    slider.addEventListener("input", () => together(() => choose(+slider.value)));
    buttons.forEach((button) => button.addEventListener("click", () => {
      const { min, max } = drawn[0].scales.x, step = data.steps[chosen];
      const room = (max - min) * { in: 0.25, out: 1, whole: Infinity }[button.dataset.zoom];
      return room === Infinity ? zoom(...ends) : zoom(step - room, step + room);
    }));
    return { at, draw, zoom, data, ends, redraw: () => drawn.forEach((chart) => chart.redraw()) };
  });

  // What is known of a step, as two lines.
  function told(data, index) {
    const step = data.steps[index], { begins, lines, cells } = data.heat;
    const marks = Object.keys(data.marks).filter((kind) => data.marks[kind].some(([a, b]) => a <= step && step <= b));
    const limit = data.limit[index] === null ? "no limit" : `limit ${text(data.limit[index])}`;
    const when = data.seconds[index] === null ? "" : ` (${lasting(data.seconds[index])})`;
    const whole = `Step ${step}${when}: norm ${text(data.before[index])} before, ${text(data.after[index])} after, ` +
      `${limit}, ratio ${text(data.ratio[index])}${marks.map((kind) => `, ${kind} here`).join("")}`;
    const share = Math.max(begins.findLastIndex((begin) => begin <= step), 0);
    const of = (value) => (value === null ? "no gradient" : value < 0 ? "not finite" : text(value));
    const shown = lines.slice(0, 6).map((line, i) => `${line}: ${of(cells[i][share])}`);
    const more = lines.length > 6 ? `, and ${lines.length - 6} lines more` : "";
    const last = share + 1 < begins.length ? begins[share + 1] - 1 : step;
    const within = last > begins[share] ? `Furthest from usual in steps ${begins[share]} to ${last}: ` : "";
    const small = document.createElement("span");
    small.className = "muted";
    small.textContent = within + shown.join(", ") + more;
    return [whole, small];
  }

  document.querySelectorAll(".needs-script").forEach((part) => (part.hidden = false));
  document.querySelectorAll(".ramp canvas").forEach((ramp) => {
    const ctx = ramp.getContext("2d");
    for (let x = 0; x < ramp.width; x += 1) (ctx.fillStyle = shade(x / ramp.width)), ctx.fillRect(x, 0, 1, ramp.height);
  });
  document.querySelectorAll("[data-incident]").forEach((button) => button.addEventListener("click", () => {
    const { at, zoom, data, ends } = sections[button.dataset.optimizer];
    const { from, to } = data.incidents.find(({ number }) => number === +button.dataset.incident);
    const until = to === null ? ends[1] : to, room = Math.max((until - from) / 4, 5);
    zoom(from - room, until + room, data.steps.findIndex((step) => step >= from));
    at.scrollIntoView();
    at.querySelector("input").focus({ preventScroll: true });
  }));

  const theme = document.getElementById("theme"), redraw = () => sections.forEach((section) => section.redraw());
  theme.addEventListener("change", () => {
    document.documentElement.style.colorScheme = theme.value;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    // A phone's own bars change the height alone.
    if (width !== (width = innerWidth)) sections.forEach((section) => section.draw());
  });
  sections.forEach((section) => section.draw());
  document.documentElement.dataset.drawn = sections.length;
})();
