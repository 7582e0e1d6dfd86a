"use strict";
// Sorting, filtering and hover; without it the page still shows everything.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function number(text) {
  return parseFloat(text.replaceAll(",", ""));
}

function sortBy(table, heading, button) {
  const column = heading.cellIndex;
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const numeric = heading.classList.contains("number");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => {
    const text = row.cells[column].textContent;
    return { row, key: numeric ? number(text) : text };
  });
  const missing = ({ key }) => key === "" || Number.isNaN(key);
  rows.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b); // what is missing stays at the end
    const order = numeric ? a.key - b.key : collator.compare(a.key, b.key);
    return ascending ? order : -order;
  });
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  body.append(...rows.map(({ row }) => row));
  button.focus();
}

function addFilter(box, lines, title) {
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter";
  input.setAttribute("aria-label", `Filter rows of: ${title}`);
  const count = document.createElement("output");
  const texts = lines.map((line) => line.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    lines.forEach((line, index) => {
      line.hidden = !words.every((word) => texts[index].includes(word));
      shown += !line.hidden;
    });
    count.textContent = words.length ? `${shown} of ${lines.length}` : "";
  });
  label.append(input, count);
  box.before(label);
}

for (const part of document.querySelectorAll(".table")) {
  const table = part.querySelector("table");
  for (const heading of table.tHead.rows[0].cells) {
    if (heading.classList.contains("markup")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading, button));
  }
  const rows = [...table.tBodies[0].rows];
  if (rows.length > 4) addFilter(part.querySelector(".scroll"), rows, part.dataset.title);
}
for (const part of document.querySelectorAll(".appendix")) {
  addFilter(part, [...part.children], part.dataset.title);
}

// A link into something closed opens it.
function reveal() {
  let target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  target.hidden = false;
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// Everything but the appendix goes to paper.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("main details:not([open])")].filter((part) => !part.closest("#cells, .cells, td"));
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
});

// A tooltip at once, and for a finger too, in place of the browser's own.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll("svg title")) {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}
function point(event) {
  const mark = event.target.closest?.("[data-tip]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const { innerWidth, scrollX, scrollY } = window;
  tip.style.left = `${scrollX + Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 16))}px`;
  tip.style.top = `${scrollY + event.clientY - tip.offsetHeight - 10}px`;
}
addEventListener("pointermove", point);
addEventListener("pointerdown", point);
