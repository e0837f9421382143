// Reload under `perdure dev`: the page follows the code, and waits while somebody types.
"use strict";
(() => {
  const { start, state } = document.currentScript.dataset;
  const typing = () => document.activeElement?.matches("input:not([type=checkbox]), textarea, select");

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(state, { cache: "no-store" });
        if (answer.ok && (await answer.json()).start !== start && !typing()) {
          location.reload();
          return;
        }
      } catch { /* the server is being replaced */ }
    }
    setTimeout(look, 700);
  }
  setTimeout(look, 700);
})();
