// The time axis: idle stretches are narrow, the view is a part of what is left.
import { bars, endOf, now, whole } from "./columns.js";
import { box, elements, part, short, state, svg, took } from "./shared.js";

const EDGE = 6, IDLE_OVER = 20, IDLE_MS_MIN = 1000, GAP_PX = 38;
const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3,
  1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];

export const axis = { segments: [], length: 1, view: [0, 1], fitted: true, width: 1 };

// --- idle stretches -------------------------------------------------------------------------------

// When something was at work: bars without timers, and the attempts of those that waited.
const spansOf = () => {
  const { run } = state, spans = [];
  bars.seq.forEach((seq, bar) => {
    const start = bars.start[bar], ended = bars.took[bar] !== null, tries = bars.tries.get(seq);
    if (bars.kind[bar] === "timer") return;
    if (tries) {
      spans.push([start, start], ...tries.map(([at, ms]) => [at, at + ms]));
      const end = endOf(bar);
      if (ended) spans.push([end - (bars.work.get(bar) ?? bars.took[bar]), end]);
      else if (!(seq in run.again) && !run.ended_ms) spans.push([tries.at(-1)[0] + tries.at(-1)[1], end]);
    } else spans.push([start, !ended && (bars.kind[bar] === "child" || run.status !== "running") ? start : endOf(bar)]);
  });
  return spans.sort((a, b) => a[0] - b[0]);
};

const gaps = (until) => {
  const spans = spansOf();
  const lengths = Float64Array.from(spans, ([start, end]) => end - start).filter((ms) => ms > 0).sort();
  const median = lengths.length ? (lengths[(lengths.length - 1) >> 1] + lengths[lengths.length >> 1]) / 2 : 0;
  const least = Math.max(IDLE_OVER * median, IDLE_MS_MIN), found = [];
  let done = 0;
  for (const [start, end] of whole() ? [...spans, [until, until]] : spans) {
    if (start - done >= least) found.push([done, start]);
    done = Math.max(done, end);
  }
  return found;
};

export const measure = () => {
  axis.width = Math.max(elements.axis.clientWidth, 1);
  const { width } = axis, until = Math.max(now(), 1);
  const idle = state.on.idle && bars.seq.length ? gaps(until) : [];
  const active = until - idle.reduce((sum, [start, end]) => sum + end - start, 0) || 1;
  const px = Math.min(GAP_PX, (width * 0.6) / Math.max(idle.length, 1));
  const gap = (px * active) / Math.max(width - px * idle.length, width * 0.2);
  const segments = (axis.segments = []);
  let t = 0, c = 0;
  for (const [start, end] of idle) {
    if (start > t) segments.push({ t0: t, t1: start, c0: c, c1: (c += start - t) });
    segments.push({ t0: start, t1: end, c0: c, c1: (c += gap), gap: true });
    t = end;
  }
  if (until > t || !segments.length) segments.push({ t0: t, t1: until, c0: c, c1: (c += Math.max(until - t, 0.001)) });
  axis.length = c;
  if (axis.fitted) axis.view = [0, c];
};

// --- places ---------------------------------------------------------------------------------------

export const compress = (t) => {
  let low = 0, high = axis.segments.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (axis.segments[middle].t1 < t) low = middle + 1;
    else high = middle;
  }
  const { t0, t1, c0, c1 } = axis.segments[low];
  return t1 === t0 ? c0 : c0 + ((t - t0) / (t1 - t0)) * (c1 - c0);
};
const scale = () => (axis.view[1] - axis.view[0]) / (axis.width - 2 * EDGE);
export const x = (t) => EDGE + (compress(t) - axis.view[0]) / scale();
export const atPixel = (px) => axis.view[0] + (px - EDGE) * scale();

export const look = (from, span) => {
  const start = Math.min(Math.max(from, 0), Math.max(axis.length - span, 0));
  axis.view = [start, start + span];
  axis.fitted = span >= axis.length * 0.999;
  state.paint(true);
};
export const zoom = (factor, at) => {
  const [from, to] = axis.view;
  const span = Math.min(Math.max((to - from) * factor, axis.length / 5000, 0.5), axis.length);
  look(from + (to - from) * at - span * at, span);
};
export const fit = () => {
  axis.fitted = true;
  measure();
  state.paint(true);
};

// --- drawing it -----------------------------------------------------------------------------------

const back = document.createElement("div"); // bands and lines behind the rows
back.className = "wf-back";
back.setAttribute("aria-hidden", "true");
elements.rows.before(back);
export const setHeight = (px) => (back.style.height = `${px}px`);

// Texts that do not overlap.
const labels = () => {
  const texts = [], used = []; // from where to where there is a text
  const put = (at, text, kind, anchor) => {
    const room = text.length * 6.6, left = anchor === "middle" ? at - room / 2 : at + 4;
    if (left + room > axis.width + 2 || used.some(([from, to]) => left < to + 6 && left + room > from - 6)) return false;
    texts.push(svg("text", { x: at + (anchor === "start" ? 4 : 0), y: 17, class: kind, "text-anchor": anchor }, text));
    used.push([left, left + room]);
    return true;
  };
  return { texts, put };
};

const bandsOf = (put) => {
  const bands = [];
  for (const one of axis.segments) {
    const from = x(one.t0), to = x(one.t1), text = took(one.t1 - one.t0);
    if (!one.gap || to < 0 || from > axis.width) continue;
    bands.push(part("wf-gap", from, to - from, `${text} in which nothing was at work`));
    if (to - from > 24 && bands.length < 80) put((from + to) / 2, text.split(" ").slice(0, 2).join(" "), "gap", "middle");
  }
  return bands;
};

const linesOf = (put) => {
  const lines = [], { view, width } = axis;
  const step = NICE.find((ms) => (ms / (view[1] - view[0])) * width >= 84) ?? NICE.at(-1);
  axis.segments.forEach((one, index) => {
    if (one.gap || x(one.t1) < 0 || x(one.t0) > width) return;
    const origin = index ? one.t0 : 0, plus = origin ? "+" : "";
    const seen = one.c0 < view[0] ? one.t0 + (view[0] - one.c0) : one.t0;
    for (let t = origin + Math.ceil((seen - origin) / step) * step; t <= one.t1 && x(t) <= width; t += step) {
      if (origin && t === origin) continue;
      const at = x(t);
      if (at >= -1 && put(at, plus + short(t - origin), "tick", "start")) lines.push(part("wf-line", at, 1));
    }
  });
  return lines;
};

const crashes = () => bars.marks.filter(([, at, kind]) => kind === "crash" && x(at) >= 0 && x(at) <= axis.width).slice(0, 50)
  .map(([, at]) => part("wf-crash", x(at), 2, "the process died here"));

export const drawAxis = () => {
  const { texts, put } = labels(), bands = bandsOf(put), lines = linesOf(put);
  elements.ticks.replaceChildren(...texts);
  back.replaceChildren(...bands, ...lines, ...crashes());
};

// --- the small map --------------------------------------------------------------------------------

const probe = document.createElement("i"); // knows what a colour is in this theme
probe.hidden = true;
box.append(probe);
const colour = (name) => {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
};

export const drawMap = () => {
  const { map } = elements;
  if (map.hidden) return;
  const wide = map.clientWidth, high = 28, dense = devicePixelRatio || 1;
  map.width = wide * dense;
  map.height = high * dense;
  const pen = map.getContext("2d"), to = (c) => (c / axis.length) * wide;
  pen.scale(dense, dense);
  drawBars(pen, to, high - 6);
  if (axis.fitted) return;
  const [from, until] = axis.view.map(to);
  pen.fillStyle = colour("--wf-shade");
  pen.fillRect(0, 0, from, high);
  pen.fillRect(until, 0, wide - until, high);
  pen.strokeStyle = colour("--accent");
  pen.strokeRect(from + 0.5, 0.5, Math.max(until - from - 1, 2), high - 1);
};

// Bars that would cover the same spot are drawn once: there are more of them than pixels.
const drawBars = (pen, to, lanes) => {
  const colours = { ok: colour("--wf-map"), failed: colour("--bad"), open: colour("--run") }, seen = new Set();
  const high = Math.max(lanes / bars.seq.length, 1.2);
  for (let bar = 0; bar < bars.seq.length; bar += 1) {
    const from = to(compress(bars.start[bar])), wide = Math.max(to(compress(endOf(bar))) - from, 1);
    const kind = bars.status[bar] === "failed" || bars.tries.has(bars.seq[bar]) ? "failed" : bars.status[bar] === "open" ? "open" : "ok";
    const top = 3 + (bar / bars.seq.length) * lanes;
    const spot = `${kind}${(from * 2) | 0} ${(top * 2) | 0} ${(wide * 2) | 0}`;
    if (seen.has(spot)) continue;
    seen.add(spot);
    pen.fillStyle = colours[kind];
    pen.fillRect(from, top, wide, high);
  }
};
