"""The report as a person opens it: from a file, in a browser, without a network, on a desk and on a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sweep.report.page import write_report
from tests.sweep.report.test_report import study
from tests.sweep.report.test_report_search import manifestation, proposed, sweep

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
)
WIDTHS = (1280, 390)
# Run in the report, once all is drawn: what a person would see, as numbers.
PROBE = """
addEventListener("load", () => setTimeout(() => {
  const all = (query, of = document) => [...of.querySelectorAll(query)];
  const box = (one) => one.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const shown = all(".js-plotly-plot");
  const own = all("main *").filter((one) => !one.closest(".scroll, pre, svg, .js-plotly-plot"));
  const cut = own.filter((one) => box(one).right > width + 1);
  const texts = (plot) => all("text", plot).filter((one) => one.textContent.trim() && box(one).width);
  const clipped = shown.flatMap((plot) => texts(plot).filter((one) => {
    const [inner, outer] = [box(one), box(plot)];
    return inner.left < outer.left - 2 || inner.right > outer.right + 2 || inner.bottom > outer.bottom + 2;
  }).map((one) => plot.id + ": " + one.textContent));
  const ticks = (plot) => ["x", "y"].flatMap((axis) => {
    const boxes = all(`.${axis}tick text`, plot).map(box);
    return boxes.filter((a, place) => boxes.slice(place + 1).some((b) =>
      a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
  });
  const content = all("p, li, dt, dd, td, th, pre, figcaption, summary, h1, h2, h3, .js-plotly-plot").map(box)
    .filter((one) => one.height).sort((a, b) => a.top - b.top);
  let [below, gap] = [0, 0];
  for (const one of content) { gap = Math.max(gap, one.top - below); below = Math.max(below, one.bottom); }
  const panels = all(".panels").map((grid) => new Set([...grid.children].map((one) => box(one).left)).size);
  const table = all("#search table").find((one) => one.tBodies[0].rows.length > 2);
  const column = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent === "GFLOP");
  const head = table.tHead.rows[0].cells[column];
  const sorted = () => {
    head.firstElementChild.focus();
    head.firstElementChild.click();
    return [head.getAttribute("aria-sort"), ...[...table.tBodies[0].rows].map((row) => row.cells[column].textContent)];
  };
  parent.postMessage(JSON.stringify({
    width, plots: shown.length, drawings: all(".main-svg").length, cut: cut.map((one) => one.outerHTML.slice(0, 80)),
    clipped, overlapping: shown.filter((plot) => ticks(plot).length).map((plot) => plot.id), gap, panels,
    sorts: [sorted(), sorted()], focused: document.activeElement === head.firstElementChild,
  }), "*");
}, 1500));
"""
FRAMES = """<!DOCTYPE html><body>%s<script>
const told = [];
addEventListener("message", (event) => {
  told.push(JSON.parse(event.data));
  document.body.dataset.told = JSON.stringify(told);
});
</script>"""


def written(root: Path) -> Path:
    """A report of a study with all its parts, and of a sweep on other data, which had several objectives."""
    directories = study(root, [0.05, 0.02], draws=2)
    values = [{"accuracy": 0.5 + 0.1 * n, "gflops": 0.01 * (n + 1), "robustness": 0.4} for n in range(4)]
    changes: dict[str, Any] = {"per_class": 50, "epochs": 2}
    rows = [
        proposed(n, objectives=one, objective=one["accuracy"], gflops=2.0 + n, **changes)
        for n, one in enumerate(values)
    ]
    found = [manifestation(0, steps, 0.5, steps / 100) for steps in (2, 4)]
    other = sweep(root / "b", rows, {"sampler": "random"}, {0: 2, 1: 2}, found)
    return write_report([*directories, other], root / "report.html", "a")


def seen(report: Path) -> dict[int, dict[str, Any]]:
    """Open a report in one browser at both widths, and return what the probe saw by width."""
    probed = report.with_name("probed.html")
    probed.write_text(report.read_text("utf-8").replace("</body>", f"<script>{PROBE}</script></body>"), "utf-8")
    frames = [f'<iframe src="{probed.as_uri()}" width="{width}" height="844"></iframe>' for width in WIDTHS]
    page = report.with_name("frames.html")
    page.write_text(FRAMES % "".join(frames))
    command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={report.parent / 'profile'}", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    told = re.search(r'data-told="([^"]*)"', dom)
    assert told is not None, "no frame said what it saw"
    return {one["width"]: one for one in json.loads(html.unescape(told[1]))}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_report_is_whole_in_a_browser_from_the_file_alone_on_a_desk_and_on_a_phone(tmp_path: Path) -> None:
    report = written(tmp_path)
    found = seen(report)
    assert set(found) <= {width - scrollbar for width in WIDTHS for scrollbar in range(20)}
    assert len(found) == len(WIDTHS)
    figures = report.read_text(encoding="utf-8").count("data-figure=")
    for width, one in found.items():
        assert one["plots"] == figures >= 20, width
        assert one["drawings"] >= figures, "plotly puts at least one drawing into each figure"
        assert (one["cut"], one["clipped"], one["overlapping"]) == ([], [], []), width
        assert one["gap"] < 120, "a white place"
        assert one["sorts"] == [["ascending", *["12"] * 4, "14"], ["descending", "14", *["12"] * 4]]
        assert one["focused"]
    desk, phone = found[max(found)], found[min(found)]
    assert set(phone["panels"]) == {1}, "panels stand below each other"
    assert max(desk["panels"]) >= 3
