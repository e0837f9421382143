// The SQL page: Ctrl+Enter runs the query.
"use strict";

document.querySelector("[data-sql]").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
});
perdure.key("Ctrl Enter", "Run the query", () => false);
