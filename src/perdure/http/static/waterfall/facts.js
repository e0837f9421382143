// What a row shows: its words for eyes and for screen readers, and the outlines of its bar.
import { axis, x } from "./axis.js";
import { bars, endOf, now, status, whole } from "./columns.js";
import { label, many, state, took, until } from "./shared.js";

const ICONS = { failed: "failed", retrying: "retrying", blocked: "blocked", pending: "wait", paused: "wait", queued: "wait" };
const TRIES_MAX = 400;

export const factsOf = (shown, paths) => {
  if (shown.wait) return ofWait(shown.wait, paths);
  return shown.bars ? ofGroup(shown, paths) : ofBar(shown.bar, paths);
};

// --- outlines -------------------------------------------------------------------------------------

const outline = (from, to, top, high) => {
  const left = Math.max(from, -4), right = Math.min(Math.max(to, from + 2.5), axis.width + 4);
  if (right < 0 || left > axis.width) return "";
  const r = Math.min(2.5, (right - left) / 2);
  const inner = (left + r).toFixed(1), upper = `M${inner} ${top}H${(right - r).toFixed(1)}q${r} 0 ${r} ${r}`;
  return `${upper}V${top + high - r}q0 ${r} ${-r} ${r}H${inner}q${-r} 0 ${-r} ${-r}V${top + r}q0 ${-r} ${r} ${-r}z`;
};

const lineOf = (from, to) => {
  const left = Math.max(x(from), -4), right = Math.min(x(to), axis.width + 4);
  return right > left ? `M${left.toFixed(1)} 14H${right.toFixed(1)}` : "";
};

// --- a bar ----------------------------------------------------------------------------------------

const iconOf = (kind, word) => ICONS[word] ?? (kind === "step" && word === "completed" ? "completed" : undefined)
  ?? ({ reject: "cancel", refuse: "cancel" }[kind] ?? kind);

const labelOf = (bar, word) => {
  const text = bars.label.get(bar);
  if (word === "queued") return state.run.queued[bars.seq[bar]];
  if (bars.kind[bar] === "timer") return word === "waiting" ? until(text) : "";
  return label(text);
};

const ofBar = (bar, paths) => {
  const kind = bars.kind[bar], word = status(bar), from = bars.start[bar], to = endOf(bar);
  const facts = {
    kind, name: bars.names[bars.name[bar]], status: word || "point", word, from, to,
    label: labelOf(bar, word), child: bars.run.get(bar), icon: iconOf(kind, word),
  };
  if (word === "") {
    const at = x(from);
    if (at >= -5 && at <= axis.width + 5) paths.work = `M${at.toFixed(1)} 9l5 5-5 5-5-5z`;
    return facts;
  }
  facts.took = took(to - from);
  drawWork(bar, word, paths);
  if (bars.tries.has(bars.seq[bar])) drawTries(bar, facts, paths);
  return facts;
};

const drawWork = (bar, word, paths) => {
  const seq = bars.seq[bar], from = bars.start[bar], to = endOf(bar), tries = bars.tries.get(seq);
  const open = bars.took[bar] === null, work = bars.work.get(bar) ?? bars.took[bar], again = state.run.again[seq];
  if (tries || word === "queued" || (!open && from + work < to)) paths.line = lineOf(from, to);
  if (word === "queued" || (open && again)) return;
  const begun = !open ? to - work : tries ? tries.at(-1)[0] + tries.at(-1)[1] : from;
  paths.work = outline(x(begun), x(to), 7, 14);
};

const drawTries = (bar, facts, paths) => {
  const tries = bars.tries.get(bars.seq[bar]), again = state.run.again[bars.seq[bar]];
  const number = tries.length + (bars.took[bar] === null && again ? 0 : 1);
  facts.badge = `×${number}`;
  facts.said = `attempt ${number}`;
  for (const [at, ms] of tries.slice(-TRIES_MAX)) {
    const end = x(at + ms);
    paths.fault += outline(x(at), end, 7, 14);
    if (end > -4 && end < axis.width + 4) paths.cross += `M${(end - 3).toFixed(1)} 11l6 6m0-6l-6 6`;
  }
  const left = again - state.run.begun_ms - now();
  if (again && facts.word !== "queued") facts.label = left > 0 ? `again in ${took(left)}` : "due now";
};

// --- many bars in one row -------------------------------------------------------------------------

// One box for what overlaps. Returns when the last one ends, and how long all and the longest took.
const drawTogether = (inside, paths) => {
  let to = bars.start[inside[0]], slowest = 0, total = 0, left = -1, right = -1;
  const put = () => {
    if (right > left) paths.work += outline(left, right - (right - left > 4), 9, 10);
  };
  for (const bar of inside) {
    const end = endOf(bar), a = Math.round(x(bars.start[bar])), b = Math.max(Math.round(x(end)), a + 2);
    to = Math.max(to, end);
    slowest = Math.max(slowest, end - bars.start[bar]);
    total += end - bars.start[bar];
    if (right > left && a < right && a >= left) right = Math.max(right, b);
    else {
      put();
      [left, right] = [a, b];
    }
  }
  put();
  return { to, slowest, total };
};

const ofGroup = ({ bars: inside, group }, paths) => {
  const first = inside[0], from = bars.start[first], kind = bars.kind[first];
  const open = whole() ? inside.filter((bar) => bars.status[bar] === "open") : [];
  const { to, slowest, total } = drawTogether(inside, paths), timed = slowest > 0;
  paths.line = lineOf(from, to);
  const facts = [
    open.length ? `${many(open.length)} open` : "",
    timed && state.on.name ? `together ${took(total)}` : "", timed ? `slowest ${took(slowest)}` : "",
  ];
  return {
    kind, icon: "fold", name: bars.names[bars.name[first]], from, to, group,
    status: open.length ? status(open[0]) : bars.status[first] === "" ? "point" : "completed",
    badge: `×${many(inside.length)}`, said: `${many(inside.length)} of them, folded`,
    label: facts.filter(Boolean).join(", "),
    word: open.length ? `${open.length} open` : whole() ? "all ended well" : "", took: timed ? took(to - from) : "",
  };
};

// --- a message or a request that the run waits for ------------------------------------------------

const ofWait = (wait, paths) => {
  const to = now(), from = wait.since_ms ? wait.since_ms - state.run.begun_ms : Math.max(0, ...bars.start.slice(-50));
  paths.work = outline(x(from), x(to), 7, 14);
  const type = wait.type && wait.type !== "Any" ? ` (${wait.type})` : "";
  return {
    kind: wait.message ? "message" : "request", icon: "wait", name: wait.message ?? wait.request,
    status: "waiting", word: "waiting", from, to, label: wait.prompt ?? `nobody has sent one${type}`, took: took(to - from),
  };
};
