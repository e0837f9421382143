// The rows in sight: some sixty elements that are moved and written again while the page is scrolled.
// An element is written only when it shows something else than before.
import { axis, drawAxis, drawMap, measure, setHeight, x } from "./axis.js";
import { bars, derive, FOLD_FROM, placeOf, whole } from "./columns.js";
import { factsOf } from "./facts.js";
import { box, count, elements, hatch, many, narrow, rowHeight, span, state, svg, took } from "./shared.js";

const SPARE = 10;
export const pool = [];
box.append(hatch());

const makeRow = () => {
  const row = document.createElement("div");
  row.className = "wf-row";
  row.setAttribute("role", "row");
  row.tabIndex = -1;
  const name = span("wf-name", "rowheader"), lane = span("wf-lane", "gridcell"), time = span("wf-took", "gridcell");
  const icon = svg("svg", { class: "i", "aria-hidden": "true" }), use = svg("use", {});
  icon.append(use);
  const word = span("wf-word mono"), badge = span("wf-badge"), more = span("wf-label mono");
  const link = document.createElement("a");
  link.className = "wf-child mono";
  name.append(icon, word, badge, link, more);
  const drawn = svg("svg", { class: "wf-svg", "aria-hidden": "true" });
  const line = svg("path", { class: "line" }), work = svg("path", { class: "work" });
  const fault = svg("path", { class: "fault", fill: "url(#wf-hatch)" }), cross = svg("path", { class: "cross" });
  drawn.append(line, work, fault, cross);
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  lane.append(drawn, button);
  row.append(name, lane, time);
  const made = { row, use, word, badge, more, link, paths: { line, work, fault, cross }, button, time, index: -1 };
  row.wf = made;
  return made;
};

// --- writing a row --------------------------------------------------------------------------------

const set = (element, given) => {
  const text = perdure.visible(given);
  if (element.textContent !== text) element.textContent = text;
};

const drawRow = (made, index) => {
  const shown = state.rows[index], { row } = made, { selected } = state;
  const paths = { line: "", work: "", fault: "", cross: "" };
  const facts = factsOf(shown, paths);
  row.setAttribute("aria-rowindex", index + 2);
  row.setAttribute("aria-level", shown.level);
  row.style.transform = `translateY(${index * rowHeight()}px)`;
  row.tabIndex = index === state.focused ? 0 : -1;
  if (shown.group && shown.bars) row.setAttribute("aria-expanded", state.opened.has(shown.group));
  else row.removeAttribute("aria-expanded");
  row.setAttribute("aria-selected", selected !== null && shown.bar !== undefined && bars.seq[shown.bar] === selected);
  row.className = `wf-row l${shown.level} s-${facts.status} k-${facts.kind}`;
  for (const [name, d] of Object.entries(paths)) made.paths[name].setAttribute("d", d);
  drawWords(made, facts);
  drawButton(made.button, facts);
};

const drawWords = (made, facts) => {
  set(made.word, facts.name);
  set(made.badge, facts.badge ?? "");
  set(made.more, facts.label ?? "");
  made.more.title = perdure.visible(facts.label ?? "");
  set(made.link, facts.child ? `→ ${facts.child}` : "");
  if (facts.child) made.link.href = `${box.dataset.runs}/${encodeURIComponent(facts.child)}`;
  else made.link.removeAttribute("href");
  set(made.time, facts.took ?? "");
  const sprite = `${box.dataset.sprite}#k-${facts.icon}`;
  if (made.use.getAttribute("href") !== sprite) made.use.setAttribute("href", sprite);
};

const drawButton = (button, facts) => {
  const { width } = axis, from = Math.max(x(facts.from), 0), to = Math.min(x(facts.to), width);
  button.hidden = to < 0 || from > width;
  button.style.transform = `translateX(${Math.min(from, width - 8).toFixed(1)}px)`;
  button.style.width = `${Math.max(to - from, 8).toFixed(1)}px`;
  const words = [facts.said ?? facts.badge, facts.word, facts.took].filter(Boolean);
  const said = perdure.visible([`${facts.kind} ${facts.name}`, ...words].join(", "));
  if (button.getAttribute("aria-label") === said) return;
  button.setAttribute("aria-label", said);
  button.title = said;
};

// --- which rows are in sight ----------------------------------------------------------------------

let drawnHeight = -1;
const setSize = (height) => {
  if (drawnHeight === height) return;
  drawnHeight = height;
  elements.rows.style.height = `${height}px`;
  setHeight(height);
  elements.grid.setAttribute("aria-rowcount", state.rows.length + 1);
};

// Elements of rows that are out of sight show those that came into it.
const place = (first, last, all) => {
  const at = new Map(), free = [];
  for (const made of pool) {
    if (made.index < first || made.index >= last) free.push(made);
    else {
      if (all) drawRow(made, made.index);
      at.set(made.index, made.row);
    }
  }
  for (let index = last - 1; index >= first; index -= 1) {
    if (at.has(index)) continue;
    const made = free.pop();
    if (!made) break;
    if (made.row === document.activeElement) elements.rows.focus({ preventScroll: true });
    made.index = index;
    made.row.hidden = false;
    drawRow(made, index);
    elements.rows.insertBefore(made.row, at.get(index + 1) ?? null); // read aloud in their order
    at.set(index, made.row);
  }
  for (const made of free) {
    made.index = -1;
    made.row.hidden = true;
  }
};

export const paint = (all) => {
  const { rows, run } = state, high = rowHeight();
  if (!run || (elements.grid.hidden && !rows.length)) return;
  elements.grid.hidden = false;
  setSize(rows.length * high);
  if (elements.axis.clientWidth && elements.axis.clientWidth !== axis.width) {
    measure();
    all = true;
  }
  const first = Math.max(0, Math.floor(-elements.rows.getBoundingClientRect().top / high) - SPARE);
  const wanted = Math.min(rows.length, Math.ceil(innerHeight / high) + 2 * SPARE);
  while (pool.length < wanted) {
    const made = makeRow();
    pool.push(made);
    elements.rows.append(made.row);
  }
  if (all) drawAxis();
  place(first, Math.min(rows.length, first + pool.length), all);
  if (all) mapLater();
};
state.paint = paint;

// The map is decoration: it comes behind the rows, once for all that changes in a frame.
let mapping = false;
const mapLater = () => {
  if (mapping) return;
  mapping = true;
  requestAnimationFrame(() => setTimeout(() => {
    mapping = false;
    drawMap();
  }));
};

let waiting = null; // whether all is drawn in the next frame
export const later = (all) => {
  const asked = waiting !== null;
  waiting = Boolean(waiting) || all;
  if (asked) return;
  requestAnimationFrame(() => {
    const due = waiting;
    waiting = null;
    paint(due);
  });
};

// --- anew after a change --------------------------------------------------------------------------

export const show = () => {
  const held = state.rows[state.focused], row = document.activeElement?.closest(".wf-row");
  derive();
  state.focused = placeOf(held, state.focused);
  elements.grid.hidden = !state.rows.length; // what is hidden has no width
  measure();
  tell();
  paint(true);
  if (!row || (row === document.activeElement && row.wf.index === state.focused)) return;
  (pool.find((made) => made.index === state.focused)?.row ?? elements.rows).focus({ preventScroll: true });
};

export const press = (name, pressed) => {
  state.on[name] = pressed;
  box.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", pressed);
};

const tell = () => {
  const { run, rows, on } = state, { map, none, summary, tools } = elements, parts = [];
  let steps = 0, failed = 0;
  for (const kind of bars.kind) steps += kind === "step";
  for (const one of bars.status) failed += one === "failed";
  const idle = axis.segments.filter((one) => one.gap).reduce((sum, one) => sum + one.t1 - one.t0, 0);
  if (bars.seq.length) parts.push(count(steps, "step"));
  if (failed) parts.push(`${many(failed)} failed`);
  if (bars.tries.size) parts.push(`${many(bars.tries.size)} tried again`);
  if (on.errors) parts.push(`${count(rows.length, "row")} shown`);
  if (idle && whole()) parts.push(`${took(idle)} idle left out`);
  if (!whole()) parts.push(`up to row ${many(bars.last)} of ${many(run.rows)}`);
  const text = parts.join(" · ");
  if (summary.textContent !== text) summary.textContent = text;
  map.hidden = bars.seq.length < 30 || narrow.matches;
  tools.hidden = !bars.seq.length;
  elements.name.hidden = bars.seq.length <= FOLD_FROM;
  elements.last.hidden = run.ended_ms !== null || rows.length * rowHeight() < innerHeight;
  none.hidden = rows.length > 0;
  if (rows.length) return;
  const ended = run.ended_ms ? "This run ended without a step." : "No step has begun yet.";
  none.textContent = on.errors ? "Nothing has failed, and nothing is open." : ended;
};

export const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
export const last = () => {
  scrollTo(0, document.documentElement.scrollHeight);
  state.focused = state.rows.length - 1;
  paint(true);
};
