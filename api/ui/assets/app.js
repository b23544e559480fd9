// What pages do beyond HTML and htmx: theme, keyboard, live badge, drawers. Everything works without it, only less comfortably.

// A switch between light and dark, remembered in this browser.
document.addEventListener("click", (e) => {
  if (!e.target.closest("[data-theme-switch]")) return;
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    !document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches;
  const next = dark ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});

// Keys: an element with data-key is focused or clicked by that key, outside of fields.
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea, [contenteditable]")) return;
  if (e.key === "j" || e.key === "k") {
    const rows = [...document.querySelectorAll("tbody a.name")];
    const at = rows.indexOf(document.activeElement);
    const next = rows[Math.min(Math.max(at + (e.key === "j" ? 1 : -1), 0), rows.length - 1)];
    next?.focus();
    return;
  }
  if (e.key === "?") {
    document.getElementById("help")?.showModal();
    return;
  }
  const found = document.querySelector(`[data-key="${CSS.escape(e.key)}"]`);
  if (!found) return;
  e.preventDefault();
  if (found.matches("input, select, textarea")) found.focus();
  else found.click();
});

// The live badge says whether the stream is there.
const badge = (on) => {
  const el = document.getElementById("live");
  if (!el) return;
  el.toggleAttribute("data-on", on);
  const text = el.querySelector("[data-yes]");
  text.textContent = on ? text.dataset.yes : text.dataset.no;
};
document.addEventListener("htmx:sse:after:connection", () => badge(true));
document.addEventListener("htmx:sse:error", () => badge(false));
document.addEventListener("htmx:sse:close", () => badge(false));

// Another page closes what was open on this one: a dialog whose attribute is merely taken away would still block the page.
document.addEventListener("htmx:before:swap", (e) => {
  if (e.detail.ctx.target !== document.body) return;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
});
// What was loaded into a dialog opens it; Escape and the close button are the browser's own.
document.addEventListener("htmx:after:swap", (e) => {
  const dialog = e.detail.ctx.target;
  if (dialog?.matches?.("dialog") && dialog.childElementCount && !dialog.open) dialog.showModal();
});
document.addEventListener("click", (e) => {
  const close = e.target.closest("[data-close]");
  if (close?.closest("dialog")) {
    e.preventDefault();
    close.closest("dialog").close();
  }
  if (e.target.matches("dialog[open]")) e.target.close(); // the backdrop
  for (const menu of document.querySelectorAll("details.actions[open], details.who[open]")) {
    if (!menu.contains(e.target)) menu.open = false;
  }
});

// A choice with data-go leads to another page; one with data-ask asks first, and falls back when the answer is no.
document.addEventListener("change", (e) => {
  const go = e.target.dataset.go;
  if (go) {
    const name = document.getElementById("f-name")?.value;
    location.assign(name ? `${go}&name=${encodeURIComponent(name)}` : go);
  }
  const ask = e.target.dataset.ask;
  if (ask && !confirm(ask)) e.target.closest("form").reset();
});
