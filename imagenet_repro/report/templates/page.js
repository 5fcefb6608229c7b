// Headings of tables become buttons that sort. Cells such as "61.1 M", "[36.1, 40.4]" and "−2.0" sort as numbers.
// Long tables get their rows, and repeated pictures their content, when the element that holds them is opened.
"use strict";
const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };

function value(cell) {
  const text = cell.textContent.replace(/,(?=\d{3})/g, "").replace("−", "-");
  const match = text.match(/^\[?([+-]?[\d.]+)(?: ([kMGTPE]))?/);
  return match ? Number(match[1]) * (UNITS[match[2]] || 1) : null;
}

function compare(a, b, number) {
  return number ? value(a) - value(b) : a.textContent.localeCompare(b.textContent, "en");
}

function sort(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const number = heading.classList.contains("n");
  const missing = (row) => number && value(row.cells[column]) === null; // stays last
  const rows = [...table.tBodies[0].rows].sort(
    (a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a.cells[column], b.cells[column], number)),
  );
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  if (table.tBodies[0].rows.length < 2) return;
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading));
    heading.append(button);
  }
}

// Rows of a CSV as RFC 4180 defines it, with line feeds alone.
function parse(text) {
  const rows = [];
  let row = [];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)/g)) {
    row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === "\n") {
      rows.push(row);
      row = [];
    }
  }
  return rows;
}

function fillTable(details) {
  const table = details.querySelector("table");
  const headings = [...table.tHead.rows[0].cells];
  const bytes = Uint8Array.from(atob(details.querySelector("a[download]").href.split(",")[1]), (c) => c.charCodeAt(0));
  for (const cells of parse(new TextDecoder().decode(bytes)).slice(1)) {
    const row = table.tBodies[0].insertRow();
    cells.forEach((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (!column) cell.scope = "row";
      if (headings[column].className) cell.className = headings[column].className;
      cell.textContent = text;
      row.append(cell);
    });
  }
  makeSortable(table);
}

function fillPictures(details) {
  for (const image of details.querySelectorAll("img[data-picture]:not([src])")) {
    image.src = document.querySelector(`img[data-picture="${image.dataset.picture}"][src]`).src;
  }
}

for (const details of document.querySelectorAll("details")) {
  const fill = details.hasAttribute("data-on-demand") ? fillTable : fillPictures;
  details.addEventListener("toggle", () => fill(details), { once: true });
}
for (const table of document.querySelectorAll("table")) makeSortable(table);

// A frame that is wider than the window says that it scrolls, and fades out where it goes on.
function markCut(frame) {
  const beyond = frame.scrollWidth - frame.clientWidth;
  frame.classList.toggle("more", beyond > 1 && frame.scrollLeft < beyond - 1);
  const below = frame.nextElementSibling;
  const hint = below && below.classList.contains("hint") ? below : null;
  if (beyond > 1 && !hint) {
    const line = document.createElement("p");
    line.className = "hint";
    line.textContent = "\u2194 scroll sideways for the rest";
    frame.after(line);
  } else if (beyond <= 1 && hint) hint.remove();
}

const frames = new ResizeObserver((entries) => entries.forEach((entry) => markCut(entry.target)));
for (const frame of document.querySelectorAll(".scroll")) {
  frames.observe(frame);
  frame.addEventListener("scroll", () => markCut(frame), { passive: true });
}
