// The waterfall of a run: columns of numbers become rows, a pool of elements shows those in sight.
// Rows are derived from the columns when something changes, never kept beside them; an element is
// written only when it shows something else than before.
"use strict";

(() => {
  const box = document.getElementById("waterfall");
  if (!box) return;

  const $ = (selector) => box.querySelector(selector);
  const grid = $(".wf-grid"), rowsBox = $(".wf-rows"), axis = $(".wf-axis"), ticks = $(".wf-ticks");
  const map = $(".wf-map"), summary = $(".wf-summary"), none = $(".wf-none"), tools = $(".wf-tools");
  const narrow = matchMedia("(max-width: 720px)");
  const FOLD_OVER = 5, FOLD_FROM = 12, EDGE = 6, IDLE_OVER = 20, IDLE_MS_MIN = 1000, GAP_PX = 38, SPARE = 10, LIVE_MS = 1000;
  const FOLDED = new Set(["step", "child", "emit", "send", "expose", "timer", "spawn"]);

  const bars = { names: [], seq: [], name: [], kind: [], status: [], start: [], took: [], attempts: [],
    label: new Map(), run: new Map(), work: new Map(), tries: new Map(), marks: [], last: 0 };
  const place = new Map(); // bar by row of the history
  let run = null; // status, times and what it waits for
  let rows = []; // what is shown: { bar }, { group, bars } or { wait }
  let segments = []; // pieces of the time axis: from and to in the run's time and on the axis
  let length = 1, view = [0, 1], fitted = true, width = 1;
  let selected = box.dataset.step ? Number(box.dataset.step) : null, focused = 0;
  const opened = new Set(); // folded rows that are open, by their first row of the history
  const on = { errors: false, slow: false, idle: true, fold: true };
  const ROW = () => (narrow.matches ? 46 : 28);

  // --- numbers as words ---------------------------------------------------------------------------

  const took = (ms) => {
    if (ms < 1000) return `${Math.round(ms)} ms`;
    if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
    let rest = Math.round(ms / 1000);
    const parts = [];
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      const count = Math.floor(rest / size);
      rest -= count * size;
      if (count) parts.push(`${count} ${unit}`);
    }
    return parts.slice(0, 2).join(" ");
  };
  const short = (ms) => (ms === 0 ? "0" : ms % 1000 && ms < 60000 ? (ms < 1000 ? `${+ms.toFixed(2)} ms` : `${+(ms / 1000).toFixed(2)} s`) : took(ms).replace(".0 s", " s"));
  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  // What a row holds is the beginning of a JSON text: without quotes around names it reads better.
  const label = (text) => (text ? text.replace(/^\{"args":(\{.*?\}?)\}?$/, "$1").replace(/^\{(?=["}])/, "").replace(/\}$/, "").replace(/(^|[,{])\s*"([A-Za-z_]\w*)":/g, "$1 $2=").trim() : "");

  const until = (text) => {
    const ms = Number(/"until_ms":(\d+)/.exec(text ?? "")?.[1]);
    return ms ? `until ${new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}` : "";
  };

  const now = () => (run.ended_ms ?? Date.now() + run.skew) - run.begun_ms;
  const status = (bar) => {
    const found = bars.status[bar];
    if (found === "abandon") return "cancelled";
    if (found !== "open") return found;
    if (run.ended_ms) return "unfinished";
    if (bars.kind[bar] === "timer") return "waiting";
    if (bars.seq[bar] in run.queued) return "queued";
    if (["blocked", "pending", "paused"].includes(run.status)) return run.status; // nothing works on it
    return bars.tries.has(bars.seq[bar]) ? "retrying" : "running";
  };
  const endOf = (bar) => (bars.took[bar] === null ? Math.max(now(), bars.start[bar]) : bars.start[bar] + bars.took[bar]);
  const troubled = (bar) => bars.tries.has(bars.seq[bar]) || bars.status[bar] === "failed" || bars.status[bar] === "open";

  // --- columns ------------------------------------------------------------------------------------

  const take = (page) => {
    run = page;
    run.skew = page.now_ms - Date.now();
    const more = page.bars, base = bars.seq.length;
    const names = more.names.map((name) => {
      const known = bars.names.indexOf(name);
      return known < 0 ? bars.names.push(name) - 1 : known;
    });
    more.seq.forEach((seq, i) => {
      place.set(seq, base + i);
      bars.seq.push(seq);
      bars.name.push(names[more.name[i]]);
      bars.kind.push(more.kind[i]);
      bars.status.push(more.status[i]);
      bars.start.push(more.start_ms[i]);
      bars.took.push(more.took_ms[i]);
    });
    for (const [name, column] of [["label", more.label], ["run", more.run], ["work", more.work_ms]]) {
      for (const [i, found] of Object.entries(column)) bars[name].set(base + Number(i), found);
    }
    for (const [seq, tries] of Object.entries(more.tries)) {
      bars.tries.set(Number(seq), [...(bars.tries.get(Number(seq)) ?? []), ...tries]);
    }
    for (const [seq, ended, at, work] of more.ends) {
      const bar = place.get(seq);
      if (bar === undefined) continue;
      bars.status[bar] = ended;
      bars.took[bar] = at - bars.start[bar];
      if (work !== null && bars.took[bar] - work >= 5) bars.work.set(bar, work);
    }
    bars.marks.push(...more.marks);
    bars.last = Math.max(bars.last, more.last);
  };

  const forget = () => {
    for (const column of Object.values(bars)) {
      if (Array.isArray(column)) column.length = 0;
      else if (column instanceof Map) column.clear();
    }
    bars.last = 0;
    place.clear();
  };

  let asking = false, again = false;
  const grow = async () => {
    if (asking) return void (again = true);
    asking = true;
    try {
      const response = await fetch(`${box.dataset.columns}${bars.last ? `?after=${bars.last}` : ""}`);
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      const page = await response.json();
      if (run && (page.begun_ms !== run.begun_ms || (run.ended_ms && !page.ended_ms))) {
        forget(); // it was tried again: its rows are others
        run = null;
        again = true;
      } else {
        const follows = bars.last && !run.ended_ms && scrollY > 0 && atEnd();
        take(page);
        derive();
        if (follows) last();
        if (bars.last) performance.mark("perdure-drawn");
      }
    } catch (error) {
      summary.textContent = `The steps could not be loaded. ${error.message}`;
    }
    asking = false;
    if (again) {
      again = false;
      grow();
    }
  };

  // --- rows ---------------------------------------------------------------------------------------

  const derive = () => {
    let order = bars.seq.map((_, bar) => bar);
    if (on.errors) order = order.filter(troubled);
    if (on.slow) order.sort((a, b) => endOf(b) - bars.start[b] - (endOf(a) - bars.start[a]));
    rows = on.fold && !on.slow && order.length > FOLD_FROM ? folded(order) : order.map((bar) => ({ bar, level: 1 }));
    for (const wait of run.waits) {
      if (wait.message || wait.request) rows.push({ wait, level: 1 });
    }
    measure();
    tell();
  };

  const folded = (order) => {
    const found = [];
    for (let i = 0; i < order.length; ) {
      let end = i + 1;
      const first = order[i], alike = (bar) => bars.name[bar] === bars.name[first] && bars.kind[bar] === bars.kind[first];
      const plain = (bar) => FOLDED.has(bars.kind[bar]) && bars.status[bar] !== "failed" && !bars.tries.has(bars.seq[bar]);
      if (plain(first)) while (end < order.length && alike(order[end]) && plain(order[end])) end += 1;
      const stretch = order.slice(i, end);
      if (stretch.length <= FOLD_OVER) {
        for (const bar of stretch) found.push({ bar, level: 1 });
      } else {
        const group = bars.seq[first];
        found.push({ group, bars: stretch, level: 1 });
        if (opened.has(group)) for (const bar of stretch) found.push({ bar, level: 2, group });
      }
      i = end;
    }
    return found;
  };

  const tell = () => {
    const steps = bars.kind.filter((kind) => kind === "step").length;
    const failed = bars.status.filter((one) => one === "failed").length;
    const retried = bars.tries.size;
    const idle = segments.filter((one) => one.gap).reduce((sum, one) => sum + one.t1 - one.t0, 0);
    const parts = bars.seq.length ? [count(steps, "step")] : [];
    if (failed) parts.push(`${failed.toLocaleString("en")} failed`);
    if (retried) parts.push(`${retried.toLocaleString("en")} tried again`);
    if (on.errors) parts.push(`${count(rows.length, "row")} shown`);
    if (idle) parts.push(`${took(idle)} idle left out`);
    const text = parts.join(" · ");
    if (summary.textContent !== text) summary.textContent = text;
    const empty = !rows.length;
    grid.hidden = empty;
    map.hidden = bars.seq.length < 30 || narrow.matches;
    tools.hidden = !bars.seq.length;
    $('[data-do="last"]').hidden = run.ended_ms !== null || rows.length * ROW() < innerHeight;
    none.hidden = !empty;
    if (empty) none.textContent = on.errors ? "Nothing has failed, and nothing is open." : run.ended_ms ? "This run ended without a step." : "No step has begun yet.";
  };

  // --- the time axis ------------------------------------------------------------------------------

  // Stretches in which nothing but timers and children is open, and those between two attempts.
  const gaps = (until) => {
    const spans = [];
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
    spans.sort((a, b) => a[0] - b[0]);
    const lengths = spans.map(([start, end]) => end - start).filter((ms) => ms > 0).sort((a, b) => a - b);
    const median = lengths.length ? (lengths[(lengths.length - 1) >> 1] + lengths[lengths.length >> 1]) / 2 : 0;
    const least = Math.max(IDLE_OVER * median, IDLE_MS_MIN), found = [];
    let done = 0;
    for (const [start, end] of [...spans, [until, until]]) {
      if (start - done >= least) found.push([done, start]);
      done = Math.max(done, end);
    }
    return found;
  };

  const measure = () => {
    width = Math.max(axis.clientWidth, 1);
    const until = Math.max(now(), 1);
    const idle = on.idle && bars.seq.length ? gaps(until) : [];
    const active = until - idle.reduce((sum, [start, end]) => sum + end - start, 0) || 1;
    const px = Math.min(GAP_PX, (width * 0.6) / Math.max(idle.length, 1));
    const gap = (px * active) / Math.max(width - px * idle.length, width * 0.2);
    segments = [];
    let t = 0, c = 0;
    for (const [start, end] of idle) {
      if (start > t) segments.push({ t0: t, t1: start, c0: c, c1: (c += start - t) });
      segments.push({ t0: start, t1: end, c0: c, c1: (c += gap), gap: true });
      t = end;
    }
    if (until > t || !segments.length) segments.push({ t0: t, t1: until, c0: c, c1: (c += Math.max(until - t, 0.001)) });
    length = c;
    if (fitted) view = [0, length];
    paint(true);
  };

  const compress = (t) => {
    let low = 0, high = segments.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (segments[middle].t1 < t) low = middle + 1;
      else high = middle;
    }
    const { t0, t1, c0, c1 } = segments[low];
    return t1 === t0 ? c0 : c0 + ((t - t0) / (t1 - t0)) * (c1 - c0);
  };
  const x = (t) => EDGE + ((compress(t) - view[0]) / (view[1] - view[0])) * (width - 2 * EDGE);

  // Around the bar that is chosen, where that is in sight.
  const centre = () => {
    const bar = place.get(selected);
    const at = bar === undefined ? 0.5 : x((bars.start[bar] + endOf(bar)) / 2) / width;
    return at > 0 && at < 1 ? at : 0.5;
  };
  const zoom = (factor, at = centre()) => {
    const span = Math.min(Math.max((view[1] - view[0]) * factor, length / 5000, 0.5), length);
    const middle = view[0] + (view[1] - view[0]) * at;
    look(middle - span * at, span);
  };
  const look = (from, span) => {
    const start = Math.min(Math.max(from, 0), Math.max(length - span, 0));
    view = [start, start + span];
    fitted = span >= length * 0.999;
    paint(true);
  };
  const fit = () => {
    fitted = true;
    measure();
  };

  const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 1728e5, 6048e5];
  const drawAxis = () => {
    const step = NICE.find((ms) => (ms / (view[1] - view[0])) * width >= 84) ?? NICE.at(-1);
    const texts = [], lines = [], bands = [];
    const used = []; // from where to where there is a text
    const put = (at, text, kind, anchor) => {
      const room = text.length * 6.6, left = anchor === "middle" ? at - room / 2 : at + 4;
      if (left + room > width + 2 || used.some(([from, to]) => left < to + 6 && left + room > from - 6)) return false;
      texts.push([at, text, kind, anchor]);
      used.push([left, left + room]);
      return true;
    };
    for (const one of segments) {
      const from = x(one.t0), to = x(one.t1);
      if (!one.gap || to < 0 || from > width) continue;
      bands.push([from, to, took(one.t1 - one.t0)]);
      if (to - from > 24 && bands.length < 80) put((from + to) / 2, took(one.t1 - one.t0).split(" ").slice(0, 2).join(" "), "gap", "middle");
    }
    segments.forEach((one, index) => {
      const from = x(one.t0), to = x(one.t1);
      if (one.gap || to < 0 || from > width) return;
      const origin = index ? one.t0 : 0, plus = origin ? "+" : "";
      const seen = one.c0 < view[0] ? one.t0 + (view[0] - one.c0) : one.t0;
      for (let t = origin + Math.ceil((seen - origin) / step) * step; t <= one.t1 && x(t) <= width; t += step) {
        if (origin && t === origin) continue;
        const at = x(t);
        if (at >= -1 && put(at, plus + short(t - origin), "tick", "start")) lines.push(at);
      }
    });
    ticks.replaceChildren(...texts.map(([at, text, kind, anchor]) => svg("text", { x: at + (anchor === "start" ? 4 : 0), y: 17, class: kind, "text-anchor": anchor }, text)));
    back.replaceChildren(
      ...bands.map(([from, to, text]) => part("wf-gap", from, to - from, `${text} in which nothing was at work`)),
      ...lines.map((at) => part("wf-line", at, 1)),
      ...marks());
  };
  const marks = () => bars.marks.filter(([, at, kind]) => kind === "crash" && x(at) >= 0 && x(at) <= width).slice(0, 50)
    .map(([, at]) => part("wf-crash", x(at), 2, "the process died here"));
  const part = (name, left, wide, title) => {
    const made = document.createElement("i");
    made.className = name;
    made.style.transform = `translateX(${left.toFixed(1)}px)`;
    made.style.width = `${Math.max(wide, 1).toFixed(1)}px`;
    if (title) made.title = title;
    return made;
  };
  const svg = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // --- the pool -----------------------------------------------------------------------------------

  const back = document.createElement("div");
  back.className = "wf-back";
  back.setAttribute("aria-hidden", "true");
  rowsBox.before(back);
  const defs = svg("svg", { width: 0, height: 0, class: "wf-defs", "aria-hidden": "true" });
  const pattern = svg("pattern", { id: "wf-hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(svg("rect", { width: 5, height: 5, class: "hatch-back" }), svg("rect", { width: 2, height: 5, class: "hatch" }));
  defs.append(pattern);
  box.append(defs);

  const pool = [];
  const makeRow = () => {
    const row = document.createElement("div");
    row.className = "wf-row";
    row.setAttribute("role", "row");
    row.tabIndex = -1;
    const name = document.createElement("span"), lane = document.createElement("span"), time = document.createElement("span");
    name.className = "wf-name";
    name.setAttribute("role", "rowheader");
    lane.className = "wf-lane";
    lane.setAttribute("role", "gridcell");
    time.className = "wf-took";
    time.setAttribute("role", "gridcell");
    const icon = svg("svg", { class: "i", "aria-hidden": "true" }), use = svg("use", {});
    icon.append(use);
    const word = document.createElement("span"), badge = document.createElement("span"), more = document.createElement("span"), link = document.createElement("a");
    word.className = "wf-word mono";
    badge.className = "wf-badge";
    more.className = "wf-label mono";
    link.className = "wf-child mono";
    name.append(icon, word, badge, link, more);
    const drawn = svg("svg", { class: "wf-svg", "aria-hidden": "true" });
    const line = svg("path", { class: "line" }), work = svg("path", { class: "work" }), fault = svg("path", { class: "fault", fill: "url(#wf-hatch)" }), cross = svg("path", { class: "cross" });
    drawn.append(line, work, fault, cross);
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    lane.append(drawn, button);
    row.append(name, lane, time);
    const made = { row, name, use, word, badge, more, link, line, work, fault, cross, button, time, index: -1, shows: "" };
    row.wf = made;
    return made;
  };

  const box_ = (from, to, top, high) => {
    const left = Math.max(from, -4), right = Math.min(Math.max(to, from + 2.5), width + 4);
    if (right < 0 || left > width) return "";
    const r = Math.min(2.5, (right - left) / 2);
    return `M${(left + r).toFixed(1)} ${top}H${(right - r).toFixed(1)}q${r} 0 ${r} ${r}V${top + high - r}q0 ${r} ${-r} ${r}H${(left + r).toFixed(1)}q${-r} 0 ${-r} ${-r}V${top + r}q0 ${-r} ${r} ${-r}z`;
  };

  const draw = (made, index) => {
    const shown = rows[index], { row } = made;
    row.setAttribute("aria-rowindex", index + 2);
    row.setAttribute("aria-level", shown.level);
    row.style.transform = `translateY(${index * ROW()}px)`;
    row.tabIndex = index === focused ? 0 : -1;
    if (shown.group && shown.bars) row.setAttribute("aria-expanded", opened.has(shown.group));
    else row.removeAttribute("aria-expanded");
    row.setAttribute("aria-selected", selected !== null && shown.bar !== undefined && bars.seq[shown.bar] === selected);
    const paths = { line: "", work: "", fault: "", cross: "" };
    const facts = shown.wait ? drawWait(shown.wait, paths) : shown.bars ? drawGroup(shown, paths) : drawBar(shown.bar, paths);
    row.className = `wf-row l${shown.level} s-${facts.status} k-${facts.kind}`;
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
    for (const [name, d] of Object.entries(paths)) made[name].setAttribute("d", d);
    const from = Math.max(x(facts.from), 0), to = Math.min(x(facts.to), width);
    const { button } = made;
    button.hidden = to < 0 || from > width;
    button.style.transform = `translateX(${Math.min(from, width - 8).toFixed(1)}px)`;
    button.style.width = `${Math.max(to - from, 8).toFixed(1)}px`;
    const told = `${facts.kind} ${facts.name}${facts.badge ? `, ${facts.said ?? facts.badge}` : ""}${facts.word ? `, ${facts.word}` : ""}${facts.took ? `, ${facts.took}` : ""}`;
    const said = perdure.visible(told);
    if (button.getAttribute("aria-label") !== said) {
      button.setAttribute("aria-label", said);
      button.title = said;
    }
  };
  const set = (element, given) => {
    const text = perdure.visible(given);
    if (element.textContent !== text) element.textContent = text;
  };

  const drawBar = (bar, paths) => {
    const seq = bars.seq[bar], kind = bars.kind[bar], word = status(bar), from = bars.start[bar], to = endOf(bar);
    const name = bars.names[bars.name[bar]];
    const tries = bars.tries.get(seq), open = bars.took[bar] === null, work = bars.work.get(bar) ?? bars.took[bar];
    const facts = { kind, name, status: word || "point", word, from, to, label: kind === "timer" ? (word === "waiting" ? until(bars.label.get(bar)) : "") : label(bars.label.get(bar)), child: bars.run.get(bar) };
    facts.icon = { failed: "failed", retrying: "retrying", blocked: "blocked", pending: "wait", paused: "wait", queued: "wait" }[word] ?? (kind === "step" && word === "completed" ? "completed" : undefined) ?? ({ reject: "cancel", refuse: "cancel" }[kind] ?? kind);
    if (word === "") {
      const at = x(from);
      if (at >= -5 && at <= width + 5) paths.work = `M${at.toFixed(1)} 9l5 5-5 5-5-5z`;
      return facts;
    }
    facts.took = took(to - from);
    if (tries || word === "queued" || (!open && from + work < to)) paths.line = lineOf(from, to);
    const begun = open ? (tries ? (run.again[seq] ? to : tries.at(-1)[0] + tries.at(-1)[1]) : from) : to - work;
    if (word !== "queued" && !(open && run.again[seq])) paths.work = box_(x(begun), x(to), 7, 14);
    if (tries) {
      const number = tries.length + (open && run.again[seq] ? 0 : 1);
      facts.badge = `×${number}`;
      facts.said = `attempt ${number}`;
      for (const [at, ms] of tries.slice(-400)) {
        paths.fault += box_(x(at), x(at + ms), 7, 14);
        const end = x(at + ms);
        if (end > -4 && end < width + 4) paths.cross += `M${(end - 3).toFixed(1)} 11l6 6m0-6l-6 6`;
      }
      if (run.again[seq]) facts.label = `again in ${took(Math.max(run.again[seq] - run.begun_ms - now(), 0))}`;
    }
    if (word === "queued") facts.label = run.queued[seq];
    return facts;
  };
  const lineOf = (from, to) => {
    const left = Math.max(x(from), -4), right = Math.min(x(to), width + 4);
    return right > left ? `M${left.toFixed(1)} 14H${right.toFixed(1)}` : "";
  };

  const drawGroup = ({ bars: inside, group }, paths) => {
    const first = inside[0], from = bars.start[first], open = inside.filter((bar) => bars.status[bar] === "open").length;
    let to = from, slowest = 0, left = -1, right = -1;
    for (const bar of inside) {
      const end = endOf(bar), a = Math.round(x(bars.start[bar])), b = Math.max(Math.round(x(end)), a + 2);
      to = Math.max(to, end);
      slowest = Math.max(slowest, end - bars.start[bar]);
      if (right > left && a < right && a >= left) right = Math.max(right, b); // one box for what overlaps
      else {
        if (right > left) paths.work += box_(left, right - (right - left > 4), 9, 10);
        [left, right] = [a, b];
      }
    }
    if (right > left) paths.work += box_(left, right, 9, 10);
    paths.line = lineOf(from, to);
    const kind = bars.kind[first], timed = slowest > 0;
    return {
      kind, icon: "fold", name: bars.names[bars.name[first]], from, to,
      status: open ? status(inside.find((bar) => bars.status[bar] === "open")) : bars.status[first] === "" ? "point" : "completed",
      badge: `×${inside.length.toLocaleString("en")}`, said: `${inside.length.toLocaleString("en")} of them, folded`,
      label: [open ? `${open.toLocaleString("en")} open` : "", timed ? `slowest ${took(slowest)}` : ""].filter(Boolean).join(", "),
      word: open ? `${open} open` : "all ended well", took: timed ? took(to - from) : "", group,
    };
  };

  const drawWait = (wait, paths) => {
    const from = wait.since_ms ? wait.since_ms - run.begun_ms : Math.max(0, ...bars.start.slice(-50)), to = now();
    paths.work = box_(x(from), x(to), 7, 14);
    return {
      kind: wait.message ? "message" : "request", icon: "wait", name: wait.message ?? wait.request, status: "waiting", word: "waiting", from, to,
      label: wait.prompt ?? `nobody has sent one${wait.type && wait.type !== "Any" ? ` (${wait.type})` : ""}`, took: took(to - from),
    };
  };

  let drawnRows = -1;
  const paint = (all) => {
    if (!run || grid.hidden && !rows.length) return;
    grid.hidden = false;
    const high = ROW();
    if (drawnRows !== rows.length * high) {
      drawnRows = rows.length * high;
      rowsBox.style.height = `${drawnRows}px`;
      back.style.height = `${drawnRows}px`;
      grid.setAttribute("aria-rowcount", rows.length + 1);
    }
    if (axis.clientWidth && axis.clientWidth !== width) return measure();
    if (all) {
      drawAxis();
      drawMap();
    }
    const top = -rowsBox.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / high) - SPARE);
    const wanted = Math.min(rows.length, Math.ceil(innerHeight / high) + 2 * SPARE);
    while (pool.length < wanted) {
      const made = makeRow();
      pool.push(made);
      rowsBox.append(made.row);
      all = true;
    }
    const last = Math.min(rows.length, first + pool.length);
    const free = pool.filter((made) => made.index < first || made.index >= last);
    const taken = new Set(pool.filter((made) => !free.includes(made)).map((made) => made.index));
    if (all) for (const made of pool) if (taken.has(made.index)) draw(made, made.index);
    const at = new Map(pool.filter((made) => taken.has(made.index)).map((made) => [made.index, made.row]));
    for (let index = last - 1; index >= first; index -= 1) {
      if (taken.has(index)) continue;
      const made = free.pop();
      if (!made) break;
      if (made.row === document.activeElement) rowsBox.focus({ preventScroll: true });
      made.index = index;
      made.row.hidden = false;
      draw(made, index);
      rowsBox.insertBefore(made.row, at.get(index + 1) ?? null); // read aloud in their order
      at.set(index, made.row);
    }
    for (const made of free) {
      made.index = -1;
      made.row.hidden = true;
    }
  };

  let waiting = false;
  const later = (all) => {
    if (waiting) return void (waiting = waiting === "all" || all ? "all" : "some");
    waiting = all ? "all" : "some";
    requestAnimationFrame(() => {
      const whole = waiting === "all";
      waiting = false;
      paint(whole);
    });
  };
  addEventListener("scroll", () => later(false), { passive: true });
  addEventListener("resize", () => run && later(true));
  new ResizeObserver(() => run && later(true)).observe(axis);

  // --- the small map ------------------------------------------------------------------------------

  const probe = document.createElement("i"); // knows what a colour is in this theme
  probe.hidden = true;
  box.append(probe);
  const drawMap = () => {
    if (map.hidden) return;
    const wide = map.clientWidth, high = 28, dense = devicePixelRatio || 1;
    map.width = wide * dense;
    map.height = high * dense;
    const pen = map.getContext("2d"), style = getComputedStyle(probe);
    const colour = (name) => {
      probe.style.color = `var(${name})`;
      return style.color;
    };
    pen.scale(dense, dense);
    const to = (c) => (c / length) * wide, lanes = high - 6;
    const colours = { ok: colour("--wf-map"), failed: colour("--bad"), open: colour("--run") };
    bars.seq.forEach((seq, bar) => {
      const from = to(compress(bars.start[bar])), end = to(compress(endOf(bar)));
      pen.fillStyle = bars.status[bar] === "failed" || bars.tries.has(seq) ? colours.failed : bars.status[bar] === "open" ? colours.open : colours.ok;
      pen.fillRect(from, 3 + (bar / bars.seq.length) * lanes, Math.max(end - from, 1), Math.max(lanes / bars.seq.length, 1.2));
    });
    if (!fitted) {
      pen.fillStyle = colour("--wf-shade");
      pen.fillRect(0, 0, to(view[0]), high);
      pen.fillRect(to(view[1]), 0, wide - to(view[1]), high);
      pen.strokeStyle = colour("--accent");
      pen.strokeRect(to(view[0]) + 0.5, 0.5, Math.max(to(view[1]) - to(view[0]) - 1, 2), high - 1);
    }
  };

  const drag = (element, moved, ended) => element.addEventListener("pointerdown", (down) => {
    if (down.button) return;
    down.preventDefault();
    element.setPointerCapture(down.pointerId);
    const left = element.getBoundingClientRect().left, at = (event) => event.clientX - left;
    const move = (event) => moved(at(down), at(event));
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", (up) => {
      element.removeEventListener("pointermove", move);
      ended(at(down), at(up));
    }, { once: true });
  });
  const mapTo = (_, at) => look((at / map.clientWidth) * length - (view[1] - view[0]) / 2, view[1] - view[0]);
  drag(map, mapTo, mapTo);
  const brush = part("wf-brush", 0, 0);
  brush.hidden = true;
  axis.append(brush);
  drag(axis, (from, to) => {
    brush.hidden = false;
    brush.style.transform = `translateX(${Math.min(from, to)}px)`;
    brush.style.width = `${Math.abs(to - from)}px`;
  }, (from, to) => {
    brush.hidden = true;
    if (Math.abs(to - from) < 4) return;
    const scale = (view[1] - view[0]) / (width - 2 * EDGE);
    look(view[0] + (Math.min(from, to) - EDGE) * scale, Math.abs(to - from) * scale);
  });
  axis.addEventListener("dblclick", fit);
  grid.addEventListener("wheel", (event) => {
    if (event.ctrlKey) {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - axis.getBoundingClientRect().left) / width);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && !fitted) {
      event.preventDefault();
      look(view[0] + (event.deltaX / width) * (view[1] - view[0]), view[1] - view[0]);
    }
  }, { passive: false });

  // --- choosing a row -----------------------------------------------------------------------------

  const focus = (index) => {
    if (!rows.length) return;
    focused = Math.min(Math.max(index, 0), rows.length - 1);
    const top = rowsBox.getBoundingClientRect().top + focused * ROW();
    const head = 48 + 34; // the head of the page and of the grid stay in sight
    if (top < head) scrollBy(0, top - head);
    else if (top + ROW() > innerHeight - 8) scrollBy(0, top + ROW() - innerHeight + 8);
    paint(true);
    pool.find((made) => made.index === focused)?.row.focus({ preventScroll: true });
  };
  const indexOf = (seq) => rows.findIndex((one) => one.bar !== undefined && bars.seq[one.bar] === seq);
  const reveal = (seq) => { // a row inside a folded one is opened
    const group = rows.find((one) => one.bars && one.bars.some((bar) => bars.seq[bar] === seq));
    if (group && !opened.has(group.group)) {
      opened.add(group.group);
      derive();
    }
    return indexOf(seq);
  };
  const unfold = (group, open) => {
    if (open ? opened.has(group) : !opened.has(group)) return;
    if (open) opened.add(group);
    else opened.delete(group);
    derive();
  };
  const use = (index) => {
    const shown = rows[index];
    focused = index;
    if (!shown) return;
    if (shown.bars) unfold(shown.group, !opened.has(shown.group));
    else if (shown.wait) location.href = box.dataset.inbox;
    else perdure.run.open(bars.seq[shown.bar]);
  };
  const move = (by) => {
    let index = selected === null ? focused - (by > 0 ? 1 : 0) : indexOf(selected);
    do index += by;
    while (rows[index] && rows[index].bar === undefined);
    if (!rows[index]) return;
    focus(index);
    perdure.run.open(bars.seq[rows[index].bar]);
  };

  rowsBox.tabIndex = -1;
  rowsBox.addEventListener("click", (event) => {
    if (event.target.closest("a")) return;
    const row = event.target.closest(".wf-row");
    if (row && !getSelection().toString()) use(row.wf.index);
  });
  grid.addEventListener("focusin", (event) => {
    const row = event.target.closest(".wf-row");
    if (row && row.wf.index >= 0 && row.wf.index !== focused) {
      focused = row.wf.index;
      for (const made of pool) made.row.tabIndex = made.index === focused ? 0 : -1;
    }
  });
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = rows[focused];
    const done = {
      ArrowDown: () => focus(focused + 1), ArrowUp: () => focus(focused - 1),
      Home: () => focus(0), End: () => focus(rows.length - 1),
      PageDown: () => focus(focused + 15), PageUp: () => focus(focused - 15),
      Enter: () => use(focused), " ": () => use(focused),
      ArrowRight: () => shown?.bars && unfold(shown.group, true),
      ArrowLeft: () => {
        if (shown?.bars) return unfold(shown.group, false);
        if (shown?.level === 2) focus(rows.findIndex((one) => one.bars && one.group === shown.group));
      },
    }[event.key];
    if (!done || event.target.closest("a")) return;
    event.preventDefault();
    event.stopPropagation();
    done();
  });

  // --- buttons and keys ---------------------------------------------------------------------------

  const toggle = (name) => () => {
    on[name] = !on[name];
    box.querySelector(`[data-do="${name}"]`).setAttribute("aria-pressed", on[name]);
    focused = 0;
    if (name === "idle") fitted = true;
    derive();
  };
  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
  const last = () => {
    scrollTo(0, document.documentElement.scrollHeight);
    focused = rows.length - 1;
    paint(true);
  };
  const doing = { last, errors: toggle("errors"), slow: toggle("slow"), idle: toggle("idle"), fold: toggle("fold"), in: () => zoom(0.5), out: () => zoom(2), fit };
  tools.addEventListener("click", (event) => doing[event.target.closest("[data-do]")?.dataset.do]?.());
  for (const [key, title, act] of [
    ["+", "Zoom in", doing.in], ["-", "Zoom out", doing.out], ["f", "Fit all of it", fit],
    ["i", "Skip idle time, or show it", doing.idle], ["e", "Only errors, or all", doing.errors],
    ["n", "The newest row", last], ["s", "The slowest first, or in order", doing.slow], ["o", "Fold equal steps, or not", doing.fold],
    ["[", "Earlier step", () => move(-1)], ["]", "Later step", () => move(1)],
    ["j", "Next row", () => focus(focused + 1)], ["k", "Row before", () => focus(focused - 1)],
  ]) perdure.key(key, title, act);

  // --- life ---------------------------------------------------------------------------------------

  perdure.waterfall = {
    move,
    select: (seq) => {
      selected = seq;
      box.dataset.step = seq ?? "";
      if (seq !== null && run) reveal(seq);
      if (run) paint(true);
    },
  };
  box.addEventListener("changed", grow);
  narrow.addEventListener("change", () => run && derive());
  setInterval(() => {
    if (document.hidden || !run || run.ended_ms) return;
    if (bars.took.includes(null) || run.waits.length) measure();
  }, LIVE_MS);
  grow().then(() => {
    if (selected === null || !run) return;
    const index = reveal(selected);
    if (index > 20) scrollTo(0, rowsBox.getBoundingClientRect().top + scrollY + index * ROW() - innerHeight / 2);
    if (index >= 0) focused = index;
    paint(true);
  });
})();
