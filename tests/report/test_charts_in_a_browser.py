"""Tests of the page of a comparison in headless Chromium: it draws its charts, clicks work, and nothing is fetched."""

import json
import re
import shutil
import subprocess

import pytest

from imagenet_repro.report import comparison_report
from imagenet_repro.report.plots import charts
from tests.report import comparisons

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
# What a reader would do, after which the findings stand in the page.
READER = """
<script>
(async () => {
  const problems = [];
  window.addEventListener("error", (event) => problems.push(String(event.message)));
  window.addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
  document.addEventListener("securitypolicyviolation", (event) => problems.push(event.blockedURI));
  const found = { problems };
  for (const chart of charts) await chart.draw();
  found.marks = charts.map((chart) => chart.panels.querySelectorAll(".mark-group path, .mark-text text").length);
  found.panels = charts.map((chart) => chart.drawn.length);
  const curves = charts[0];
  found.choices = [...curves.select.options].map((option) => option.text);
  curves.draw(); // not awaited: the next choice replaces it
  curves.select.selectedIndex = 2;
  await curves.draw();
  found.redrawn = curves.panels.children.length;
  found.title = curves.panels.textContent.includes(found.choices[2]);
  const family = document.querySelector(".legend .family");
  family.click();
  found.family = JSON.parse(family.dataset.systems);
  const withLegends = charts.filter((chart) => chart.content.legend.length);
  found.isolated = withLegends.map((chart) => chart.drawn[0].view.signal("isolated"));
  const faint = [...curves.frame.querySelectorAll(".legend .system.faint")].map((button) => button.textContent);
  found.faint = faint;
  family.click();
  found.all = curves.drawn[0].view.signal("isolated");
  const system = curves.content.legend[1].name;
  curves.act({ system });
  const run = document.querySelector("details[data-system][open]");
  found.run = run.dataset.system === system;
  const pareto = charts.find((chart) => chart.content.click === "system");
  const point = pareto.panels.querySelector(".mark-symbol path");
  point.dispatchEvent(new MouseEvent("click", { bubbles: true, clientX: 1, clientY: 1 }));
  pareto.act({ system });
  found.picked = document.querySelector("#what_differs .picked").textContent;
  const confusions = charts.find((chart) => chart.content.click === "images");
  const cell = confusions.content.datasets.cells.find((one) => one.examples.length);
  confusions.act(cell);
  found.images = [...confusions.frame.querySelectorAll(".shown li")].map((item) => [
    item.querySelector("code").textContent, item.querySelector("img") !== null,
  ]);
  found.examples = cell.examples.map((image) => image.id);
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  found.wide = [...document.querySelectorAll(".scroll")].filter(
    (frame) => !frame.closest("details:not([open])") && frame.scrollWidth > frame.clientWidth + 1
      && !(frame.nextElementSibling && frame.nextElementSibling.matches(".hint")),
  ).map((frame) => frame.getAttribute("aria-label"));
  found.page = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const resources = performance.getEntriesByType("resource").map((one) => one.name);
  found.fetched = resources.filter((name) => !name.startsWith("data:"));
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = JSON.stringify(found);
  document.body.append(outcome);
})();
</script>
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a page of systems, two of them of one family, with thumbnails."""
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "write", lambda *_: [])
        comparison = comparisons.comparison(4, class_names=tuple(f"class {k}" for k in range(10)))
        page = comparison_report.present(comparison, folder, lambda ids: dict.fromkeys(ids, b"\xff\xd8jpeg"))
    text = page.read_text(encoding="utf-8")
    watched = folder / "watched.html"
    before, _, after = text.rpartition("</body>")  # the libraries have others
    watched.write_text(f"{before}{READER}</body>{after}", encoding="utf-8")
    return watched


def open_page(path, width, folder):
    """Return what a reader found in a window of this width, and the messages in Chromium's console."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}", "--no-first-run", "--virtual-time-budget=20000",
            f"--window-size={width},1000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-3000:]
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")), messages


@pytest.mark.parametrize("width", [1280, 500])  # Chromium has no narrower windows
def test_charts_are_drawn_and_clicks_work(path, tmp_path, width):
    found, messages = open_page(path, width, tmp_path)
    assert found["problems"] == []
    assert not [line for line in messages if re.search(r"error|refused|uncaught|warn", line, re.I)]
    assert found["fetched"] == []
    assert all(marks > 3 for marks in found["marks"])
    assert found["panels"][:2] == [3, 2]
    assert found["choices"][2] == "seconds of training"
    assert found["title"]
    assert found["redrawn"] == 3
    assert found["family"] == ["nec_uiuc_2010", "xrce_2011"]
    assert all(one == found["family"] for one in found["isolated"])
    assert found["faint"] == ["alexnet_2012", "zfnet"]
    assert found["all"] is None
    assert found["run"]
    assert found["picked"] == "xrce_2011"
    assert found["images"] == [[id, True] for id in found["examples"]]
    assert found["wide"] == []
    assert found["page"] <= 0
