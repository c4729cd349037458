"""The report is read back from its HTML: tables by their cells, figures by their JSON, sentences by their words."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from odenet.training.config import ExperimentConfig
from search_spaces import SPACES
from sweep.console import short_names
from sweep.errors import InputError
from sweep.records.best import Best, write_best
from sweep.records.outcome import Outcome
from sweep.records.predictions import Predictions, write_predictions
from sweep.records.rows import CurveRow, EvaluationRow, Phase, TrialRow
from sweep.records.tables import read_rows, write_rows
from sweep.report.elements import log_axis, panel
from sweep.report.figures import COLOURS, colours
from sweep.report.hyperparameters.parameters import explained
from sweep.report.page import write_report
from sweep.report.statistics import average_ranks

SEEDS = (100, 101)
SPACE = {"entries": [{"key": "optim.lr", "parameter": {"kind": "float", "low": 0.001, "high": 0.3}}]}
ENDINGS = {2: (Outcome.pruned, "stopped at epoch 2", 0.9), 4: (Outcome.diverged, "loss is nan at iteration 7", None)}


def trial(family, draw, number, **changes):
    outcome, reason, objective = ENDINGS.get(number, (Outcome.done, "", 0.5 + 0.01 * number))
    row = TrialRow(
        sweep=f"study/{family}-d{draw}", family=family, phase=Phase.search, number=number, trial_id=f"t{number}",
        candidate=number, outcome=outcome, reason=reason, objective=objective, epochs=3, gflops=2.0, seconds=1.5,
        parameters={"optim.lr": 10.0 ** (number - 4), "model.scheme": ("euler", "rk4")[number % 2]},
        rate_evaluations=960, model_parameters=175770, dataset="digits", per_class=20, draw=draw, seed=1,
        config_hash="c0ffee", data_hash=f"data{draw}",
    )  # fmt: skip
    return replace(row, **changes)


def curve(number, value, epochs=3):
    return [
        CurveRow(
            number=number, epoch=epoch, train_loss=1.0 / epoch, val_loss=value, val_accuracy=value, objective=value,
            cost_train_gflops=1.0, cost_seconds=1.0, cost_rate_evaluations=320, depth_steps=4, depth_nodes=4,
        )
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip


def evaluation(family, draw, seed, value, **changes):
    row = EvaluationRow(
        family=family, dataset="digits", per_class=20, draw=draw, seed=seed, scheme="euler", steps=4, condition="clean",
        severity=0.0, split="test", metric="accuracy", value=value, n=360, trained_scheme="euler", trained_steps=4,
        config_hash="f1na1", data_hash=f"data{draw}",
    )  # fmt: skip
    return replace(row, **changes)


def write_search(directory, family, draw, trials=6):
    rows = [trial(family, draw, number) for number in range(trials)]
    write_rows(directory / "trials.csv", TrialRow, rows)
    write_rows(directory / "curves.csv", CurveRow, [c for row in rows for c in curve(row.number, 0.4)])
    known = {"trial": 5, "space": SPACE, "git_commit": "abc123", "versions": {"torch": "2.13.0"}}
    write_best(directory / "best.yaml", Best(ExperimentConfig(), known))


def write_final(directory, family, draw, failed_seed=None):
    confirm = [
        trial(
            family, draw, 2 * i + j, phase=Phase.confirm, candidate=c, outcome=Outcome.done, objective=value + 0.01 * j
        )
        for i, (c, value) in enumerate(((5, 0.50), (3, 0.60)))
        for j in range(2)
    ]
    final = [
        trial(
            family,
            draw,
            4 + i,
            phase=Phase.final,
            candidate=3,
            seed=seed,
            outcome=Outcome.done,
            objective=None,
            config_hash="f1na1",
        )
        for i, seed in enumerate(SEEDS)
    ]
    final = [replace(r, outcome=Outcome.diverged, reason="nan") if r.seed == failed_seed else r for r in final]
    write_rows(directory / "final/trials.csv", TrialRow, [*confirm, *final])
    write_rows(directory / "final/curves.csv", CurveRow, [c for r in [*confirm, *final] for c in curve(r.number, 0.5)])
    write_best(directory / "final/crowned.yaml", Best(ExperimentConfig(), {"trial": 3, "git_commit": "abc123"}))


def write_evaluation(directory, family, draw, accuracies, other=-0.04):
    """Clean test accuracy, and a table of two manifestations on fewer images, where all is 0.02 lower."""
    rows = []
    for seed, value in zip(SEEDS, accuracies, strict=True):
        if value is None:
            continue
        part = {"condition": "manifestation", "n": 100 if family == "resnet" else 360}  # 360: all of the test set
        for scored in ({}, {"metric": "loss"}):
            low = 1.7 if scored else value
            rows.append(evaluation(family, draw, seed, low, **scored))
            rows.append(evaluation(family, draw, seed, low - 0.02, **part, **scored))
            rows.append(evaluation(family, draw, seed, low - 0.02 + other, scheme="rk4", steps=8, **part, **scored))
    write_rows(directory / "rows.csv", EvaluationRow, rows)


def write_said(directory, accuracies, images=360, shift=0):
    """Predictions that have the first images right, from the `shift`-th on, and rows.csv of just that accuracy."""
    places = np.arange(images)
    hits_RN = np.array([(places - shift) % images < round(images * value) for value in accuracies])
    labels_N = places % 10
    write_predictions(
        directory / "predictions.npz",
        Predictions(labels_N, places, np.where(hits_RN, labels_N, (labels_N + 1) % 10), np.array(SEEDS)),
    )


def study(root, gain, draws=3, families=("resnet", "continuous")):
    """`gain`: by draw, the accuracy that every family after the first is ahead."""
    directories = []
    for draw in range(draws):
        for family in families:
            directory = root / f"{re.sub('[^a-z]', '_', family)}-d{draw}"
            ahead = 0.0 if family == families[0] else gain[draw]
            write_search(directory, family, draw)
            write_final(directory, family, draw)
            accuracies = [0.80 + 0.01 * draw + 0.002 * seed + ahead for seed in range(len(SEEDS))]
            write_evaluation(directory, family, draw, accuracies)
            directories.append(directory)
    return directories


class Page(HTMLParser):
    """Cells, figures, sentences and links of a report, by section."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tables, self.figures, self.text, self.loads, self.links = {}, {}, {}, [], []
        self.keys, self.panels, self.alternatives = {}, {}, {}  # legends as (mark, text), and titles, by figure
        self._section, self._open, self._figure = "head", [], None
        self.feed(self.html)
        for name, drawn in re.findall(r'<figure data-panels="([^"]+)">(.*?)</figure>', self.html, re.DOTALL):
            self.panels[name] = re.findall(r'<div class="panel"><p>(.*?)</p>', drawn)
            self.keys[name] = re.findall(r'data-mark="(\w+)">.*?(?:</svg>|</span>)(.*?)</li>', drawn)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "section":
            self._section = given["id"]
        if tag in ("script", "link", "img", "iframe") and (given.get("src") or given.get("href")):
            self.loads.append(given)
        if tag == "a":
            self.links.append(given["href"])
        if tag == "table":
            self.tables.setdefault(self._section, []).append([])
        if tag == "tr":
            self.tables[self._section][-1].append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        if given.get("role") == "img":
            self.alternatives[given["id"]] = given["aria-label"]
        self._figure = given.get("data-figure") if tag == "script" else None
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._figure = None
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._figure:
            self.figures[self._figure] = json.loads(data)
        elif "td" in self._open or "th" in self._open:
            self.tables[self._section][-1][-1][-1] += data
        elif not {"script", "style"} & set(self._open):
            self.text[self._section] = self.text.get(self._section, "") + data

    def row(self, section, first, table=0):
        """One row of a table as a dictionary by column title."""
        head, *body = self.tables[section][table]
        return next(dict(zip(head, cells, strict=True)) for cells in body if cells[0] == first)


def report(tmp_path, directories, title="a study"):
    return Page(write_report(directories, tmp_path / "report.html", title))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A complete study in which continuous is clearly ahead in every draw."""
    root = tmp_path_factory.mktemp("runs")
    return report(root, study(root, gain=[0.05, 0.06, 0.07]))


def test_every_section_is_there_in_order_and_in_the_table_of_contents(page):
    titles = [
        "summary", "terms", "families", "differences", "manifestations", "configurations", "search", "slices",
        "importances", "parallel", "best-so-far", "curves", "pareto", "failures", "files",
    ]  # fmt: skip
    assert re.findall(r'<section id="([^"]+)"', page.html) == titles
    assert [link for link in page.links if link.startswith("#")] == [f"#{title}" for title in titles[1:]]


def test_nothing_is_loaded_from_outside_and_the_browser_is_told_so(page):
    assert page.loads == []
    assert "default-src 'none'" in page.html
    assert all("://" not in link for link in page.links)
    assert page.html.count("plotly.js v") == 1


def test_trials_are_counted_by_outcome_with_what_they_cost(page):
    text = page.text["search"]
    assert "6 sweeps: resnet and continuous on digits, 20 images per class (3 draws: 0, 1, 2)" in text
    assert "36 trials (24 done, 6 pruned and 6 diverged) at a cost of 72 GFLOP and 54 seconds" in text
    assert "final training 12 runs (12 done)" in text
    row = page.row("search", "resnet")
    assert (row["trials"], row["done"], row["pruned"], row["diverged"]) == ("18", "12", "3", "3")


def test_the_answer_stands_above_everything_verdict_figure_and_a_sentence_each(page):
    above, _, rest = page.html.partition("<nav ")
    assert above.index("Pilot, no verdict on continuous against resnet") < above.index('data-figure="differences-0"')
    titles = re.findall(r"<dt>(.*?)</dt>", above)
    assert titles == ["Accuracy", "Robustness to manifestation", "Cost ratio"]
    assert 'data-figure="differences-0"' not in rest
    mean = page.figures["differences-0"]["data"][1]
    assert (mean["x"], mean["error_x"]["array"][0] > 0) == ([pytest.approx(6)], True)
    text = page.text["summary"]
    assert (
        "the test accuracy of continuous changes by −4.0 points on average (95 % interval −4.0 to −4.0; 6 networks), "
        "at worst by −4.0 (rk4, 2× the steps); that of resnet, the control, by −4.0 points" in text
    )
    assert "continuous takes 1.00 times the parameters (175,770 against 175,770)" in text
    assert "(means over 6 and 6 final trainings)" in text


def test_a_single_sweep_says_its_result_with_seeds_and_interval_and_its_whole_configuration(tmp_path):
    directories = study(tmp_path, [0.0], draws=1)
    text = report(tmp_path, directories[:1]).text["summary"]
    assert "resnet reaches 80.1 % test accuracy on digits, 20 images per class: mean over 2 final seeds" in text
    assert "(95 % interval 78.8 to 81.4)" in text  # 80.1 ± t(1) 12.71 * 0.141 / √2
    assert "Search trial 3 was crowned" in text
    assert (
        "validation accuracy of 60.5 %: mean over 2 confirm seeds, sd 0.7. In the search it had 53.0 %, of one" in text
    )
    assert "A final network has 175,770 parameters and took 2 GFLOP of training" in text
    assert re.search(r"Crowned configuration \(search trial 3\).*model.scheme\s*rk4.*optim.lr\s*0.1", text, re.DOTALL)


def test_wherever_something_is_called_best_its_phase_or_its_seeds_are_said(page):
    columns = {name for tables in page.tables.values() for head, *_ in tables for name in head if "best" in name}
    assert columns == {"val best search trial", "best objective, 1 seed", "best objective there, 1 seed"}
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page.html)
    told = [one for one in captions if re.search(r"\bbest (search )?(objective|trial)", one)]
    assert [one for one in told if not re.search(r"one seed|best of many|search objective", one)] == []


def test_accuracy_is_drawn_against_parameters_flops_and_rate_evaluations(page):
    titles = [page.figures[f"costs-0-{n}"]["layout"]["xaxis"]["title"]["text"] for n in range(3)]
    assert titles == ["parameters", "GFLOP of training", "rate evaluations"]
    networks, mean = page.figures["costs-0-2"]["data"][:2]
    low, high = page.figures["costs-0-2"]["layout"]["yaxis"]["range"]
    bar = mean["error_y"]
    assert low < mean["y"][0] - bar["arrayminus"][0] and mean["y"][0] + bar["array"][0] < high  # no bar is cut off
    assert networks["x"] == [960] * 6
    assert networks["y"] == pytest.approx([80, 80.2, 81, 81.2, 82, 82.2])
    assert (mean["x"], mean["y"]) == ([960], [pytest.approx(81.1)])


def test_every_figure_says_in_words_what_it_shows_and_every_table_can_be_sorted_by_keyboard(page):
    assert page.alternatives.keys() == page.figures.keys()
    assert min(map(len, page.alternatives.values())) > 20
    assert "continuous: +6.0 points" in page.alternatives["differences-0"]
    heads = re.findall(r"<thead>.*?</thead>", page.html)
    assert len(heads) == sum(map(len, page.tables.values()))
    cells = [cell for head in heads for cell in re.findall(r"<th .*?</th>", head)]
    wanted = r'<th scope="col" aria-sort="none"( class="words")?><button type="button"'
    assert [cell for cell in cells if not re.match(wanted, cell)] == []


def test_what_holds_for_the_whole_page_is_said_once(page):
    words = " ".join(page.text.values()) + " ".join(page.alternatives.values())
    assert words.count("20 images per class") == 1
    assert "study/resnet" not in re.sub("sweep (ui|final) study/resnet", "", words)
    captions = [one for one in re.findall(r"<figcaption>(.*?)</figcaption>", page.html) if "retrained" not in one]
    assert len(set(captions)) == len(captions)


def contrast(colour):
    """Of a colour on white (WCAG 2.2, relative luminance)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)


def test_a_family_has_one_colour_in_all_reports_and_shares_it_with_no_other_of_a_report():
    assert {name: contrast(colour) for name, colour in COLOURS.items() if contrast(colour) < 3} == {}
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert COLOURS.keys() >= SPACES.keys()
    assert colours(["resnet"])["resnet"] == colours(["continuous", "mine", "resnet"])["resnet"] == COLOURS["resnet"]
    assert colours(["mine", "resnet"])["mine"] == colours(["mine", "yours"])["mine"]
    many = colours([*COLOURS, "mine"][5:] + [f"mine{n}" for n in range(4)])
    assert len(set(many.values())) == len(many)


def test_names_are_shortened_only_where_they_stay_apart_and_ticks_are_plain():
    short = short_names(["optim.lr", "model.steps", "data.steps", "bare"])
    assert list(short.values()) == ["lr", "model.steps", "data.steps", "bare"]
    assert log_axis([0.002, 0.03])["ticktext"] == ["0.002", "0.005", "0.01", "0.02"]
    assert log_axis([1e-5, 1e3])["ticktext"] == ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10", "100", "1,000"]


def test_the_table_of_families_states_mean_spread_interval_and_cost(page):
    row = page.row("families", "resnet")
    assert (row["draws"], row["n runs"], row["test accuracy"]) == ("3", "6", "81.1")
    assert (row["sd runs"], row["sd draws"]) == ("0.9", "1.0")  # of .80 .802 .81 .812 .82 .822; of .801 .811 .821
    assert (row["val confirmed"], row["val best search trial"]) == ("60.5 ± 0.0", "55.0 ± 0.0")
    assert (row["parameters"], row["rate evaluations"], row["GFLOP"]) == ("175,770", "960", "2")
    assert row["95 % interval"] == "78.6 to 83.6"  # 81.1 ± t(2) 4.303 * 1 / √3


def test_every_final_run_is_a_dot(page):
    dots = [y for trace in page.figures["runs-0"]["data"] if "error_y" not in trace for y in trace["y"]]
    expected = [80.0, 80.2, 81.0, 81.2, 82.0, 82.2, 85.0, 85.2, 87.0, 87.2, 89.0, 89.2]
    assert sorted(dots) == pytest.approx(expected)


def test_a_clear_difference_of_three_draws_is_a_pilot_without_a_verdict(page):
    row = page.row("differences", "continuous")
    assert (row["pairs"], row["Δ"], row["P(> resnet)"], row["verdict"]) == ("6", "+6.0", "1.00", "pilot: no verdict")
    assert row["Δ interval"] == "+3.5 to +8.5"  # 6 ± t(2) 4.303 * 1 / √3
    assert (row["SE draws"], row["SE images"], row["df"]) == ("0.58", "–", "2.0")
    assert row["p"] == row["p Holm"] == "0.00913"  # two-sided t(2) of 10.39: 1 - 10.39 / √(2 + 10.39²)
    assert row["p sign-flip"] == "0.25"
    text = page.text["differences"]
    assert "The smallest sign-flip p that 3 draws can give is 0.25, adjusted over 1 family 0.25: so it cannot" in text
    text = page.text["summary"]
    assert "Pilot, no verdict on continuous against resnet: test accuracy differs by +6.0 points (95 % inter" in text
    assert "Student's t over 3 draws has 2.0 degrees of freedom, so that its interval covers but is wide" in text
    assert (
        "leave out the error of the test images and are too narrow by it: predictions.npz is missing in every" in text
    )


CASES = {
    "undecided": ([0.03, -0.03, 0.01, 0.02, -0.02], ["Inconclusive: the data do not decide between continuous and"]),
    "equivalent": (
        [0.001, -0.001, 0.002, 0.0, -0.002],
        ["continuous is equivalent to resnet, within 1 point: test accuracy differs by 0.0 points"],
    ),
    "better": ([0.05, 0.06, 0.07, 0.04, 0.05], ["continuous is better than resnet: test accuracy differs by +5.4"]),
    "worse": ([-0.05, -0.06, -0.07, -0.05, -0.06], ["continuous is worse than resnet: "]),
    "small": ([0.004, 0.005, 0.006, 0.005, 0.004], ["continuous is better than resnet, within 1 point: "]),
    "four draws": ([0.05, 0.06, 0.07, 0.04], ["Pilot, no verdict on continuous against resnet: ", "at least 5 draws"]),
    "one draw": (
        [0.05],
        [
            "Pilot, no verdict on continuous against resnet (seeds, conditional on this training set): ",
            "One training set: the estimand is the mean over seeds, conditional on this training set",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_conclusion_says_what_the_rules_allow(tmp_path, case):
    gain, sentences = CASES[case]
    text = report(tmp_path, study(tmp_path, gain, draws=len(gain))).text["summary"]
    assert [sentence for sentence in sentences if sentence not in text] == []
    assert ("no verdict" in text) is (len(gain) < 5)


def test_best_so_far_takes_done_trials_only_and_failures_use_up_budget(page):
    thick = next(t for t in page.figures["best-0-0"]["data"] if t["name"] == "resnet")
    assert thick["x"] == [1, 2, 3, 4, 5, 6]
    assert thick["y"] == pytest.approx([50, 51, 51, 53, 53, 55])
    cost = next(t for t in page.figures["best-0-1"]["data"] if t["name"] == "resnet")
    assert cost["x"] == [2, 4, 6, 8, 10, 12]


def test_learning_curves_mark_pruned_and_failed_trials(page):
    traces = {t["name"]: t for t in page.figures["search-curves-0-0"]["data"]}
    ends = {name: sum(n > 0 for n in t["marker"]["size"]) for name, t in traces.items() if "marker" in t}
    assert ends == {"done": 12, "pruned": 3, "failed": 3}
    assert traces["done"]["mode"] == "lines"
    assert (traces["pruned"]["marker"]["symbol"], traces["failed"]["marker"]["symbol"]) == ("circle", "x")
    band, median = (traces[f"done, {name}"] for name in ("middle half", "median"))
    assert (median["x"], median["y"]) == ([1, 2, 3], pytest.approx([40, 40, 40]))
    assert (band["fill"], len(band["x"])) == ("toself", 6)
    assert traces["done"]["opacity"] < 0.5 < median.get("opacity", 1)
    assert "of the trials that ended done (n over all draws: resnet 12, continuous 12)" in page.text["curves"]
    final = page.figures["final-curves-0-1"]["data"]
    assert final[0]["y"][:3] == pytest.approx([1, 1 / 2, 1 / 3])  # training loss


def test_importances_state_n_and_warn_of_few_trials(page):
    bars = page.figures["importances-0-0"]["data"][0]
    assert sorted(bars["y"]) == ["lr (n = 18)", "scheme (n = 18)"]
    assert "Under 20 trials this is noise: resnet 18 trials, continuous 18 trials" in page.text["importances"]


def test_parallel_coordinates_count_failures_as_chance_and_take_logarithms(page):
    panel = page.figures["parallel-0-0"]
    assert [trace["line"]["color"] for trace in panel["data"]] == ["#C8C8C8", "#9ECAE1", "#4292C6", "#084594"]
    axes = 3
    lines = [trace["x"][at : at + axes] for trace in panel["data"] for at in range(0, len(trace["x"]), axes + 1)]
    assert len(lines) == 18
    # scheme, lr (ten to the -4 to 1) and objective (10 to 90 %), each from 0 to 1
    assert lines.count(pytest.approx([0, 0.8, 0])) == 3, "a failure stands at chance"
    assert lines.count(pytest.approx([0, 0.4, 1])) == 3
    texts = [note["text"] for note in panel["layout"]["annotations"]]
    assert texts == [
        "<b>scheme</b>", "euler", "rk4", "<b>lr</b>", "0.0001", "10", "<b>objective, %</b>", "10", "90",
    ]  # fmt: skip


def test_manifestations_are_compared_on_the_same_images(page):
    for family in (0, 1):
        panel = page.figures[f"manifestations-0-{family}"]
        heat = panel["data"][0]
        assert (heat["x"], heat["y"]) == (["1×", "2×"], ["euler", "rk4"])
        assert heat["z"] == [[pytest.approx(0), None], [None, pytest.approx(-4)]]
        assert heat["text"] == [["0.0<br>±0.0, n=6", ""], ["", "−4.0<br>±0.0, n=6"]]
        assert (heat["zmin"], heat["zmax"]) == (pytest.approx(-4), pytest.approx(4)), "one scale for all"
        assert [shape["y0"] for shape in panel["layout"]["shapes"]] == [-0.5]  # the trained cell


def test_every_final_network_has_a_verdict_on_its_validity_and_the_control_failed(page):
    assert page.row("manifestations", "continuous")["ODE"] == "0 of 6"
    assert page.row("manifestations", "continuous")["largest drop"] == "4.0"
    assert len(page.tables["manifestations"][1]) == 1 + 12
    assert "The control (resnet, batch norm as stored) failed in 6 of 6 networks" in page.text["manifestations"]


def test_crowned_configurations_stand_first_with_a_column_per_parameter_and_the_others_are_folded(page):
    crowned, others = page.tables["configurations"][:2]
    assert crowned[0] == ["draw", "trial", "confirmed ± sd (seeds)", "search, 1 seed", "scheme", "lr"]
    assert crowned[1] == ["0", "3", "60.5 ± 0.7 (2)", "53.0", "rk4", "0.1"]
    assert [row[:2] for row in crowned[1:]] == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert others[1][:3] == ["0", "5", "50.5 ± 0.7 (2)"]
    assert "Crowned configurations of resnet. Parameters: model: scheme; optim: lr." in page.text["configurations"]
    assert "<details><summary>The other 3 candidates of resnet</summary>" in page.html
    assert "low: 0.001" in page.text["configurations"]


def test_every_failure_has_its_reason(page):
    _, *rows = page.tables["failures"][0]
    assert len(rows) == 6
    assert all(row[2:] == ["search", "4", "3", "diverged", "loss is nan at iteration 7"] for row in rows)


def test_files_are_linked_relative_to_the_report_with_hashes_and_commands(page):
    assert {"resnet-d0", "resnet-d0/trials.csv", "continuous-d2/rows.csv"} <= set(page.links)
    row = page.row("files", "resnet-d1", table=1)
    assert (row["data hash"], row["config hash of the final networks"], row["git commit"]) == (
        "data1",
        "f1na1",
        "abc123",
    )
    assert page.row("files", "torch", table=2)["version"] == "2.13.0"
    assert "sweep ui study/resnet-d0" in page.text["files"]


def test_a_report_elsewhere_still_leads_to_the_files(tmp_path):
    directories = study(tmp_path / "runs", [0.0], draws=1)
    write_report(directories, tmp_path / "reports" / "deep" / "report.html", "elsewhere")
    found = Page(tmp_path / "reports" / "deep" / "report.html")
    assert "../../runs/resnet-d0/trials.csv" in found.links
    assert str(tmp_path) not in found.html


def test_what_an_interrupted_sweep_lacks_is_said_and_the_rest_is_shown(tmp_path):
    write_search(tmp_path / "only", "resnet", 0)
    (tmp_path / "only" / "best.yaml").unlink()
    found = report(tmp_path, [tmp_path / "only"])
    text = found.text["summary"]
    assert "rows.csv is missing in every sweep (`sweep evaluate` writes it)" in text
    assert "best.yaml is missing in every sweep (`sweep search` writes it)" in text
    assert "Nothing was retrained yet" in found.text["search"]
    assert "resnet on digits, 20 images per class is neither confirmed nor tested yet" in text
    assert "validation accuracy of 55.0 %: one seed, chosen as the best of 4 trials, so too high" in text
    assert "differences" not in found.text
    assert found.row("families", "resnet")["test accuracy"] == "–"
    assert "best-0-0" in found.figures
    assert "runs-0" not in found.figures


def test_a_failed_final_run_counts_as_chance_and_is_told(tmp_path):
    directories = study(tmp_path, [0.05], draws=1)
    write_final(directories[1], "continuous", 0, failed_seed=SEEDS[1])
    write_evaluation(directories[1], "continuous", 0, [0.85, None])
    found = report(tmp_path, directories)
    assert found.row("families", "continuous")["test accuracy"] == "47.5"  # mean of 85 and 10
    assert "count as chance accuracy and are not dropped: 1 of continuous" in found.text["summary"]
    assert found.row("differences", "continuous")["pairs"] == "2"


def test_a_final_run_lost_with_its_worker_is_not_scored_and_told(tmp_path):
    directories = study(tmp_path, [0.05], draws=1)
    rows = read_rows(directories[1] / "final/trials.csv", TrialRow)
    lost = [replace(r, outcome=Outcome.node_lost) if r.seed == SEEDS[1] else r for r in rows]
    write_rows(directories[1] / "final/trials.csv", TrialRow, lost)
    write_evaluation(directories[1], "continuous", 0, [0.85, None])
    found = report(tmp_path, directories)
    assert found.row("families", "continuous")["test accuracy"] == "85.0"
    assert found.row("differences", "continuous")["pairs"] == "1"
    text = found.text["summary"]
    assert "lost with their worker or node say nothing about a network and are not scored: 1 of continuous" in text
    assert "count as chance" not in text


def write_hopeless(directory, outcome):
    """A search of which no trial is done, and nothing after it."""
    rows = [trial("continuous", 2, number, outcome=outcome, objective=None, reason="x") for number in range(4)]
    for name in ("final/trials.csv", "final/crowned.yaml", "final/curves.csv", "rows.csv", "best.yaml"):
        (directory / name).unlink()
    write_rows(directory / "trials.csv", TrialRow, rows)


@pytest.mark.parametrize(
    ("outcome", "accuracy", "pairs"),
    [(Outcome.diverged, "60.4", "6"), (Outcome.worker_lost, "85.6", "4"), (Outcome.interrupted, "85.6", "4")],
)
def test_a_draw_whose_search_has_no_done_trial_counts_as_final_runs_at_chance(tmp_path, outcome, accuracy, pairs):
    """The mean of 85.1 and 86.1 would rise by leaving out a draw of failures; what was only lost or cut short is
    left out."""
    directories = study(tmp_path, [0.05, 0.05, 0.05])
    write_hopeless(directories[-1], outcome)
    found = report(tmp_path, directories)
    assert found.row("families", "continuous")["test accuracy"] == accuracy  # (85.1 + 86.1 + 10) / 3
    assert found.row("differences", "continuous")["pairs"] == pairs
    told = "No trial of study/continuous-d2 ended done: every final run of that draw counts so"
    assert (told in found.text["summary"]) is (outcome is Outcome.diverged)


def test_the_error_of_the_test_images_enters_the_interval_where_predictions_are_kept(tmp_path):
    """Runs of a family have the same images right: 288, and 302 of which 274 are the same."""
    directories = []
    for draw in range(5):
        for family, accuracy, shift in (("resnet", 288 / 360, 0), ("continuous", 302 / 360, 14)):
            directory = tmp_path / f"{family}-d{draw}"
            write_search(directory, family, draw)
            write_final(directory, family, draw)
            write_evaluation(directory, family, draw, [accuracy, accuracy])
            write_said(directory, [accuracy, accuracy], shift=shift)
            directories.append(directory)
    found = report(tmp_path, directories)
    row = found.row("differences", "continuous")
    differences_N = np.array([1] * 28 + [-1] * 14 + [0] * 318)  # won from 288 to 316, lost below 14
    error = 100 * differences_N.std(ddof=1) / 360**0.5
    assert (row["Δ"], row["SE draws"], row["SE images"]) == ("+3.9", "0.00", f"{error:.2f}")
    assert row["df"] == "359.0", "all error is that of the images"
    half = 1.9666 * error  # t(0.975, 359)
    assert row["Δ interval"] == f"+{3.889 - half:.1f} to +{3.889 + half:.1f}"
    assert float(row["p"]) == pytest.approx(0.0301, rel=0.01)  # normal, of 3.889 / error
    assert "leave out the error of the test images" not in found.text["summary"]
    assert float(found.row("families", "resnet")["95 % interval"][:4]) == pytest.approx(75.8, abs=0.11)
    assert "continuous-d0/predictions.npz" in found.links


def test_predictions_of_other_networks_than_those_of_rows_are_refused(tmp_path):
    directories = study(tmp_path, [0.0], draws=1)
    write_said(directories[0], [0.8, 0.7])
    with pytest.raises(InputError, match=r"seed 101 has 70.0% of the images right, and rows.csv .* says 80.2%"):
        report(tmp_path, directories)


def test_predictions_on_different_test_images_say_nothing_of_a_common_error(tmp_path):
    directories = study(tmp_path, [0.0], draws=1)
    for directory, images in zip(directories, (360, 370), strict=True):
        write_said(directory, [0.8, 0.802], images)
    found = report(tmp_path, directories)
    assert "leave out" not in found.text["summary"], "those of one family were tested on the same"
    assert found.row("differences", "continuous")["SE images"] == "–"


def test_draws_that_share_images_are_told_with_the_test_that_is_used(tmp_path):
    """Five draws of 50 of 116 images cannot be disjoint."""
    directories = study(tmp_path, [0.03, 0.02, 0.04, 0.03, 0.02], draws=5)
    for directory in directories:
        for name, kind in (("trials.csv", TrialRow), ("final/trials.csv", TrialRow), ("rows.csv", EvaluationRow)):
            rows = read_rows(directory / name, kind)
            write_rows(directory / name, kind, [replace(row, per_class=50) for row in rows])
    found = report(tmp_path, directories)
    assert "Draws are not disjoint: two of them share 30.4 % of their images on average" in found.text["summary"]
    assert (
        "corrected resampled t (Nadeau and Bengio 2003; its rule is from memory, unverified)" in found.text["summary"]
    )
    error = 0.837 / 5**0.5 * (1 + 5 * 0.304 / 0.696) ** 0.5  # sd of 3, 2, 4, 3, 2
    assert float(found.row("differences", "continuous")["SE draws"]) == pytest.approx(error, rel=0.02)


def test_over_several_sizes_contrasts_are_taken_within_draws(tmp_path):
    """Ahead by 5, 6, 7 points with 20 images per class, by 1, 0, 2 with 40."""
    small, large = study(tmp_path / "a", [0.05, 0.06, 0.07]), study(tmp_path / "b", [0.01, 0.0, 0.02])
    for directory in large:
        for name, kind in (("trials.csv", TrialRow), ("final/trials.csv", TrialRow), ("rows.csv", EvaluationRow)):
            rows = read_rows(directory / name, kind)
            write_rows(directory / name, kind, [replace(row, per_class=40) for row in rows])
    found = report(tmp_path, [*small, *large])
    _, mean, ends = next(table for table in found.tables["differences"] if "contrast" in table[0])
    assert mean[:5] == ["continuous", "mean over sizes", "3", "+3.5", "+1.3 to +5.7"]  # 3, 3, 4.5: 3.5 ± 4.303 * 0.5
    assert ends[1:5] == ["smallest minus largest", "3", "+5.0", "+2.5 to +7.5"]  # 4, 6, 5: 5 ± 4.303 * 0.577
    aggregated = next(table for table in found.tables["differences"] if "IQM" in table[0])
    scores = {row[0]: dict(zip(aggregated[0], row, strict=True)) for row in aggregated[1:]}
    assert scores["continuous"]["optimality gap"] < scores["resnet"]["optimality gap"]
    assert scores["continuous"]["P(> resnet)"].startswith("0.83")  # of all pairs 1 and 24 / 36
    mixed = next(table for table in found.tables["differences"] if "sd family × draw" in table[0])
    assert mixed[1][:2] == ["continuous", "+3.5"]
    assert "It knows nothing of the test images" in found.text["differences"]


def test_all_images_on_every_draw_are_one_training_set_and_no_verdict(tmp_path):
    directories = study(tmp_path, [0.05, 0.06, 0.07, 0.05, 0.06], draws=5)
    for directory in directories:
        for name, kind in (("trials.csv", TrialRow), ("final/trials.csv", TrialRow), ("rows.csv", EvaluationRow)):
            rows = read_rows(directory / name, kind)
            write_rows(directory / name, kind, [replace(row, per_class=None) for row in rows])
    found = report(tmp_path, directories)
    assert found.row("differences", "continuous")["verdict"] == "pilot: no verdict"
    assert "conditional on this training set" in found.text["summary"]
    assert "All draws have the same training images" in found.text["summary"]


def test_unequal_budgets_unfinished_trials_and_empty_sweeps_are_told(tmp_path):
    directories = study(tmp_path, [0.0], draws=1)
    rows = [trial("resnet", 0, 0), trial("resnet", 0, 1, outcome=Outcome.interrupted, reason="Ctrl-C", objective=None)]
    write_rows(directories[0] / "trials.csv", TrialRow, rows)
    write_rows(tmp_path / "young" / "trials.csv", TrialRow, [])
    text = report(tmp_path, [*directories, tmp_path / "young"]).text["summary"]
    assert "Not on equal terms: the number of search trials per draw differs between families" in text
    assert "1 trial had not ended (1 interrupted); no statistic counts them" in text
    assert "no trial of theirs has ended: young" in text


def test_names_are_text_and_never_markup(tmp_path):
    names = ("<b>", "</script><script>alert(1)</script>")
    found = report(tmp_path, study(tmp_path, [0.01], draws=1, families=names), title="<i>& co\x1b[2J\u202e")
    body = found.html.partition("<body>")[2]
    assert not set("\x1b\u202e") & set(found.html)
    assert "co\\x1b[2J\\u202e" in body
    assert "<b>" not in body
    assert "alert(1)</script>" not in body
    assert found.row("families", "<b>")["draws"] == "1"
    named = {trace["name"] for trace in found.figures["best-0-0"]["data"]}
    assert {"&lt;b&gt;", "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"} <= named
    assert "resnet is not among the families: </script><script>alert(1)</script>, the first" in found.text["summary"]


def test_no_text_in_a_figure_can_end_its_script_element():
    made = panel(go.Figure(layout={"title": {"text": "</script>&"}}), "")
    assert not set("<>&") & set(made.json)
    assert json.loads(made.json)["layout"]["title"]["text"] == "</script>&"


def test_data_sizes_are_kept_apart_the_smallest_first(tmp_path):
    for per_class in (100, 20, None):
        rows = [trial("resnet", 0, n, per_class=per_class, objective=0.4 + n / 100) for n in range(3)]
        write_rows(tmp_path / str(per_class) / "trials.csv", TrialRow, rows)
    found = report(tmp_path, [tmp_path / name for name in ("None", "100", "20")])
    told = re.findall(r"resnet on digits, ([^:]+?) is neither confirmed", found.text["summary"])
    assert told == ["20 images per class", "100 images per class", "all images"]
    assert len(found.tables["families"]) == 3


def foreign(root):
    (root / "x").mkdir()
    (root / "x" / "notes.txt").write_text("not a sweep")
    return [root / "x"]


def unborn(root):
    write_rows(root / "x" / "trials.csv", TrialRow, [])
    return [root / "x"]


def twice(root):
    for name in ("x", "y"):
        write_search(root / name, "resnet", 0)
    return [root / "x", root / "y"]


def mixed(root):
    write_rows(root / "x" / "trials.csv", TrialRow, [trial("resnet", 0, 0), trial("resnet", 1, 1)])
    return [root / "x"]


def unknown_data(root):
    write_rows(root / "x" / "trials.csv", TrialRow, [trial("resnet", 0, 0, dataset="imagenet")])
    return [root / "x"]


def headless(root):
    write_search(root / "x", "resnet", 0)
    write_best(root / "x" / "best.yaml", Best(ExperimentConfig(), {"trial": "five"}))
    return [root / "x"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: [], "no sweeps: name at least one run directory"),
        (lambda root: [root / "absent"], "absent holds no sweep: trials.csv, curves.csv, best.yaml, .* are missing"),
        (foreign, "holds no sweep: trials.csv, .* needs at least trials.csv, which `sweep search` writes"),
        (unborn, "No trial has ended yet in .*x: wait for the first one"),
        (
            twice,
            "both hold family resnet on digits, 20 images per class, draw 0.*counted twice. Write a report of each",
        ),
        (mixed, "mixes what a sweep keeps apart: .*draw 0 .*draw 1 .*One directory holds one"),
        (unknown_data, "dataset 'imagenet' is unknown here; this version knows digits, cifar10"),
        (headless, "provenance.trial='five': must be the number of the trial"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_nothing_is_written(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        write_report(make(tmp_path), tmp_path / "report.html", "none")
    assert not (tmp_path / "report.html").exists()


def test_ties_share_their_mean_rank():
    assert average_ranks([0.3, 0.1, 0.3, 0.2]).tolist() == [3.5, 1, 3.5, 2]


def test_explained_variance_is_one_for_a_perfect_fit_and_about_zero_for_noise():
    x = np.arange(40.0)
    design = np.stack([np.ones(40), x, x**2], axis=1)
    assert explained(design, (x - 17) ** 2) == pytest.approx(1)
    noise = [explained(design, np.random.default_rng(seed).permutation(x)) for seed in range(40)]
    assert np.mean(noise) < 0.05
