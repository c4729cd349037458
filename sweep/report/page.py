"""Put the sections in their order, and the page around them."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from sweep.records.files import write_text
from sweep.report import figures, optimization_history, pareto, search_tables, sentences, tables
from sweep.report.elements import Block, Commands, Details, Heading, Notice, Section, Text, plural
from sweep.report.load import FILES, load_sweeps
from sweep.report.parallel_coordinates import parallel_coordinates
from sweep.report.param_importances import FEW, MEASURE, importance_bars, importances, varied_parameters
from sweep.report.results import Family, Study, TaskResults, build_study, configuration_value

COMMANDS = (
    "Open MLflow on a sweep; confirm and retrain its best configurations (once; to train again, remove folder final,"
    " or give `sweep final` the path of a best.yaml)."
)


def write_report(sweeps: Sequence[Path], output: Path, title: str) -> Path:
    """Write one self-contained HTML file of the sweeps in these run directories, and return its path.

    Raises InputError: a directory without a sweep (names the files that are missing), a damaged file, or two
    directories that hold the same family, task and draw.
    """
    found, empty = load_sweeps(sweeps)
    study = build_study(found, empty, output.parent)
    environment = Environment(
        loader=PackageLoader("sweep.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2")
    write_text(output, page.render(title=title, sections=sections(study), plotly=get_plotlyjs()))
    return output


def sections(study: Study) -> list[Section]:
    return [
        Section("summary", "Summary", _summary(study)),
        Section("families", "Families", _families(study)),
        Section("differences", "Difference to the baseline", _differences(study)),
        Section("search", "The search", search_tables.blocks(study)),
        Section("best-so-far", "Best objective against budget", _best_so_far(study)),
        Section("curves", "Learning curves", _curves(study)),
        Section("importances", "Parameter importances", _importances(study)),
        Section("parallel", "Parallel coordinates", _parallel(study)),
        Section("pareto", "Pareto fronts", _pareto(study)),
        Section("manifestations", "Manifestations", _manifestations(study)),
        Section("configurations", "Best configurations", _configurations(study)),
        Section("failures", "Failures", _failures(study)),
        Section("files", "Where everything is", _files(study)),
    ]


def _summary(study: Study) -> list[Block]:
    found = [sentences.searched(study), sentences.spent(study)]
    found += [sentence for results in study.tasks for sentence in sentences.conclusions(results)]
    warnings = [sentences.equal_terms(results) for results in study.tasks] + [sentences.unfinished(study)]
    warnings += [sentences.failed_finals(results) for results in study.tasks]
    warnings += [sentences.empty_sweeps(study), sentences.missing_files(study.sweeps, list(FILES))]
    return [
        *map(Text, found),
        *(Notice(warning) for warning in warnings if warning),
        tables.trials_by_outcome(study),
    ]


def _families(study: Study) -> list[Block]:
    blocks = _missing(study, "final/trials.csv", "rows.csv")
    for index, results in enumerate(study.tasks):
        blocks.append(tables.families(results))
        if any(family.runs for family in results.families):
            blocks.append(figures.runs_as_dots(study, results, f"runs-{index}"))
    return blocks


def _differences(study: Study) -> list[Block]:
    blocks: list[Block] = [Text(sentences.RULES)]
    blocks += [Notice(told) for results in study.tasks if (told := sentences.other_baseline(results))]
    for index, results in enumerate(study.tasks):
        if results.differences:
            blocks += [tables.differences(results), figures.differences(study, results, f"differences-{index}")]
        else:
            blocks += map(Notice, sentences.conclusions(results))
    return blocks


def _best_so_far(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for index, results in enumerate(study.tasks):
        told = optimization_history.without_expectation(results)
        blocks += [Notice(told)] if told else []
        charts = (
            optimization_history.tuning_curves(study, results, f"tuning-{index}"),
            optimization_history.histories(study, results, f"best-{index}"),
        )
        blocks += [chart for chart in charts if chart is not None]
    return blocks


def _curves(study: Study) -> list[Block]:
    blocks = _missing(study, "curves.csv", "final/curves.csv")
    for index, results in enumerate(study.tasks):
        sweeps = [sweep for family in results.families for sweep in family.sweeps]
        if any(sweep.curves for sweep in sweeps):
            blocks.append(figures.search_curves(study, results, f"search-curves-{index}"))
        if any(sweep.final_curves for sweep in sweeps):
            blocks.append(figures.final_curves(study, results, f"final-curves-{index}"))
    return blocks


def _importances(study: Study) -> list[Block]:
    blocks: list[Block] = [Text(MEASURE)]
    for index, (results, family) in enumerate(_every_family(study)):
        ended = sum(configuration_value(row) is not None for sweep in family.sweeps for row in sweep.trials)
        if ended < FEW:
            blocks.append(
                Notice(f"{family.name}, {results.task}: {plural(ended, 'trial')} ended; under {FEW} this is noise.")
            )
        found = importances(family, varied_parameters(family))
        if found:
            blocks.append(importance_bars(study, results, family, found, f"importances-{index}"))
    return blocks


def _parallel(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for index, (results, family) in enumerate(_every_family(study)):
        varied = varied_parameters(family)
        if varied:
            blocks.append(parallel_coordinates(results, family, varied, f"parallel-{index}"))
        else:
            blocks.append(Notice(f"{family.name}, {results.task}: no two trials that ended differ in a parameter."))
    return blocks


def _pareto(study: Study) -> list[Block]:
    blocks: list[Block] = []
    for index, results in enumerate(study.tasks):
        chart = pareto.inference(study, results, f"pareto-{index}")
        if chart is not None:
            blocks += [chart, pareto.inference_table(results)]
        for place, names in enumerate(pareto.objectives_of(results)):
            blocks.append(pareto.objectives(study, results, names, f"objectives-{index}-{place}"))
            blocks.append(pareto.objectives_table(results, names))
    if blocks:
        return [Text(pareto.BIAS), *blocks]
    told = "No sweep recorded what its trials reach under other integrators (manifestations.csv)"
    return [Text(f"{told}, and none had several objectives.")]


def _manifestations(study: Study) -> list[Block]:
    blocks = _missing(study, "rows.csv")
    for index, (results, family) in enumerate(_every_family(study)):
        chart = figures.manifestations(results, family, f"manifestations-{index}")
        if chart is not None:
            blocks.append(chart)
        elif family.runs:
            told = "measured only at the manifestation its networks were trained with"
            blocks.append(Text(f"{family.name}, {results.task}: {told}."))
    return blocks


def _configurations(study: Study) -> list[Block]:
    spaces: dict[str, list[str]] = {}
    for sweep in study.sweeps:
        if sweep.best and (space := sweep.best.provenance.get("space")):
            text = yaml.safe_dump(space, sort_keys=False, allow_unicode=True)
            spaces.setdefault(text, []).append(sweep.name)
    folded = [Details(f"Search space of {sentences.listing(names)}", text) for text, names in spaces.items()]
    return [*_missing(study, "best.yaml", "final/crowned.yaml"), tables.best_configurations(study), *folded]


def _failures(study: Study) -> list[Block]:
    if sentences.failures(study):
        return [tables.failures(study)]
    return [Text("No trial failed: each one ended done or pruned, or has not ended.")]


def _files(study: Study) -> list[Block]:
    blocks: list[Block] = [tables.files(study), tables.provenance(study)]
    versions = tables.versions(study)
    if versions.rows:
        blocks.append(versions)
    lines = [line for s in study.sweeps for line in (f"sweep ui {s.name}", f"sweep final {s.name}")]
    return [
        *blocks,
        Heading("Commands"),
        Text(COMMANDS),
        Commands(lines),
    ]


def _missing(study: Study, *names: str) -> list[Block]:
    told = sentences.missing_files(study.sweeps, names)
    return [Notice(told)] if told else []


def _every_family(study: Study) -> list[tuple[TaskResults, Family]]:
    return [(results, family) for results in study.tasks for family in results.families]
