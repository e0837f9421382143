// Time travel: the slider and the arrow keys move along the moments of a run.
"use strict";

(() => {
  let going = null;

  const go = async (address) => {
    if (going) going.abort();
    going = new AbortController();
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
