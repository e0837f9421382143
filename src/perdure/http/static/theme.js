// Before the first paint: the colours that this browser was last asked for.
try {
  const theme = localStorage.getItem("perdure-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; the system's choice stays.
}
document.documentElement.classList.add("js");
