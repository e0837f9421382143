// The columns of a run, and the rows that are derived from them: bars, folded bars, waits.
import { state } from "./shared.js";

export const bars = {
  names: [], seq: [], name: [], kind: [], status: [], start: [], took: [],
  label: new Map(), run: new Map(), work: new Map(), tries: new Map(), marks: [], last: 0,
};
export const place = new Map(); // bar by row of the history

const FOLD_OVER = 5;
export const FOLD_FROM = 12;
export const BY_NAME_OVER = 10000; // so many bars, and more, are shown by name at first
const FOLDED = new Set(["step", "child", "emit", "send", "expose", "timer", "spawn"]);

// --- what the server has sent ---------------------------------------------------------------------

export const take = (page) => {
  state.run = page;
  page.skew = page.now_ms - Date.now();
  const more = page.bars, base = bars.seq.length;
  const known = new Map(bars.names.map((name, at) => [name, at]));
  const names = more.names.map((name) => known.get(name) ?? bars.names.push(name) - 1);
  for (let i = 0; i < more.seq.length; i += 1) {
    place.set(more.seq[i], base + i);
    bars.seq.push(more.seq[i]);
    bars.name.push(names[more.name[i]]);
    bars.kind.push(more.kind[i]);
    bars.status.push(more.status[i]);
    bars.start.push(more.start_ms[i]);
    bars.took.push(more.took_ms[i]);
  }
  for (const [name, column] of [["label", more.label], ["run", more.run], ["work", more.work_ms]]) {
    for (const i in column) bars[name].set(base + Number(i), column[i]);
  }
  for (const [seq, tries] of Object.entries(more.tries)) {
    bars.tries.set(Number(seq), [...(bars.tries.get(Number(seq)) ?? []), ...tries]);
  }
  more.ends.forEach(end);
  bars.marks.push(...more.marks);
  bars.last = Math.max(bars.last, more.last);
};

const end = ([seq, ended, at, work]) => {
  const bar = place.get(seq);
  if (bar === undefined) return;
  bars.status[bar] = ended;
  bars.took[bar] = at - bars.start[bar];
  if (work !== null && bars.took[bar] - work >= 5) bars.work.set(bar, work);
};

export const forget = () => {
  for (const column of Object.values(bars)) {
    if (Array.isArray(column)) column.length = 0;
    else if (column instanceof Map) column.clear();
  }
  bars.last = 0;
  place.clear();
};

// Until all rows are here nothing can be said of what comes behind them: an end may be there.
export const whole = () => bars.last >= state.run.rows;

// --- one bar --------------------------------------------------------------------------------------

export const now = () => (state.run.ended_ms ?? Date.now() + state.run.skew) - state.run.begun_ms;
export const endOf = (bar) => (bars.took[bar] === null ? Math.max(now(), bars.start[bar]) : bars.start[bar] + bars.took[bar]);
export const status = (bar) => {
  const { run } = state, found = bars.status[bar];
  if (found === "abandon") return "cancelled";
  if (found !== "open") return found;
  if (run.ended_ms) return "unfinished";
  if (bars.kind[bar] === "timer") return "waiting";
  if (bars.seq[bar] in run.queued) return "queued";
  if (["blocked", "pending", "paused"].includes(run.status)) return run.status; // nothing works on it
  return bars.tries.has(bars.seq[bar]) ? "retrying" : "running";
};

const troubled = (bar) => bars.tries.has(bars.seq[bar]) || bars.status[bar] === "failed" || bars.status[bar] === "open";
const plain = (bar) => FOLDED.has(bars.kind[bar]) && bars.status[bar] !== "failed" && !bars.tries.has(bars.seq[bar]);

// --- rows -----------------------------------------------------------------------------------------

// What is shown: { bar }, { group, bars } or { wait }; a group is named by its first row.
export const derive = () => {
  const { on, run } = state;
  let order = bars.seq.map((_, bar) => bar);
  if (on.errors) order = order.filter(troubled);
  const lasted = (bar) => endOf(bar) - bars.start[bar];
  if (on.slow) order.sort((a, b) => lasted(b) - lasted(a));
  const folds = order.length > FOLD_FROM && !on.slow;
  const groups = folds && on.name ? byName(order) : folds && on.fold ? neighbours(order) : order.map((bar) => [bar]);
  state.rows = groups.flatMap((inside) => unfolded(inside, on.name && folds ? 1 : FOLD_OVER));
  for (const wait of run.waits) {
    if (wait.message || wait.request) state.rows.push({ wait, level: 1 });
  }
};

// Where a row is after a change: what holds the focus keeps it when rows above are folded. A step
// may be in a folded row by now; of a wait that has ended the place is left.
export const placeOf = (shown, place) => {
  if (!shown) return 0;
  const { rows } = state, first = shown.bars ? shown.bars[0] : shown.bar;
  const named = ({ wait }) => wait && (wait.message ?? wait.request);
  const alike = shown.wait ? (one) => one.wait && named(one) === named(shown)
    : shown.bars ? (one) => one.bars && one.group === shown.group : (one) => one.bar === first;
  const holds = (one) => first !== undefined && (one.bar === first || one.bars?.includes(first));
  for (const test of [alike, holds]) {
    const found = rows.findIndex(test);
    if (found >= 0) return found;
  }
  return Math.max(Math.min(place, rows.length - 1), 0);
};

const unfolded = (inside, over) => {
  if (inside.length <= over) return inside.map((bar) => ({ bar, level: 1 }));
  const group = bars.seq[inside[0]], found = [{ group, bars: inside, level: 1 }];
  if (state.opened.has(group)) for (const bar of inside) found.push({ bar, level: 2, group });
  return found;
};

const neighbours = (order) => {
  const found = [];
  for (let i = 0; i < order.length; ) {
    let end = i + 1;
    const first = order[i], alike = (bar) => bars.name[bar] === bars.name[first] && bars.kind[bar] === bars.kind[first];
    if (plain(first)) while (end < order.length && alike(order[end]) && plain(order[end])) end += 1;
    found.push(order.slice(i, end));
    i = end;
  }
  return found.flatMap((inside) => (inside.length > FOLD_OVER ? [inside] : inside.map((bar) => [bar])));
};

// All that ended well of one kind and name together, wherever it stands; the rest one by one.
const byName = (order) => {
  const found = [], groups = new Map();
  for (const bar of order) {
    if (!plain(bar)) {
      found.push([bar]);
      continue;
    }
    const key = `${bars.kind[bar]} ${bars.name[bar]}`;
    if (groups.has(key)) groups.get(key).push(bar);
    else found.push(groups.set(key, [bar]).get(key));
  }
  return found;
};
