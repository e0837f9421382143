// The waterfall of a run: columns of numbers become rows, a pool of elements shows those in sight.
// Rows are derived from the columns when something changes, never kept beside them.
import { axis, measure } from "./axis.js";
import { bars, BY_NAME_OVER, forget, place, take } from "./columns.js";
import { move, reveal } from "./control.js";
import { atEnd, last, later, paint, press, show } from "./rows.js";
import { box, elements, narrow, rowHeight, state } from "./shared.js";

const LIVE_MS = 1000, ROWS_MAX = 400000;

// --- loading --------------------------------------------------------------------------------------

let asking = false, again = false;
const grow = async () => {
  if (asking) return void (again = true);
  asking = true;
  try {
    const page = await next();
    if (state.run && (page.begun_ms !== state.run.begun_ms || (state.run.ended_ms && !page.ended_ms))) {
      forget(); // it was tried again: its rows are others
      state.run = null;
      again = true;
    } else add(page);
  } catch (error) {
    elements.summary.textContent = `The steps could not be loaded. ${error.message}`;
    if (perdure.live.passes(error.status ?? 500)) perdure.live.missed(box);
  }
  asking = false;
  if (!again) return;
  again = false;
  setTimeout(grow);
};

const next = async () => {
  // A page that asks again says so: what that costs is counted. The first answer is on its way.
  const response = await (bars.last
    ? fetch(`${box.dataset.columns}?after=${bars.last}`, { headers: { "hx-request": "true" } })
    : fetch(box.dataset.columns));
  if (!response.ok) throw Object.assign(new Error(`The server answered ${response.status}.`), { status: response.status });
  return response.json();
};

const add = (page) => {
  const follows = bars.last && !state.run.ended_ms && scrollY > 0 && atEnd();
  const before = bars.last, few = bars.seq.length <= BY_NAME_OVER;
  take(page);
  if (few && bars.seq.length > BY_NAME_OVER) press("name", true);
  again ||= before < bars.last && bars.last < Math.min(page.rows, ROWS_MAX);
  show();
  if (follows) last();
  if (bars.last) performance.mark("perdure-drawn");
  if (place.has(sought)) find(sought);
};

let sought = state.selected; // the step of the address, until it has come
const find = (seq) => {
  sought = null;
  const index = reveal(seq);
  if (index > 20) scrollTo(0, elements.rows.getBoundingClientRect().top + scrollY + index * rowHeight() - innerHeight / 2);
  if (index >= 0) state.focused = index;
  paint(true);
};

// --- life -----------------------------------------------------------------------------------------

perdure.waterfall = {
  move,
  select: (seq) => {
    state.selected = seq;
    box.dataset.step = seq ?? "";
    if (!state.run) return;
    if (seq !== null) reveal(seq);
    paint(true);
  },
};
const resized = () => state.run && later(true);
addEventListener("scroll", () => later(false), { passive: true });
addEventListener("resize", resized);
new ResizeObserver(() => elements.axis.clientWidth !== axis.width && resized()).observe(elements.axis);
box.addEventListener("changed", grow);
narrow.addEventListener("change", () => state.run && show());
setInterval(() => {
  if (document.hidden || !state.run || state.run.ended_ms) return;
  if (!bars.took.includes(null) && !state.run.waits.length) return;
  measure();
  paint(true);
}, LIVE_MS);
grow();
