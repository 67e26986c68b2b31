"use strict";
// Without this file every page works; with it, pages have keys, copy buttons, and renew themselves.

const rows = () => [...document.querySelectorAll("[data-row]")];
const isTyping = (target) => target instanceof Element && target.closest("input, select, textarea, dialog");
let current = -1;

function choose(step) {
  const all = rows();
  if (!all.length) return;
  current = Math.min(Math.max(current + step, 0), all.length - 1);
  all.forEach((row, index) => row.classList.toggle("current", index === current));
  all[current].scrollIntoView({ block: "nearest" });
}

function open() {
  const link = rows()[current]?.querySelector("a");
  if (link) link.click();
}

const keys = {
  "/": () => document.querySelector("[data-search]")?.focus(),
  "j": () => choose(1),
  "k": () => choose(-1),
  "Enter": open,
  "g": () => location.assign("/"),
  "?": () => document.getElementById("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (event.key === "Enter" && (current < 0 || event.target.closest("a, button"))) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.copy) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } else if (button && "help" in button.dataset) {
    keys["?"]();
  }
});

// The page is fetched again and its main part replaced, unless somebody is in the middle of something there.
async function renew() {
  const main = document.getElementById("main");
  const isBusy = main.contains(document.activeElement) && document.activeElement !== main;
  if (document.hidden || isBusy || document.querySelector("dialog[open]")) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.body.dataset.refresh = page.body.dataset.refresh;
    if (current >= 0) choose(0);
  } catch {
    document.body.dataset.refresh = "10"; // the dashboard is away: it is asked again
  }
}

(async () => {
  for (;;) {
    const seconds = Number(document.body.dataset.refresh);
    await new Promise((resolve) => setTimeout(resolve, (seconds || 3600) * 1000));
    if (seconds) await renew();
  }
})();
