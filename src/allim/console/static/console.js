// What pages cannot do by themselves: times in the viewer's zone, light and dark, keys, questions
// before an action, and regions that rest while nobody looks.
"use strict";

const two = (number) => String(number).padStart(2, "0");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

// A moment in the viewer's zone; `between` stands between its day and its time.
const local = (at, between) =>
  `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}${between}` +
  `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;

function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const at = new Date(element.dateTime);
    if (isNaN(at)) continue;
    element.textContent = local(at, " ");
    element.title = `${element.dateTime} (${zone})`;
    element.dataset.shown = "";
  }
}

function toggleTheme() {
  const html = document.documentElement;
  const dark = html.dataset.theme
    ? html.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  html.dataset.theme = dark ? "light" : "dark";
  const path = document.body.dataset.cookiePath;
  document.cookie =
    `allim_theme=${html.dataset.theme}; path=${path}; max-age=31536000; samesite=lax`;
}

function ask(question) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("#confirm-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const question = form.dataset.confirm;
  if (!question || form.dataset.confirmed !== undefined) return;
  event.preventDefault();
  if (!(await ask(question))) return;
  form.dataset.confirmed = "";
  form.requestSubmit(event.submitter);
  delete form.dataset.confirmed;
});

// A time is typed in the viewer's zone and sent as the moment that it is.
function fillMoments() {
  for (const input of document.querySelectorAll("input[data-moment]")) {
    const at = new Date(input.nextElementSibling.value);
    if (isNaN(at)) continue;
    input.value = local(at, "T");
  }
}

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.matches("input[data-moment]")) {
    const at = new Date(input.value);
    input.nextElementSibling.value = isNaN(at) ? "" : at.toISOString();
  }
  if (input.matches("[data-period]")) {
    input.form.querySelector(".exact").hidden = input.value !== "exact";
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-theme-toggle]")) toggleTheme();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.querySelector("[data-search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
});

// Live regions rest while the page is hidden, and while somebody has opened, chosen or marked
// something within them. A click alone, which only moves the focus, holds nothing up.
function isBusy(region) {
  const marked = getSelection();
  return document.hidden || region.querySelector("details[open], :focus-visible") ||
    (!marked.isCollapsed && marked.getRangeAt(0).intersectsNode(region));
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-live]") && isBusy(event.target)) event.preventDefault();
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const region = event.detail.target;
  if (!region.matches("[data-live]")) return;
  if (isBusy(region)) event.detail.shouldSwap = false;
  region.scrolled = [...region.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
});

// When the server last answered: what stands on the page is as old as that.
let answered = new Date();
document.addEventListener("htmx:afterRequest", (event) => {
  const stale = document.getElementById("stale");
  if (event.detail.successful) answered = new Date();
  stale.querySelector("time").textContent = answered.toTimeString().slice(0, 8);
  stale.hidden = event.detail.successful;
});

document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.verb !== "get") {
    event.detail.headers["X-CSRF-Token"] = document.body.dataset.csrf;
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  const tables = event.target.querySelectorAll(".scroll");
  tables.forEach((table, n) => { table.scrollLeft = event.target.scrolled?.[n] ?? 0; });
  showTimes(event.target);
});
showTimes(document);
fillMoments();
