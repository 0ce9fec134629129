"use strict";
// What each kind of chart draws, and how: norms, clip ratio, heat map, incidents.
const charts = (() => {
  const probe = document.head.appendChild(document.createElement("i"));
  const colour = (name) => ((probe.style.color = `var(--${name})`), getComputedStyle(probe).color);
  const text = (value, digits = 4) => {
    if (value === null) return "not finite or none";
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(digits - 2) : String(+value.toPrecision(digits));
  };
  const lasting = (seconds) => {
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
    if (hours) return `${hours} h ${minutes % 60} min`;
    return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${+seconds.toPrecision(3)} s`;
  };
  const narrow = () => innerWidth < 640;
  const gutter = () => (narrow() ? 44 : 150);

  // From dark to light, as cividis: told apart by everybody, and its order by lightness alone.
  const RAMP = [[0, 32, 77], [64, 77, 107], [124, 123, 120], [186, 174, 108], [255, 234, 70]];
  const shade = (part) => {
    const at = Math.min(Math.max(part, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
    const mixed = RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * (at - low)));
    return `rgb(${mixed})`;
  };
  const decades = (values) => {
    const there = values.filter((value) => value > 0);
    if (!there.length) return [-1, 1];
    let low = Infinity, high = -Infinity;
    for (const value of there) (low = Math.min(low, value)), (high = Math.max(high, value));
    low = Math.floor(Math.log10(low) + 1e-9);
    return [low, Math.max(Math.ceil(Math.log10(high) - 1e-9), low + 1)];
  };
  // What most cells lie between: a single spike shall not make all others look alike.
  const most = (values) => {
    const logs = values.filter((value) => value > 0).map(Math.log10).sort((a, b) => a - b);
    if (!logs.length) return { low: 0, high: 1 };
    const at = (share) => logs[Math.round((logs.length - 1) * share)], middle = (at(0.02) + at(0.98)) / 2;
    const half = Math.max((at(0.98) - at(0.02)) / 2, 0.5);
    return { low: middle - half, high: middle + half };
  };
  const snapped = (x) => Math.round(x * devicePixelRatio) / devicePixelRatio;
  const power = (value) => {
    const exponent = Math.round(Math.log10(value));
    return exponent >= -2 && exponent <= 4 ? String(+value.toPrecision(1)) : `1e${exponent}`;
  };

  function options(box, parts, data, { zoomed, moved }) {
    const axis = { stroke: () => colour("muted"), font: "12px system-ui", ticks: { show: false },
      grid: { stroke: () => colour("grid"), width: 1 } };
    const lanes = !parts.scale;
    return {
      width: box.clientWidth || 320, height: parts.height, legend: { show: false }, padding: [10, 26, 0, 0],
      cursor: { y: false, drag: { x: true, y: false, setScale: true }, points: { show: !lanes, size: 8 } },
      scales: { x: { time: false }, y: lanes ? { range: [0, 1] } : parts.scale },
      axes: [
        { ...axis, size: 30, space: 70, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6] },
        { ...axis, size: gutter(), ...(lanes ? { splits: () => [], grid: { show: false } } : parts.axis) },
      ],
      series: [{}, ...parts.series],
      hooks: {
        setScale: [(chart, key) => key === "x" && zoomed(chart)],
        setCursor: [(chart) => chart.cursor.idx !== null && chart.cursor.left >= 0 && moved(chart)],
        drawAxes: parts.behind ? [(chart) => painted(chart, parts.behind)] : [],
        draw: [(chart) => painted(chart, parts.before)],
      },
    };
  }

  // Paints within the frame of a chart, in CSS pixels from its upper left corner.
  function painted(chart, paint) {
    const { ctx, bbox } = chart, ratio = devicePixelRatio;
    ctx.save();
    ctx.translate(bbox.left, bbox.top);
    ctx.scale(ratio, ratio);
    const frame = { width: bbox.width / ratio, height: bbox.height / ratio, x: (step) => chart.valToPos(step, "x") };
    ctx.font = "12px system-ui";
    ctx.textBaseline = "middle";
    paint(ctx, frame);
    ctx.restore();
  }
  function clipped(ctx, frame, paint) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, -12, frame.width, frame.height + 14);
    ctx.clip();
    paint();
    ctx.restore();
  }

  // Steps that no line can show: a sign at the first and the last of each stretch, and a bar between.
  const SIGNS = { "not finite": ["▲", "critical", 6], skipped: ["✕", "muted", 20], zero: ["○", "warning", -8] };
  function marked(data, ctx, frame) {
    clipped(ctx, frame, () => Object.entries(data.marks).forEach(([kind, stretches]) => {
      const [sign, name, top] = SIGNS[kind], y = top < 0 ? frame.height + top : top;
      ctx.fillStyle = ctx.strokeStyle = colour(name);
      ctx.textAlign = "center";
      ctx.font = "bold 13px system-ui";
      stretches.forEach(([first, last]) => {
        const from = frame.x(first), to = frame.x(last);
        ctx.fillRect(from, y - 1, to - from, 2);
        ctx.fillText(sign, from, y);
        if (to - from > 6) ctx.fillText(sign, to, y);
        if (kind !== "not finite") return;
        ctx.globalAlpha = 0.18;
        ctx.fillRect(from - 1, 0, to - from + 2, frame.height);
        ctx.globalAlpha = 1;
      });
    }));
  }
  // Behind norms and ratios: when something was wrong.
  function shaded(data, ctx, frame) {
    clipped(ctx, frame, () => data.incidents.forEach(({ severity, from, to }) => {
      const left = frame.x(from - 0.5), right = to === null ? frame.width : frame.x(to + 0.5);
      ctx.fillStyle = colour(`soft-${severity}`);
      ctx.fillRect(left, 0, right - left, frame.height);
      ctx.strokeStyle = colour(severity);
      ctx.setLineDash([3, 3]);
      ctx.beginPath();
      ctx.moveTo(left, 0);
      ctx.lineTo(left, frame.height);
      ctx.stroke();
    }));
  }

  const line = (name, width, dash) => ({ stroke: () => colour(name), width, dash, pxAlign: 0, points: { size: 4, fill: () => colour(name) } });
  const above = (values) => values.map((value) => (value > 0 ? value : null));

  const KINDS = {
    norms(data) {
      const [low, high] = decades([...data.before, ...data.after, ...data.limit]);
      const stride = Math.ceil((high - low) / 8), ticks = [];
      for (let exponent = low; exponent <= high; exponent += stride) ticks.push(10 ** exponent);
      return {
        height: narrow() ? 260 : 320, curves: [above(data.after), above(data.before), above(data.limit)],
        series: [line("after", 3.5), line("before", 1.5), { ...line("limit", 1.5, [7, 5]), points: { show: false } }],
        scale: { distr: 3, range: [10 ** low, 10 ** high] },
        // uPlot leaves out an axis that none of its own steps fits, as over 20 decades.
        axis: { incrs: [10 ** high], splits: () => ticks, values: (_, values) => values.map(power), filter: (_, values) => values },
        behind: (ctx, frame) => shaded(data, ctx, frame), before: (ctx, frame) => marked(data, ctx, frame),
      };
    },
    ratio(data) {
      const top = Math.max(1, ...data.ratio);
      return {
        height: 140, curves: [data.ratio], scale: { range: [0, top * 1.05] },
        series: [{ ...line("after", 1.5), fill: () => colour("soft-after") }],
        axis: { splits: () => (top > 2 ? [0, 1, top] : [0, 0.5, 1]), values: (_, values) => values.map((value) => text(value)) },
        behind: (ctx, frame) => shaded(data, ctx, frame), before: () => {},
      };
    },
    heat(data) {
      const { lines, begins, cells } = data.heat, { low, high } = data.heat.ends;
      const labelled = narrow() ? 16 : 0, row = (narrow() ? 14 : 20) + labelled;
      const stops = [...begins, data.steps[data.steps.length - 1] + 1];
      const part = (value) => (Math.log10(value) - low) / (high - low);
      return {
        height: lines.length * row + 44, curves: [data.steps.map(() => null)], series: [{}],
        before(ctx, frame) {
          lines.forEach((name, i) => {
            const top = i * row + labelled, tall = row - labelled - 2;
            // Signs are wider than a cell may be, and come last.
            clipped(ctx, frame, () => [false, true].forEach((signs) => cells[i].forEach((value, j) => {
              const left = snapped(frame.x(stops[j] - 0.5)), right = snapped(frame.x(stops[j + 1] - 0.5));
              if (signs !== value < 0 || right < 0 || left > frame.width) return;
              cell(ctx, value, left, top, Math.max(right - left, 1 / devicePixelRatio), tall, part);
            })));
            ctx.fillStyle = colour("ink");
            ctx.textAlign = labelled ? "left" : "right";
            ctx.font = "12px system-ui";
            const [x, y] = labelled ? [0, top - 8] : [-8, top + tall / 2];
            ctx.fillText(fitted(ctx, name, labelled ? frame.width : gutter() - 12), x, y);
          });
        },
      };
    },
    lanes(data) {
      const shown = data.incidents.slice(0, 12), row = 34;
      return {
        height: Math.max(shown.length, 1) * row + 44, curves: [data.steps.map(() => null)], series: [{}],
        before(ctx, frame) {
          ctx.textAlign = "left";
          ctx.fillStyle = colour("muted");
          if (!shown.length) ctx.fillText("no incident", 4, row / 2);
          clipped(ctx, frame, () => shown.forEach((incident, i) => lane(ctx, frame, incident, i * row)));
        },
      };
    },
  };

  // A cell that holds no norm to shade has a form of its own.
  function cell(ctx, value, left, top, width, tall, part) {
    if (value > 0) {
      ctx.fillStyle = shade(part(value));
      ctx.fillRect(left, top, width, tall);
    } else if (value === null) {
      ctx.fillStyle = colour("muted");
      ctx.fillRect(left, top + tall / 2 - 1, width, 2);
    } else if (value === 0) {
      ctx.fillStyle = colour("ink");
      ctx.fillRect(left, top + tall - 4, width, 4);
    } else {
      ctx.fillStyle = colour("critical");
      ctx.beginPath();
      ctx.moveTo(left + width / 2, top);
      ctx.lineTo(left + width / 2 + Math.max(width / 2, 4), top + tall);
      ctx.lineTo(left + width / 2 - Math.max(width / 2, 4), top + tall);
      ctx.fill();
    }
  }
  // Critical is a full bar, a warning an outlined one; an arrow leads on where it is not over.
  function lane(ctx, frame, { number, title, severity, from, to }, top) {
    const left = frame.x(from - 0.5), right = to === null ? frame.width : frame.x(to + 0.5);
    const width = Math.max(right - left, 4);
    ctx.fillStyle = ctx.strokeStyle = colour(severity);
    ctx.lineWidth = 2;
    if (severity === "critical") ctx.fillRect(left, top + 20, width, 9);
    else ctx.strokeRect(left + 1, top + 21, Math.max(width - 2, 2), 7);
    ctx.fillStyle = colour("ink");
    const label = `${number}. ${severity === "critical" ? "CRITICAL" : "warning"}: ${title}${to === null ? " →" : ""}`;
    const room = ctx.measureText(label).width;
    ctx.fillText(fitted(ctx, label, frame.width), Math.max(Math.min(left, frame.width - room), 0), top + 10);
  }
  // Of a name that is too long the middle is left out.
  function fitted(ctx, name, room) {
    if (ctx.measureText(name).width <= room) return name;
    let kept = name.length;
    const cut = () => `${name.slice(0, kept / 3)}…${name.slice(name.length - (kept - Math.floor(kept / 3)))}`;
    while (kept > 1 && ctx.measureText(cut()).width > room) kept -= 1;
    return cut();
  }

  return { KINDS, options, text, lasting, shade, most };
})();
