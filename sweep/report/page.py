"""Put the sections in their order, and the page around them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from sweep.records.files import write_text
from sweep.records.rows import REESTIMATED
from sweep.report import answer, differences, figures, learning_curves, pareto, search_tables, sentences, tables
from sweep.report.elements import Block, Commands, Details, Figure, Heading, Notice, Section, Text, plural
from sweep.report.figures import colour
from sweep.report.hyperparameters import (
    local_sensitivity,
    optimization_history,
    own_dimensions,
    random_search,
    transfer,
    tuning_curves,
)
from sweep.report.hyperparameters.parameters import (
    FEW,
    IMPORTANCE_KEYS,
    MEASURE,
    PARALLEL_KEYS,
    importance_bars,
    importances,
    parallel_coordinates,
    slices,
    varied_parameters,
)
from sweep.report.load import FILES, load_sweeps
from sweep.report.results import Study, TaskResults, build_study, configuration_value
from sweep.report.robustness import attacks, compression, corruptions, manifestations, per_network, validity
from sweep.report.terms import protocol, selected

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COMMANDS = (
    "Open MLflow on a sweep; confirm and retrain its best configurations (once; `sweep final NAME --again` trains again"
    " and keeps the former training, and `sweep final` takes the path of a best.yaml, too)."
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
        lstrip_blocks=True, finalize=_spelled_out,
    )  # fmt: skip
    page = environment.get_template("report.html.j2")
    write_text(output, page.render(title=title, sections=sections(study), plotly=get_plotlyjs()))
    return output


def _spelled_out(value: object) -> object:
    """Spell out the control characters of a text from a file; those of direction would turn around what follows."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], value) if type(value) is str else value


def sections(study: Study) -> list[Section]:
    compared = any(len(results.families) > 1 for results in study.tasks)
    made = [
        Section("summary", "The answer" if compared else "The result", _summary(study)),
        Section("terms", "On what terms", _terms(study)),
        Section("families", "Test accuracy", _families(study)),
        Section("differences", "Difference to the baseline", _differences(study)),
        Section("manifestations", "Other integrators and steps", _manifestations(study)),
        Section("compression", "Made smaller without data", _compression(study)),
        Section("corruptions", "Corrupted images", _corruptions(study)),
        Section("attacks", "Attacked images", _attacks(study)),
        Section("configurations", "Best configurations", _configurations(study)),
        Section("search", "The search", _search(study)),
        Section("slices", "Objective against each parameter", _slices(study)),
        Section("importances", "Parameter importances", _importances(study)),
        Section("parallel", "Trials through all parameters", _parallel(study)),
        Section("best-so-far", "Robustness to hyperparameters", _best_so_far(study)),
        Section("curves", "Learning curves", _curves(study)),
        Section("pareto", "Accuracy against inference cost", _pareto(study)),
        Section("failures", "Failures", _failures(study)),
        Section("files", "Where everything is", _files(study)),
    ]
    return [section for section in made if section.blocks]


Blocks = list[Block] | Block | None


def _by_task(study: Study, draw: Callable[[TaskResults, int], Blocks]) -> list[Block]:
    """Collect what is drawn of each task by its number; the task stands above it where there are several."""
    blocks: list[Block] = []
    for index, results in enumerate(study.tasks):
        drawn = draw(results, index)
        made = drawn if isinstance(drawn, list) else _present(drawn)
        blocks += [Heading(str(results.task)), *made] if made and len(study.tasks) > 1 else made
    return blocks


def _present(*blocks: Block | None) -> list[Block]:
    return [block for block in blocks if block is not None]


def _summary(study: Study) -> list[Block]:
    told: list[str | None] = [sentences.other_baseline(results) for results in study.tasks]
    told += [sentences.equal_terms(results) for results in study.tasks]
    for tell in (sentences.failed_finals, sentences.lost_finals, sentences.image_error, sentences.shared_draws):
        told += [tell(results) for results in study.tasks]
    told += protocol.notices(study.sweeps)
    told += [sentences.unfinished(study), sentences.empty_sweeps(study)]
    told.append(sentences.missing_files(study.sweeps, list(FILES)))
    answers = _by_task(study, lambda results, index: answer.blocks(study, results, f"differences-{index}"))
    return [*answers, *(Notice(one) for one in told if one)]


def _terms(study: Study) -> list[Block]:
    def draw(results: TaskResults, _: int) -> list[Block]:
        unequal = selected.unequal_parameters(results) if len(results.families) > 1 else []
        told = Notice(f"Parameters more than 5 % off the baseline's: {'; '.join(unequal)}.") if unequal else None
        return _present(told, selected.table(results))

    return [*protocol.blocks(study.sweeps), *_by_task(study, draw)]


def _families(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        if not any(family.runs for family in results.families):
            return [tables.families(results)]
        against = figures.accuracy_against_costs(study, results, f"costs-{index}")
        return [*_present(against), figures.runs_as_dots(study, results, f"runs-{index}"), tables.families(results)]

    return _by_task(study, draw)


def _differences(study: Study) -> list[Block]:
    def draw(results: TaskResults, _: int) -> list[Block]:
        if not results.differences:
            return []
        return _present(differences.found(results), differences.prospects(results))

    blocks = _by_task(study, draw)
    return [Text(sentences.RULES), *blocks, *differences.across_sizes(study)] if blocks else []


def _manifestations(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        lacking = [f.name for f in results.families if f.runs and len(manifestations.cells(f)) < 2]
        told = Text(f"Measured only as they were trained: networks of {sentences.listing(lacking)}.")
        return _present(
            *validity.blocks(results),
            manifestations.heat_maps(results, f"manifestations-{index}"),
            manifestations.heat_maps(results, f"reestimated-{index}", REESTIMATED),
            told if lacking else None,
            *per_network.blocks(results),
        )

    return _by_task(study, draw)


def _compression(study: Study) -> list[Block]:
    return _by_task(study, lambda results, index: compression.blocks(study, results, index))


def _corruptions(study: Study) -> list[Block]:
    return _by_task(study, lambda results, index: corruptions.blocks(study, results, index))


def _attacks(study: Study) -> list[Block]:
    return _by_task(study, lambda results, index: attacks.blocks(study, results, index))


def _configurations(study: Study) -> list[Block]:
    def draw(results: TaskResults, _: int) -> list[Block]:
        return [block for family in results.families for block in tables.configurations(family)]

    spaces: dict[str, list[str]] = {}
    for sweep in study.sweeps:
        if sweep.best and (space := sweep.best.provenance.get("space")):
            text = yaml.safe_dump(space, sort_keys=False, allow_unicode=True)
            spaces.setdefault(text, []).append(study.short(sweep))
    folded = [Details(f"Search space of {sentences.listing(names)}", text) for text, names in spaces.items()]
    return [Text(tables.VALUES), *_by_task(study, draw), *folded]


def _search(study: Study) -> list[Block]:
    told = [Text(sentences.searched(study)), Text(sentences.spent(study))]
    counted = [tables.trials_by_outcome(study)] if len(study.sweeps) > len(study.families) else []
    return [*told, *counted, *search_tables.blocks(study)]


def _slices(study: Study) -> list[Block]:
    return _by_task(study, lambda results, index: slices(study, results, f"slices-{index}"))


def _importances(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        few, panels = [], []
        for family in results.families:
            ended = sum(configuration_value(row) is not None for sweep in family.sweeps for row in sweep.trials)
            few += [f"{family.name} {plural(ended, 'trial')}"] if ended < FEW else []
            if found := importances(family, varied_parameters(family)):
                panels.append(importance_bars(family, colour(study, family.name), found))
        return _present(
            Notice(f"Under {FEW} trials this is noise: {', '.join(few)}.") if few else None,
            Figure(f"importances-{index}", "", panels, IMPORTANCE_KEYS, 360) if panels else None,
        )

    return [Text(MEASURE), *_by_task(study, draw)]


def _parallel(study: Study) -> list[Block]:
    caption = (
        "Every search trial that ended as a line from its parameters down to its objective (one seed), failures at "
        "chance; – where a parameter did not apply."
    )

    def draw(results: TaskResults, index: int) -> list[Block]:
        varied = {family.name: varied_parameters(family) for family in results.families}
        same = [name for name, found in varied.items() if not found]
        panels = [parallel_coordinates(f, varied[f.name]) for f in results.families if varied[f.name]]
        return _present(
            Notice(f"No two trials that ended differ in a parameter: {', '.join(same)}.") if same else None,
            Figure(f"parallel-{index}", caption, panels, PARALLEL_KEYS, 360) if panels else None,
        )

    return _by_task(study, draw)


def _best_so_far(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        told = random_search.without_curve(results)
        return [
            *_present(Notice(told) if told else None),
            *tuning_curves.blocks(study, results, index),
            *own_dimensions.blocks(study, results),
            *transfer.blocks(results),
            *local_sensitivity.blocks(results, f"sensitivity-{index}"),
            *_present(optimization_history.histories(study, results, f"best-{index}")),
        ]

    return _by_task(study, draw)


def _curves(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        sweeps = [sweep for family in results.families for sweep in family.sweeps]
        search, final = any(sweep.curves for sweep in sweeps), any(sweep.final_curves for sweep in sweeps)
        return _present(
            learning_curves.search_curves(study, results, f"search-curves-{index}") if search else None,
            learning_curves.final_curves(study, results, f"final-curves-{index}") if final else None,
        )

    return _by_task(study, draw)


def _pareto(study: Study) -> list[Block]:
    def draw(results: TaskResults, index: int) -> list[Block]:
        chart = pareto.inference(study, results, f"pareto-{index}")
        blocks: list[Block] = [] if chart is None else [chart, pareto.inference_table(study, results)]
        for place, names in enumerate(pareto.objectives_of(results)):
            blocks.append(pareto.objectives(study, results, names, f"objectives-{index}-{place}"))
            blocks.append(pareto.objectives_table(study, results, names))
        return blocks

    blocks = _by_task(study, draw)
    if blocks:
        return [Text(pareto.BIAS), *blocks]
    told = "No sweep recorded what its trials reach under other integrators (manifestations.csv)"
    return [Text(f"{told}, and none had several objectives.")]


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
