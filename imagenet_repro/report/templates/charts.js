// Draws the charts of the page when they come into sight, with the Vega libraries above and nothing from elsewhere.
"use strict";
// Colours of the specifications that follow the theme of the page; all others are the same in every theme.
const THEME = new Map([
  ["#000000", "var(--text)"], ["#ffffff", "var(--card)"], ["#666666", "var(--soft)"], ["#e6e6e6", "var(--line)"],
]);
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const charts = [];
let isolated = null; // names of the systems that stand out in all charts; null: all do

class PageChart {
  constructor(frame) {
    this.frame = frame;
    this.content = JSON.parse(frame.parentElement.querySelector("script[data-chart]").textContent);
    this.drawn = [];
    this.turn = 0;
    this.isDue = true;
    this.panels = document.createElement("div");
    this.panels.className = "panels";
    if (this.content.views.length > 1) frame.append(this.chooser());
    if (this.content.legend.length > 1) frame.append(this.legend());
    this.heading = document.createElement("div");
    frame.append(this.heading, this.panels);
  }

  chooser() {
    const label = document.createElement("label");
    label.className = "choice";
    label.textContent = "Horizontal axis ";
    this.select = document.createElement("select");
    for (const view of this.content.views) this.select.add(new Option(view.label));
    this.select.addEventListener("change", () => this.draw());
    label.append(this.select);
    return label;
  }

  legend() {
    const list = document.createElement("div");
    list.className = "legend";
    const families = Map.groupBy
      ? Map.groupBy(this.content.legend, (entry) => entry.family)
      : this.content.legend.reduce((map, entry) => map.set(entry.family, [...(map.get(entry.family) || []), entry]), new Map());
    for (const [family, entries] of families) {
      const group = document.createElement("span");
      if (family && entries.length > 1 && families.size > 1) {
        group.append(isolator(`${family}:`, entries.map((entry) => entry.name), "family"));
      }
      for (const entry of entries) {
        const button = isolator(entry.name, [entry.name], "system");
        button.prepend(swatch(entry));
        group.append(button);
      }
      list.append(group);
    }
    return list;
  }

  async draw() {
    this.isDue = false;
    const turn = ++this.turn; // another choice of the axis ends this drawing
    const { specification } = this.content.views[this.select ? this.select.selectedIndex : 0];
    const { concat, columns, title, ...shared } = specification;
    this.drawn.forEach((one) => one.finalize());
    this.drawn = [];
    this.panels.replaceChildren();
    this.panels.style.setProperty("--columns", Math.min(columns, concat.length));
    if (title && title.text && title.subtitle) this.heading.replaceChildren(headline(title.text));
    for (const panel of concat) {
      if (turn === this.turn) await this.drawPanel(panel, shared);
    }
    this.frame.classList.add("drawn");
  }

  async drawPanel(panel, shared) {
    const [cell, scroller, place] = Array.from({ length: 3 }, () => document.createElement("div"));
    scroller.className = "scroll";
    scroller.tabIndex = 0;
    scroller.append(place);
    cell.append(scroller);
    this.panels.append(cell);
    const specification = { ...themed(shared), ...themed(this.content.legend.length ? withoutLegends(panel) : panel) };
    specification.datasets = {};
    for (const name of dataNames(specification)) {
      specification.datasets[name] = this.content.datasets[name].map((row) => ({ ...row }));
    }
    specification.background = "transparent";
    specification.config.font = FONT;
    if (typeof panel.width === "number") {
      specification.width = "container";
      place.style.minWidth = `${this.content.narrowest}px`;
      place.className = "fluid";
    }
    const one = await vegaEmbed(place, specification, {
      actions: false,
      logLevel: 1, // errors only
      renderer: "svg",
      tooltip: { offsetX: 14 },
    });
    this.drawn.push(one);
    one.view.addEventListener("click", (_, item) => item && item.datum && this.act(item.datum));
    if (isolated) await one.view.signal("isolated", isolated).runAsync();
    frames.observe(scroller);
    scroller.addEventListener("scroll", () => markCut(scroller), { passive: true });
    markCut(scroller);
  }

  act(datum) {
    const { click } = this.content;
    if (click === "run" && datum.system) showRun(datum.system);
    if (click === "system" && datum.system) showDifferences([datum.system]);
    if (click === "pair" && datum.row) showDifferences([datum.row, datum.column]);
    if (click === "images" && datum.examples) this.showImages(datum);
  }

  // The images behind a mark, with their thumbnails where the page has them.
  showImages(datum) {
    const list = document.createElement("ul");
    list.className = "examples";
    for (const { id, label, guess } of datum.examples) {
      const item = document.createElement("li");
      const picture = document.querySelector(`img[data-id="${CSS.escape(id)}"][src]`);
      if (picture) item.append(Object.assign(document.createElement("img"), { src: picture.src, alt: id }));
      const text = document.createElement("div");
      text.append(
        Object.assign(document.createElement("strong"), { textContent: label }),
        Object.assign(document.createElement("div"), { textContent: `guessed as ${guess}` }),
        Object.assign(document.createElement("code"), { textContent: id }),
      );
      item.append(text);
      list.append(item);
    }
    const title = headline(datum.title);
    this.shown ??= this.frame.appendChild(Object.assign(document.createElement("div"), { className: "shown" }));
    this.shown.setAttribute("aria-live", "polite");
    this.shown.replaceChildren(title, list);
    this.shown.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

function themed(part) {
  return JSON.parse(JSON.stringify(part), (_, value) => THEME.get(value) ?? value);
}

function withoutLegends(panel) {
  return JSON.parse(JSON.stringify(panel), (key, value) => (key === "legend" ? null : value));
}

function dataNames(part, names = new Set()) {
  if (part && typeof part === "object") {
    if (part.data && part.data.name) names.add(part.data.name);
    for (const value of Object.values(part)) dataNames(value, names);
  }
  return names;
}

function headline(text) {
  return Object.assign(document.createElement("p"), {
    className: "headline",
    textContent: Array.isArray(text) ? text.join(" ") : text,
  });
}

// A button of a legend. The first click shows some systems alone in all charts, the second one all again.
function isolator(text, names, kind) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = kind;
  button.dataset.systems = JSON.stringify(names);
  button.setAttribute("aria-pressed", "false");
  button.append(Object.assign(document.createElement("span"), { textContent: text }));
  button.addEventListener("click", () => isolate(isSame(names, isolated) ? null : names));
  return button;
}

function isSame(names, others) {
  return others !== null && JSON.stringify(names) === JSON.stringify(others);
}

function isolate(names) {
  isolated = names;
  for (const chart of charts) {
    if (!chart.content.legend.length) continue;
    for (const one of chart.drawn) one.view.signal("isolated", names).runAsync();
    for (const button of chart.frame.querySelectorAll(".legend button")) {
      const own = JSON.parse(button.dataset.systems);
      button.setAttribute("aria-pressed", String(isSame(own, isolated)));
      button.classList.toggle("faint", names !== null && !own.some((name) => names.includes(name)));
    }
  }
}

const SHAPES = { circle: "M8 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", square: "M8.5 2.5h7v7h-7z", "triangle-up": "M12 1.5l4.5 8h-9z" };

function swatch({ colour, dash, shape }) {
  const image = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  image.setAttribute("viewBox", "0 0 24 12");
  image.setAttribute("aria-hidden", "true");
  const themed = THEME.get(colour) ?? colour;
  for (const [d, stroke, fill] of [["M0 6H24", themed, "none"], [SHAPES[shape], "none", themed]]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d);
    path.style.cssText = `stroke:${stroke};fill:${fill};stroke-width:2`;
    if (stroke !== "none" && dash[1]) path.style.strokeDasharray = dash.join(" ");
    image.append(path);
  }
  return image;
}

function showRun(system) {
  const details = document.querySelector(`details[data-system="${CSS.escape(system)}"]`);
  if (!details) return;
  details.open = true;
  details.scrollIntoView({ block: "start" });
  details.querySelector("summary").focus({ preventScroll: true });
}

// Marks the columns of some systems in the table of what differs; where there is none, opens the first one's run.
function showDifferences(systems) {
  const table = document.querySelector("#what_differs table");
  if (!table) return showRun(systems[0]);
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const columns = systems.map((name) => headings.indexOf(name)).filter((column) => column > 0);
  for (const row of table.rows) {
    [...row.cells].forEach((cell, column) => cell.classList.toggle("picked", columns.includes(column)));
  }
  const details = table.closest("details");
  if (details) details.open = true;
  document.getElementById("what_differs").scrollIntoView({ block: "start" });
  const first = columns.length && table.tHead.rows[0].cells[columns[0]];
  if (first) table.closest(".scroll").scrollLeft = first.offsetLeft - table.closest(".scroll").clientWidth / 2;
}

for (const frame of document.querySelectorAll(".chart")) charts.push(new PageChart(frame));
const inSight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      const chart = charts.find((one) => one.frame === target);
      if (isIntersecting && chart.isDue) chart.draw();
    }
  },
  { rootMargin: "400px" },
);
for (const { frame } of charts) inSight.observe(frame);
// Charts fit their place whenever the window changes; a scroll bar that appears changes the place without the window.
let width = document.body.clientWidth;
new ResizeObserver(() => {
  if (width === document.body.clientWidth) return;
  width = document.body.clientWidth;
  window.dispatchEvent(new Event("resize"));
}).observe(document.body);
window.addEventListener("beforeprint", () => charts.forEach((chart) => chart.isDue && chart.draw()));
