"""What the report says of networks that were made smaller without data, and of what networks are numerically."""

from sweep.records.rows import EvaluationRow
from sweep.records.tables import read_rows, write_rows
from sweep.report.paper import write_figures
from tests.sweep.report.test_report import SEEDS, evaluation, report, study


def smaller(family, seed, way, factor, accuracy):
    """The rows of a network that was made smaller in one way."""
    condition, n = f"compression/{way}", 100
    values = {
        "accuracy": accuracy,
        "loss": 1.0,
        "parameters": 1000 / factor,
        "rate_evaluations": 12 / factor,
        "latency_ms": 0.5,
    }
    values |= {"latency_sd": 0.1, "latency_batch": 32.0, "kilobytes": 4.0, "nodes": 4 / factor, "gflops": 0.01}
    return [
        evaluation(family, 0, seed, value, condition=condition, severity=float(factor), metric=metric, n=n)
        for metric, value in values.items()
    ]


def test_networks_made_smaller_are_told_by_family_and_way_against_themselves_with_the_control(tmp_path):
    directories = study(tmp_path, gain=[0.05], draws=1)
    for directory, family, loss in zip(directories, ("resnet", "continuous"), (0.3, 0.02), strict=True):
        rows = read_rows(directory / "rows.csv", EvaluationRow)
        for seed, accuracy in zip(SEEDS, (0.80, 0.84), strict=True):
            rows += smaller(family, seed, "trained", 1, accuracy)
            rows += smaller(family, seed, "both", 2, accuracy - loss - 0.02 * (seed == SEEDS[0]))
            diagnosed = {"lipschitz_median": 3.0 + seed, "steps": 2, "parameters": 100}
            rows += [evaluation(family, 0, seed, v, condition="diagnostics", metric=k) for k, v in diagnosed.items()]
        write_rows(directory / "rows.csv", EvaluationRow, rows)
    page = report(tmp_path, directories)
    (table,) = page.tables["compression"]
    found = [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]
    assert [(one["family"], one["made smaller"], one["times"], one["networks"]) for one in found] == [
        ("resnet", "trained", "1", "2"), ("resnet", "both", "2", "2"),
        ("continuous", "trained", "1", "2"), ("continuous", "both", "2", "2"),
    ]  # fmt: skip
    assert (found[3]["accuracy"], found[3]["change ± SE"], found[3]["parameters"]) == ("79.0", "−3.0 ± 1.0", "500")
    assert (found[0]["ms an image"], found[0]["sd of passes"], found[0]["kB"]) == ("0.5", "0.1", "4")
    assert (
        "resnet with its blocks averaged in twos and as many fewer steps changes by −31.0 points (standard error 1.0"
        in (page.text["compression"])
    )
    assert len([name for name in page.figures if name.startswith("compression-0")]) == 3
    written = {path.name for path in write_figures(directories, tmp_path / "paper")}
    assert {"compression.pdf", "compression.svg", "compression.csv"} <= written
    per_network = next(one for one in page.tables["manifestations"] if "Lipschitz, median" in one[0])
    assert per_network[1][per_network[0].index("Lipschitz, median")] == "104 ± 0.5"
