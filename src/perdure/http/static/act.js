// Forms and the inbox: nothing that somebody types in is taken away by an update.
"use strict";

(() => {
  let typed = false;
  document.addEventListener("input", (event) => {
    if (event.target.closest("form.answer")) typed = true;
  });

  // A list that changed is drawn anew, unless somebody is at work in it.
  document.addEventListener("changed", (event) => {
    const list = event.target.closest?.("[data-refresh]");
    if (!list) return;
    const busy = typed || list.contains(document.activeElement) || list.querySelector("details[open]");
    if (busy) offer(list);
    else htmx.trigger(list, "refresh");
  }, true);

  const offer = (list) => {
    if (list.previousElementSibling?.matches("[data-newer]")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn newer";
    button.dataset.newer = "";
    button.textContent = "Something changed. Load it";
    button.addEventListener("click", () => location.reload());
    list.before(button);
  };

  // What is shown beside a form needs no secret: none is sent for it.
  document.addEventListener("htmx:config:request", (event) => {
    const { sourceElement, request } = event.detail.ctx;
    if (sourceElement.id !== "code") return;
    for (const field of document.querySelectorAll("#start input[type=password]")) {
      if (field.value) request.body.set(field.name, "•••");
    }
  });

  // A variant of a union is drawn as soon as it is chosen.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("select[data-redraw]")) return;
    event.target.closest(".row").querySelector('button[name="do"]').click();
  });
})();
