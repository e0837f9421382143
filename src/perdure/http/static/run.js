// The page of a run: the panel of a step, streams that go on, lengths that grow.
"use strict";

perdure.run = (() => {
  const split = document.getElementById("run-split");
  const waterfall = document.getElementById("waterfall");
  const stepOf = () => {
    const step = new URLSearchParams(location.search).get("step");
    return step && /^\d+$/.test(step) ? Number(step) : null;
  };
  let asked = 0;

  // --- the panel ----------------------------------------------------------------------------------

  const show = async (seq) => {
    const mine = (asked += 1);
    perdure.waterfall?.select(seq);
    const response = await fetch(`${waterfall.dataset.side}${seq === null ? "" : `?step=${seq}`}`);
    if (mine !== asked || !response.ok) return;
    const made = document.createRange().createContextualFragment(await response.text());
    const old = document.getElementById("side"), inside = old.contains(document.activeElement);
    old.replaceWith(made);
    if (inside) (waterfall.querySelector('.wf-row[tabindex="0"]:not([hidden])') ?? document.getElementById("side")).focus({ preventScroll: true });
    htmx.process(document.getElementById("side"));
    split.classList.toggle("with-step", seq !== null);
    document.dispatchEvent(new CustomEvent("htmx:after:swap"));
  };
  const go = (seq) => {
    const address = new URL(location.href);
    if (seq === null) address.searchParams.delete("step");
    else address.searchParams.set("step", seq);
    history.pushState({ step: seq }, "", address);
  };
  const open = (seq) => {
    if (!waterfall) return;
    if (stepOf() !== seq) go(seq);
    return show(seq);
  };
  addEventListener("popstate", () => waterfall && show(stepOf()));
  document.addEventListener("click", (event) => {
    const moved = event.target.closest("[data-step-move]");
    if (moved) perdure.waterfall?.move(Number(moved.dataset.stepMove));
    if (event.target.closest("[data-step-close]") && waterfall) {
      event.preventDefault();
      open(null);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || stepOf() === null || !waterfall) return;
    if (document.querySelector("dialog[open], details.pop[open]") || perdure.typing(event.target)) return;
    open(null);
  });

  // On a phone the tabs scroll sideways.
  const tabs = document.querySelector(".run-tabs"), here = tabs?.querySelector("[aria-current]");
  if (here) tabs.scrollLeft = here.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - here.offsetWidth) / 2;

  // --- streams ------------------------------------------------------------------------------------

  const stream = document.getElementById("stream");
  const add = (kind, text) => {
    const made = document.createElement(kind);
    made.textContent = perdure.visible(text);
    if (kind === "div") made.className = "again";
    stream.append(made);
  };
  // Texts with their own white space: what stood between them is taken away.
  const whole = () => {
    if (!stream.classList.replace("words", "whole")) return;
    for (const one of [...stream.childNodes]) if (one.nodeType === Node.TEXT_NODE) one.remove();
  };
  const more = async () => {
    const { after, attempt } = stream.dataset;
    const response = await fetch(`${stream.dataset.stream}?after=${after}${attempt ? `&attempt=${attempt}` : ""}`, { headers: { "hx-request": "true" } });
    if (perdure.live.passes(response.status)) throw new Error(response.status);
    if (!response.ok) return;
    const { items } = await response.json();
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
    const prose = stream.classList.contains("prose");
    for (const { position, item, text, attempt: number, again } of items) {
      if (position <= Number(stream.dataset.after)) continue;
      stream.dataset.after = position;
      if (number) stream.dataset.attempt = number;
      if (prose && again) add("div", `attempt ${number}`);
      if (!prose || text === null) {
        add("code", typeof item === "string" ? item : JSON.stringify(item));
        continue;
      }
      if (text && text !== text.trim()) whole();
      add("span", text);
      if (stream.classList.contains("words")) stream.append(" ");
    }
    if (items.length && atEnd) scrollTo(0, document.documentElement.scrollHeight);
  };
  let reading = Promise.resolve();
  stream?.addEventListener("changed", () => {
    reading = reading.then(more).catch(() => perdure.live.missed(stream));
  });

  // --- lengths ------------------------------------------------------------------------------------

  const words = (ms) => {
    let rest = Math.floor(ms / 1000);
    const parts = [];
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
      const count = Math.floor(rest / size);
      rest -= count * size;
      if (count) parts.push(`${count} ${unit}`);
    }
    return parts.slice(0, 2).join(" ") || "0 s";
  };
  setInterval(() => {
    if (document.hidden) return;
    for (const one of document.querySelectorAll("[data-since]")) {
      one.textContent = words(Date.now() - Date.parse(one.dataset.since));
    }
  }, 1000);

  return { open };
})();
