"""The report as a person opens it: from a file, in a browser, without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import write_final, write_search

from sweep.report import write_report

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_every_figure_of_the_report_is_drawn_in_a_browser_from_the_file_alone(tmp_path: Path) -> None:
    write_search(tmp_path / "a", "resnet", 0)
    write_final(tmp_path / "a", "resnet", 0)
    report = write_report([tmp_path / "a"], tmp_path / "report.html", "a")
    command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    figures = page.count('class="js-plotly-plot"')
    assert figures >= 3
    assert page.count('class="main-svg"') >= figures, "plotly puts at least one drawing into each figure"
