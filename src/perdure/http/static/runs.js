// The list of runs: rows that stay true, what is picked, saved views, keys.
// Nothing moves under the pointer: rows change in place, new ones wait behind a button.
"use strict";

(() => {
  const form = document.getElementById("runs");
  const newer = form.querySelector("[data-newer]");
  let fresh = null; // the newest page that the server has given
  let asking = false;
  let again = false;
  const APART_MS = 1000;

  const rows = (root) => [...root.querySelectorAll("tr[data-run]")];
  const boxes = () => [...form.querySelectorAll('input[name="id"]')];

  // --- live ---------------------------------------------------------------------------------------

  const same = (a, b) => a.outerHTML.replace(/ title="[^"]*"| data-local="[^"]*"/g, "") ===
    b.outerHTML.replace(/ title="[^"]*"/g, "");

  const renew = (row, from) => {
    row.classList.remove("gone");
    row.removeAttribute("title");
    const cells = [...from.children];
    [...row.children].forEach((cell, at) => {
      if (!cells[at] || cell.className === "pick" || cell.contains(document.activeElement)) return;
      if (!same(cell, cells[at])) cell.replaceWith(document.importNode(cells[at], true));
    });
  };

  const swap = (selector, page) => {
    const [old, now] = [document.querySelector(selector), page.querySelector(selector)];
    if (old && now && !old.contains(document.activeElement)) old.replaceWith(document.importNode(now, true));
  };

  const busy = () => form.matches(":hover") || form.contains(document.activeElement) || boxes().some((box) => box.checked);

  const show = (page) => {
    fresh = page;
    swap("#overview", page);
    const shown = new Map(rows(form).map((row) => [row.dataset.run, row]));
    const now = rows(page);
    if (!shown.size) {
      if (now.length) apply(); // where there was nothing, nothing can jump
      return;
    }
    let added = 0;
    for (const row of now) {
      const old = shown.get(row.dataset.run);
      if (old) renew(old, row);
      else added += 1;
      shown.delete(row.dataset.run);
    }
    // A row that is on the page no more was pushed off by new ones, or matches no more.
    const pushed = added;
    const left = [...shown.values()];
    for (const row of left.slice(0, Math.max(left.length - pushed, 0))) {
      row.classList.add("gone");
      row.title = "It does not match the filter any more";
    }
    const moved = form.dataset.first !== undefined ? added : 0;
    newer.hidden = !moved;
    newer.firstElementChild.textContent = `${moved} new, press`;
  };

  const apply = () => {
    if (!fresh) return;
    const now = fresh.getElementById("runs");
    const picked = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
    const focused = document.activeElement?.closest("tr[data-run]")?.dataset.run;
    const [old, table] = [form.querySelector("table"), now.querySelector("table")];
    if (!old || !table) {
      location.reload();
      return;
    }
    old.replaceWith(document.importNode(table, true));
    for (const box of boxes()) box.checked = picked.has(box.value);
    newer.hidden = true;
    count();
    if (focused) rowOf(focused)?.querySelector("a.run").focus();
    document.dispatchEvent(new CustomEvent("htmx:after:swap"));
  };

  const rowOf = (id) => rows(form).find((row) => row.dataset.run === id);

  const ask = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html", "hx-request": "true" }, cache: "no-store" });
      if (perdure.live.passes(response.status)) perdure.live.missed(form);
      if (response.ok && !response.redirected) {
        show(new DOMParser().parseFromString(await response.text(), "text/html"));
        document.dispatchEvent(new CustomEvent("perdure:times"));
      }
    } catch {
      perdure.live.missed(form);
    }
    asking = false;
    if (again) {
      again = false;
      setTimeout(ask, APART_MS);
    }
  };
  form.addEventListener("changed", ask);
  newer.addEventListener("click", apply);

  // --- picking ------------------------------------------------------------------------------------

  const count = () => {
    const picked = boxes().filter((box) => box.checked);
    for (const row of rows(form)) row.classList.toggle("picked", !!row.querySelector("input:checked"));
    const all = form.querySelector("[data-all]");
    if (all) {
      all.checked = picked.length > 0 && picked.length === boxes().length;
      all.indeterminate = picked.length > 0 && !all.checked;
    }
    const text = form.querySelector("[data-picked]");
    if (text) text.textContent = `${picked.length} selected`;
  };
  let lastBox = null;
  form.addEventListener("click", (event) => {
    const box = event.target;
    if (box.name !== "id") return;
    if (event.shiftKey && lastBox) {
      const all = boxes();
      const [from, to] = [all.indexOf(lastBox), all.indexOf(box)].sort((a, b) => a - b);
      for (const one of all.slice(from, to + 1)) one.checked = box.checked;
    }
    lastBox = box;
    count();
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("[data-all]")) for (const box of boxes()) box.checked = event.target.checked;
    count();
  });
  const clear = () => {
    for (const box of boxes()) box.checked = false;
    const all = form.querySelector('input[name="all"]');
    if (all) all.checked = false;
    count();
  };
  form.querySelector("[data-none]")?.addEventListener("click", clear);

  // --- keys ---------------------------------------------------------------------------------------

  const current = () => document.activeElement?.closest("tr[data-run]");
  const move = (by) => {
    const all = rows(form);
    if (!all.length) return false;
    const at = all.indexOf(current());
    const to = all[Math.min(Math.max(at + by, 0), all.length - 1)] || all[0];
    to.querySelector("a.run").focus();
    to.scrollIntoView({ block: "nearest" });
  };
  perdure.key("j", "Next run", () => move(1));
  perdure.key("k", "The run before", () => move(-1));
  perdure.key("Enter", "Open the run", () => false);
  perdure.key(" ", "Select the run", () => {
    const box = current()?.querySelector('input[name="id"]');
    if (!box || document.activeElement.matches("input, button, summary")) return false;
    box.checked = !box.checked;
    count();
  });
  perdure.key("x", "Act on the selected runs", () => {
    const button = boxes().some((box) => box.checked) && form.querySelector(".bulk button");
    if (!button) {
      perdure.toast("Select runs first: space");
      return;
    }
    button.focus();
  });
  perdure.key(".", "Show new runs", () => {
    if (fresh) apply();
    else ask().then(apply);
  });

  // --- filters ------------------------------------------------------------------------------------

  for (const select of document.querySelectorAll("[data-submit]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }

  // --- saved views --------------------------------------------------------------------------------

  const KEPT = "perdure-views";
  const VIEWS_MAX = 50;
  const kept = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KEPT) || "[]");
      return Array.isArray(found) ? found.filter((one) => typeof one?.name === "string" && typeof one?.query === "string") : [];
    } catch {
      return [];
    }
  };
  const keep = (views) => {
    try {
      localStorage.setItem(KEPT, JSON.stringify(views));
    } catch {
      perdure.toast("This browser keeps nothing for this page");
    }
    list();
  };
  const query = () => new URL(location.href).search;
  const list = () => {
    const box = document.querySelector("[data-views-list]");
    box.replaceChildren(...kept().map((view) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `${location.pathname}${view.query}`;
      link.textContent = view.name;
      if (view.query === query()) link.setAttribute("aria-current", "true");
      const drop = document.createElement("button");
      drop.type = "button";
      drop.className = "btn quiet";
      drop.textContent = "Forget";
      drop.setAttribute("aria-label", `Forget the view ${view.name}`);
      drop.addEventListener("click", (event) => {
        event.stopPropagation();
        keep(kept().filter((one) => one.name !== view.name));
      });
      item.append(link, drop);
      return item;
    }));
  };
  const save = document.querySelector("[data-views-save]");
  save.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = save.elements.name.value.trim();
    const others = kept().filter((one) => one.name !== name);
    keep([...others, { name, query: query() }].slice(-VIEWS_MAX));
    save.reset();
    perdure.toast(`Saved: ${name}`);
  });
  list();

  document.addEventListener("DOMContentLoaded", count);
})();
