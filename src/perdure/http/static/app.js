// What every page has: theme, keys, copying, panels that close, times that stay true.
// Pages work without it for reading; it needs no inline script, no eval and no network.
"use strict";

const perdure = (window.perdure = { keys: [] });

// Register a key: a name as in KeyboardEvent.key, what it does, the function. Listed under "?".
perdure.key = (key, title, run) => perdure.keys.push({ key, title, run });

perdure.root = () => document.body.dataset.root.replace(/\/$/, "");

// Characters that turn the direction of text, or do what is not seen, as escapes.
perdure.visible = (text) => text.replace(
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

perdure.toast = (text) => {
  const shown = document.querySelector(".toast") || document.body.appendChild(document.createElement("div"));
  shown.className = "toast";
  shown.setAttribute("role", "status");
  shown.textContent = text;
  clearTimeout(perdure.toastEnds);
  perdure.toastEnds = setTimeout(() => shown.remove(), 2500);
};

// --- copying ------------------------------------------------------------------------------------

// navigator.clipboard exists on https and localhost only; a selection is copied everywhere.
perdure.copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
};

const textOf = (button) => {
  if (button.dataset.copy !== undefined) return button.dataset.copy;
  const parts = button.closest(button.dataset.copyOf).querySelectorAll("pre");
  return [...parts].map((part) => part.textContent).join("\n");
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-of]");
  if (!button) return;
  const copied = await perdure.copy(textOf(button));
  button.classList.toggle("done", copied);
  perdure.toast(copied ? "Copied" : "This browser does not allow copying; select the text instead");
});

// --- theme --------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("perdure-theme", root.dataset.theme);
  } catch {
    // It lasts for this page then.
  }
});

// --- times --------------------------------------------------------------------------------------

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// The same words as views/format.py: ago.
perdure.ago = (at, now = Date.now()) => {
  const seconds = Math.trunc((now - at) / 1000);
  const far = Math.abs(seconds);
  if (far < 2) return "now";
  const [unit, size] = UNITS.find(([, length]) => far >= length);
  const text = `${Math.trunc(far / size)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
};

const tell = () => {
  for (const time of document.querySelectorAll("time[datetime]:not([data-exact])")) {
    const at = new Date(time.dateTime);
    const text = perdure.ago(at.getTime());
    if (time.textContent !== text) time.textContent = text;
    if (!time.dataset.local) {
      time.dataset.local = "yes";
      time.title = `${at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })} · ${time.title}`;
    }
  }
};
setInterval(() => document.hidden || tell(), 5000);
document.addEventListener("visibilitychange", () => document.hidden || tell());
document.addEventListener("htmx:after:swap", tell);
document.addEventListener("perdure:times", tell);

// --- panels -------------------------------------------------------------------------------------

const closePanels = (except) => {
  for (const open of document.querySelectorAll("details.pop[open]")) {
    if (!except || !open.contains(except)) open.open = false;
  }
};
document.addEventListener("click", (event) => closePanels(event.target));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.pop[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  } else if (perdure.typing(event.target)) event.target.blur();
});

// One press is one request.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) return event.preventDefault();
  event.target.dataset.sent = "yes";
  setTimeout(() => delete event.target.dataset.sent, 4000);
});

// htmx sends the proof that a change comes from this page.
document.addEventListener("htmx:config:request", (event) => {
  const token = document.querySelector('meta[name="csrf"]').content;
  if (token) event.detail.ctx.request.headers["x-csrf-token"] = token;
});

// --- keys ---------------------------------------------------------------------------------------

perdure.typing = (element) => element.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]");

const AREAS = { r: "", i: "inbox", q: "queues", s: "schedules", w: "workers", y: "system", n: "start" };
let going = 0;

const press = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (perdure.typing(event.target) || document.querySelector("dialog[open]")) return;
  if (Date.now() - going < 1500 && event.key in AREAS) {
    location.href = `${perdure.root()}/${AREAS[event.key]}`;
    return;
  }
  going = event.key === "g" ? Date.now() : 0;
  const found = perdure.keys.findLast((one) => one.key === event.key);
  if (found && found.run(event) !== false) event.preventDefault();
};
document.addEventListener("keydown", press);

perdure.help = () => {
  const old = document.querySelector("dialog.help");
  if (old) old.remove();
  const box = document.createElement("dialog");
  box.className = "help";
  const title = document.createElement("h2");
  title.id = "keys-title";
  title.textContent = "Keys";
  box.setAttribute("aria-labelledby", title.id);
  const list = document.createElement("div");
  list.className = "keys";
  const go = { key: "g r", title: "Runs; g i inbox, g q queues, g s schedules, g w workers, g y system, g n new run" };
  for (const one of [...perdure.keys, go]) {
    const name = document.createElement("span");
    for (const part of (one.key === " " ? "space" : one.key).split(" ")) {
      const key = document.createElement("kbd");
      key.textContent = part;
      name.append(key, " ");
    }
    const text = document.createElement("span");
    text.textContent = one.title;
    list.append(name, text);
  }
  const close = document.createElement("button");
  close.className = "btn";
  close.textContent = "Close";
  close.addEventListener("click", () => box.close());
  const foot = document.createElement("p");
  foot.className = "row";
  foot.append(close);
  box.append(title, list, foot);
  document.body.append(box);
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.addEventListener("close", () => box.remove());
  box.showModal();
};
document.addEventListener("click", (event) => event.target.closest("[data-keys]") && perdure.help());

perdure.key("/", "Filter, or the first field of the page", () => {
  const field = document.querySelector("[data-filter]") || document.querySelector("main input, main textarea");
  if (!field) return false;
  field.focus();
  field.select?.();
});
perdure.key("?", "These keys", perdure.help);

// Once, when everything is there.
document.addEventListener("DOMContentLoaded", () => {
  tell();
  // On a phone the navigation is wider than the screen.
  const nav = document.querySelector(".top nav");
  const here = nav?.querySelector("[aria-current]");
  if (here) nav.scrollLeft = here.offsetLeft - nav.offsetLeft - 60;
});
