// The list of databases is asked for again every few seconds, while the tab is seen.
"use strict";

(() => {
  const list = () => document.getElementById("databases");
  const every = Number(list()?.dataset.every || 0);
  if (!every) return;
  setInterval(() => {
    const busy = document.activeElement && list().contains(document.activeElement);
    if (!document.hidden && !busy) list().dispatchEvent(new CustomEvent("changed"));
  }, every);
})();
