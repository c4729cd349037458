"""The report as a person opens it: from a file, in a browser, without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sweep.report.page import write_report
from tests.sweep.report.test_report import write_final, write_search
from tests.sweep.report.test_report_search import manifestation, proposed, sweep

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_every_figure_of_the_report_is_drawn_in_a_browser_from_the_file_alone(tmp_path: Path) -> None:
    write_search(tmp_path / "a", "resnet", 0)
    write_final(tmp_path / "a", "resnet", 0)
    values = [{"accuracy": 0.5 + 0.1 * n, "gflops": 0.01 * (n + 1), "robustness": 0.4} for n in range(4)]
    rows = [proposed(n, objectives=one, objective=one["accuracy"], epochs=2) for n, one in enumerate(values)]
    sweep(
        tmp_path / "b", rows, {"sampler": "random"}, {0: 2, 1: 2}, [manifestation(0, s, 0.5, s / 100) for s in (2, 4)]
    )
    report = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report.html", "a")
    command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    figures = page.count('class="js-plotly-plot"')
    assert figures == report.read_text(encoding="utf-8").count("data-figure=") >= 10
    assert page.count('class="main-svg"') >= figures, "plotly puts at least one drawing into each figure"
