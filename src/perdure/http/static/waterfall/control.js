// What people do with the waterfall: rows by key and pointer, buttons, the time axis.
import { atPixel, axis, fit, look, x, zoom } from "./axis.js";
import { bars, endOf, place } from "./columns.js";
import { last, paint, pool, press, show } from "./rows.js";
import { box, drag, elements, part, rowHeight, state } from "./shared.js";

const { grid, map, tools } = elements, { on } = state;

// --- choosing a row -------------------------------------------------------------------------------

const focus = (index) => {
  if (!state.rows.length) return;
  state.focused = Math.min(Math.max(index, 0), state.rows.length - 1);
  const high = rowHeight(), top = elements.rows.getBoundingClientRect().top + state.focused * high;
  const head = 48 + 34; // the head of the page and of the grid stay in sight
  if (top < head) scrollBy(0, top - head);
  else if (top + high > innerHeight - 8) scrollBy(0, top + high - innerHeight + 8);
  paint(true);
  pool.find((made) => made.index === state.focused)?.row.focus({ preventScroll: true });
};
const indexOf = (seq) => state.rows.findIndex((one) => one.bar !== undefined && bars.seq[one.bar] === seq);
const unfold = (group, open) => {
  if (open === state.opened.has(group)) return;
  if (open) state.opened.add(group);
  else state.opened.delete(group);
  show();
};
export const reveal = (seq) => { // a row inside a folded one is opened
  const bar = place.get(seq), group = state.rows.find((one) => one.bars?.includes(bar));
  if (group) unfold(group.group, true);
  return indexOf(seq);
};
const use = (index) => {
  const shown = state.rows[index];
  state.focused = index;
  if (!shown) return;
  if (shown.bars) unfold(shown.group, !state.opened.has(shown.group));
  else if (shown.wait) location.href = box.dataset.inbox;
  else perdure.run.open(bars.seq[shown.bar]);
};
export const move = (by) => {
  let index = state.selected === null ? state.focused - (by > 0 ? 1 : 0) : indexOf(state.selected);
  do index += by;
  while (state.rows[index] && state.rows[index].bar === undefined);
  if (!state.rows[index]) return;
  focus(index);
  perdure.run.open(bars.seq[state.rows[index].bar]);
};

elements.rows.tabIndex = -1;
elements.rows.addEventListener("click", (event) => {
  if (event.target.closest("a")) return;
  const row = event.target.closest(".wf-row");
  if (row && !getSelection().toString()) use(row.wf.index);
});
grid.addEventListener("focusin", (event) => {
  const index = event.target.closest(".wf-row")?.wf.index ?? -1;
  if (index < 0 || index === state.focused) return;
  state.focused = index;
  for (const made of pool) made.row.tabIndex = made.index === index ? 0 : -1;
});

const leave = () => { // from a row to the folded one that it is in
  const shown = state.rows[state.focused];
  if (shown?.bars) unfold(shown.group, false);
  else if (shown?.level === 2) focus(state.rows.findIndex((one) => one.bars && one.group === shown.group));
};
const enter = () => {
  const shown = state.rows[state.focused];
  if (shown?.bars) unfold(shown.group, true);
};
const KEYS = {
  ArrowDown: () => focus(state.focused + 1), ArrowUp: () => focus(state.focused - 1),
  Home: () => focus(0), End: () => focus(state.rows.length - 1),
  PageDown: () => focus(state.focused + 15), PageUp: () => focus(state.focused - 15),
  Enter: () => use(state.focused), " ": () => use(state.focused), ArrowRight: enter, ArrowLeft: leave,
};
grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const done = KEYS[event.key];
  if (!done || event.target.closest("a")) return;
  event.preventDefault();
  event.stopPropagation();
  done();
});

// --- buttons and keys -----------------------------------------------------------------------------

const toggle = (name) => () => {
  press(name, !on[name]);
  state.focused = -1; // from the first row again
  if (name === "idle") axis.fitted = true;
  show();
};
// Around the bar that is chosen, where that is in sight.
const centre = () => {
  const bar = place.get(state.selected);
  const at = bar === undefined ? 0.5 : x((bars.start[bar] + endOf(bar)) / 2) / axis.width;
  return at > 0 && at < 1 ? at : 0.5;
};
const doing = {
  last, fit, errors: toggle("errors"), slow: toggle("slow"), idle: toggle("idle"), fold: toggle("fold"), name: toggle("name"),
  in: () => zoom(0.5, centre()), out: () => zoom(2, centre()),
};
tools.addEventListener("click", (event) => doing[event.target.closest("[data-do]")?.dataset.do]?.());
for (const [key, title, act] of [
  ["+", "Zoom in", doing.in], ["-", "Zoom out", doing.out], ["f", "Fit all of it", fit],
  ["i", "Skip idle time, or show it", doing.idle], ["e", "Only errors, or all", doing.errors],
  ["n", "The newest row", last], ["s", "The slowest first, or in order", doing.slow],
  ["o", "Fold equal steps, or not", doing.fold], ["b", "By name, or in order", doing.name],
  ["[", "Earlier step", () => move(-1)], ["]", "Later step", () => move(1)],
  ["j", "Next row", () => focus(state.focused + 1)], ["k", "Row before", () => focus(state.focused - 1)],
]) perdure.key(key, title, act);

// --- the pointer on the axis ----------------------------------------------------------------------

const mapTo = (_, at) => {
  const wide = axis.view[1] - axis.view[0];
  look((at / map.clientWidth) * axis.length - wide / 2, wide);
};
drag(map, mapTo, mapTo);
const brush = part("wf-brush", 0, 0);
brush.hidden = true;
elements.axis.append(brush);
drag(elements.axis, (from, to) => {
  brush.hidden = false;
  brush.style.transform = `translateX(${Math.min(from, to)}px)`;
  brush.style.width = `${Math.abs(to - from)}px`;
}, (from, to) => {
  brush.hidden = true;
  if (Math.abs(to - from) >= 4) look(atPixel(Math.min(from, to)), atPixel(Math.max(from, to)) - atPixel(Math.min(from, to)));
});
elements.axis.addEventListener("dblclick", fit);
grid.addEventListener("wheel", (event) => {
  const span = axis.view[1] - axis.view[0];
  if (event.ctrlKey) {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - elements.axis.getBoundingClientRect().left) / axis.width);
  } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && !axis.fitted) {
    event.preventDefault();
    look(axis.view[0] + (event.deltaX / axis.width) * span, span);
  }
}, { passive: false });
