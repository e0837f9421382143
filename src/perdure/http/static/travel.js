// Time travel: the slider and the arrow keys move along the moments of a run.
"use strict";

(() => {
  let going = null, to = null;

  const go = async (address) => {
    if (to === address) return; // a key that is held asks once
    if (going) going.abort();
    going = new AbortController();
    to = address;
    const focused = document.activeElement?.id;
    try {
      const response = await fetch(address, { signal: going.signal, headers: { accept: "text/html" } });
      if (!response.ok) return location.assign(address);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const moment = page.getElementById("moment");
      if (!moment) return location.assign(address);
      document.getElementById("moment").replaceWith(moment);
      document.title = page.title;
      history.replaceState(history.state, "", address);
      if (focused) document.getElementById(focused)?.focus();
      htmx.process(moment);
      to = null;
    } catch (error) {
      if (error.name !== "AbortError") location.assign(address);
    }
  };

  const address = (place) => {
    const moment = document.getElementById("moment");
    return moment.dataset.at + moment.dataset.stops.split(" ")[place];
  };

  document.addEventListener("input", (event) => {
    if (event.target.id === "stop") go(address(Number(event.target.value)));
  });

  // Where the slider has a part of the moments, a key goes to the next one of all.
  const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "stop" || !(event.key in KEYS) || !event.target.closest("[data-thinned]")) return;
    event.preventDefault();
    step(KEYS[event.key]);
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("#moment a[href]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    if (!link.href.includes("/travel?at=")) return;
    event.preventDefault();
    go(link.href);
  });

  const step = (by) => document.querySelector(`#moment a[data-step="${by}"][href]`)?.click();
  perdure.key("[", "the moment before", () => step(-1));
  perdure.key("]", "the moment after", () => step(1));
})();
