// What the parts of the waterfall share: its elements, what is shown of the run, elements to draw
// with, numbers as words.

export const box = document.getElementById("waterfall");
const $ = (selector) => box.querySelector(selector);
export const elements = {
  grid: $(".wf-grid"), rows: $(".wf-rows"), axis: $(".wf-axis"), ticks: $(".wf-ticks"), map: $(".wf-map"),
  summary: $(".wf-summary"), none: $(".wf-none"), tools: $(".wf-tools"), last: $('[data-do="last"]'),
  name: $('[data-do="name"]'),
};
export const narrow = matchMedia("(max-width: 720px)");
export const rowHeight = () => (narrow.matches ? 46 : 28);

export const state = {
  run: null, // status, times and what it waits for
  rows: [],
  selected: box.dataset.step ? Number(box.dataset.step) : null,
  focused: 0,
  opened: new Set(), // folded rows that are open, by their first row of the history
  on: { errors: false, slow: false, idle: true, fold: true, name: false },
  paint: () => {}, // draws again what is in sight; with true all of it
};

// --- elements to draw with ------------------------------------------------------------------------

export const svg = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

export const part = (name, left, wide, title) => {
  const made = document.createElement("i");
  made.className = name;
  made.style.transform = `translateX(${left.toFixed(1)}px)`;
  made.style.width = `${Math.max(wide, 1).toFixed(1)}px`;
  if (title) made.title = title;
  return made;
};

export const span = (name, role) => {
  const made = document.createElement("span");
  made.className = name;
  if (role) made.setAttribute("role", role);
  return made;
};

export const hatch = () => {
  const defs = svg("svg", { width: 0, height: 0, class: "wf-defs", "aria-hidden": "true" });
  const pattern = svg("pattern", { id: "wf-hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(svg("rect", { width: 5, height: 5, class: "hatch-back" }), svg("rect", { width: 2, height: 5, class: "hatch" }));
  defs.append(pattern);
  return defs;
};

// A function that is called with where the pointer went down and where it is.
export const drag = (element, moved, ended) => element.addEventListener("pointerdown", (down) => {
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

// --- numbers as words -----------------------------------------------------------------------------

export const took = (ms) => {
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

// On the axis: without decimals that say nothing.
export const short = (ms) => {
  if (ms === 0) return "0";
  if (ms % 1000 === 0 || ms >= 60000) return took(ms).replace(".0 s", " s");
  return ms < 1000 ? `${+ms.toFixed(2)} ms` : `${+(ms / 1000).toFixed(2)} s`;
};

export const many = (number) => number.toLocaleString("en");
export const count = (number, noun) => `${many(number)} ${noun}${number === 1 ? "" : "s"}`;

// What a row holds is the beginning of a JSON text: without quotes around names it reads better.
export const label = (text) => {
  if (!text) return "";
  const inside = text.replace(/^\{"args":(\{.*?\}?)\}?$/, "$1").replace(/^\{(?=["}])/, "").replace(/\}$/, "");
  return inside.replace(/(^|[,{])\s*"([A-Za-z_]\w*)":/g, "$1 $2=").trim();
};

export const until = (text) => {
  const ms = Number(/"until_ms":(\d+)/.exec(text ?? "")?.[1]);
  return ms ? `until ${new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}` : "";
};
