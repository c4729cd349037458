"""What the user has of their own: spaces, modules and a configuration file, named by them and read once."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from odenet.enums import Network, Scheme
from odenet.networks.table import NETWORKS
from search_spaces import SPACES, Choice, Float, Int, When, fixed
from sweep.cli.completion import candidates
from sweep.config.compose import is_study, load
from sweep.config.modules import changed_since, import_kept, kept_texts, module_hash
from sweep.config.schema import save
from sweep.config.search_config import SamplerKind
from sweep.config.study_config import Arm
from sweep.errors import InputError
from sweep.study.members import members
from tests.own_names import NETWORK, taken_away

SPACE = """
name: mine
like: continuous
parameters:
  model.substeps: 1
  model.scheme: [euler, rk4]
  optim.lr: {low: 1e-3, high: 0.1, log: true}
  refinement.count: {low: 0, high: 2}
  refinement.first: {low: 0.1, high: 0.4, when: {refinement.count: [1, 2]}}
"""
STUDY = """
# @package _global_
modules: [own.networks]
study: {families: [own_net, resnet], arm: equal_compute, median_epochs: 3}
"""
USER = """
defaults: [config, override space: smoke, _self_]
search: {trials: 3}
training: {epochs: 2}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to be in, with a configuration, a space and a package of the user's own."""
    files = {
        "space.yaml": SPACE,
        "conf/user.yaml": USER,
        "conf/space/deep.yaml": "name: deep\nlike: resnet\nparameters: {model.nodes: [4, 8]}\n",
        "conf/net.yaml": "defaults: [config, _self_]\nmodules: [own.networks]\nspace: {name: own_net}\n",
        "conf/study/mine.yaml": STUDY,
        "conf/pilot.yaml": "defaults: [config, override study: mine, _self_]\nstudy: {draws: [0]}\n",
        "own/__init__.py": "",
        "own/networks.py": NETWORK.format(name="own_net"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with taken_away():
        yield tmp_path


def refusal(*words: str, saved: Path | None = None) -> str:
    with pytest.raises(InputError) as error:
        load(list(words), saved)
    return str(error.value)


# --- spaces -----------------------------------------------------------------------------------------------------------


def test_a_space_is_read_from_a_file_as_it_is_written_there() -> None:
    space = load(["space=space.yaml", "space.fix.model.nodes=1"]).space
    built = space.build()
    assert space.name == "mine"
    assert built.entries["model.scheme"] == Choice(("euler", "rk4"))
    assert built.entries["optim.lr"] == Float(1e-3, 0.1, log=True)
    assert built.entries["refinement.count"] == Int(0, 2)
    assert built.entries["model.substeps"] == fixed(1)
    assert built.conditions["refinement.first"] == When("refinement.count", (1, 2))
    assert built.fixed["model.nodes"] == 1
    like = SPACES["continuous"]
    assert built.entries["optim.weight_decay"] == like.entries["optim.weight_decay"]
    assert list(built.entries) == list(like.entries)


@pytest.mark.parametrize("word", ["space=space.yaml", "space=own.spaces:ONE"])
def test_what_is_saved_needs_neither_the_file_nor_the_module_again(place: Path, word: str) -> None:
    module = place / "own/spaces.py"
    module.write_text("from search_spaces import SPACES\nONE = SPACES['resnet'].without(['data.augment'])\n")
    config = load([word, "space.range.model.nodes=[1,2]"])
    (place / "config.yaml").write_text(save(config))
    (place / "space.yaml").unlink()
    module.write_text("raise SystemExit('imported')")
    assert load([], place / "config.yaml") == config
    assert load([], place / "config.yaml").space.build() == config.space.build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: resnet\nlike: smoke", "resnet is the name of another space"),
        ("name: mine.shared\nlike: smoke", ".shared ends the names of spaces without own dimensions"),
        ("name: '../x'\nlike: smoke", "A space cannot be called '../x'"),
        ("like: smok", "space.like=smok is no search space; possible are resnet, continuous"),
        (
            "parameters: {optim.lr: {low: 1, hihg: 2}}",
            "optim.lr: hihg is nothing that a parameter has; possible",
        ),
        ("parameters: {optim.lr: {low: 2, high: 1}}", "optim.lr: The range from 2 to 1 is empty"),
        ("parameters: {optim.lr: {low: 2}}", "optim.lr: {'low': 2} is no range: it needs low and high"),
        ("parameters: {optim.lr: {low: a, high: b}}", "optim.lr: 'a' cannot be an end of Float"),
        ("parameters: {optim.lr: {low: 1, high: 2, kind: odd}}", "optim.lr: kind='odd' is not possible"),
        ("parameters: {model.nodes: []}", "model.nodes: [] is not a list of at least one value"),
        ("parameters: {model.nodes: {options: 3}}", "model.nodes: 3 is not a list"),
        ("parameters: {model.nodes: [1, 2], optim.lr: {options: [1], when: 3}}", "optim.lr: when=3 is no condition"),
        ("parameters: {optim.lr: {options: [1, 2], when: {model.nodes: 1}}}", "depends on model.nodes"),
        ("parameters: 3", "parameters must be a mapping"),
        ("{}", "parameters must be a mapping"),
        ("[1]", "is no mapping of names"),
        ("entries: 3", "entries is nothing that a space has; possible are name, like, parameters"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_that_describes_no_space_is_refused(place: Path, text: str, message: str) -> None:
    (place / "wrong.yaml").write_text(text)
    found = refusal("space=wrong.yaml")
    assert message in found and "wrong.yaml" in found and "\n" not in found


def test_a_space_that_is_not_there_is_refused_with_what_is() -> None:
    assert "space can be" in refusal("space=nope") and "FILE.yaml or MODULE:NAME" in refusal("space=nope")
    assert "nope.yaml cannot be read" in refusal("space=nope.yaml")
    assert "own.networks has no Space of that name; its spaces are: none" in refusal("space=own.networks:NO")
    assert "There is no module own.net" in refusal("space=own.net:NO")


def test_the_last_of_two_spaces_counts() -> None:
    assert load(["space=space.yaml", "space=resnet"]).space.name == "resnet"
    assert load(["space=resnet", "space=space.yaml"]).space.name == "mine"


# --- a configuration file ---------------------------------------------------------------------------------------------


def test_a_configuration_file_of_the_users_own_is_composed_with_ours_and_the_command_line_wins() -> None:
    words = ["--config-dir=conf", "--config-name=user"]
    config = load([*words, "training.epochs=5"])
    assert (config.space.name, config.search.trials, config.training.epochs) == ("smoke", 3, 5)
    assert load([*words, "space=deep"]).space.build().entries["model.nodes"] == Choice((4, 8))
    assert load(["--config-dir=conf", "space=deep"]).search.trials == load([]).search.trials


@pytest.mark.parametrize("words", [["study=mine"], ["--config-name=pilot"], ["--config-name=pilot", "study=mine"]])
def test_a_file_of_a_group_names_modules_and_chooses_a_study_as_the_command_line_does(words: list[str]) -> None:
    own = ["--config-dir=conf", *words]
    assert is_study(own)
    config = load(own, study=True)
    assert config.modules == ["own.networks"], "which workers import"
    assert (config.study.families, config.study.arm) == (["own_net", "resnet"], Arm.equal_compute)
    assert config.search.sampler is SamplerKind.tpe, "not the preset of a study that chooses none"


def test_modules_of_several_files_are_all_imported_and_the_command_line_replaces_them(place: Path) -> None:
    (place / "other.py").write_text("from search_spaces import SPACES as A\nSPACES = {'other': A['resnet']}\n")
    (place / "conf/pilot.yaml").write_text(
        "defaults: [config, override study: mine, _self_]\nmodules: [other]\nstudy: {families: [own_net, other]}\n"
    )
    own = ["--config-dir=conf", "--config-name=pilot"]
    assert set(load(own, study=True).modules) == {"own.networks", "other"}
    assert load([*own, "modules=[other]", "study.families=[other]"], study=True).modules == ["other"]
    assert "a module of your own that is named, modules=[NAME]" in refusal("study.families=[none_such]")


def test_what_a_file_sets_without_effect_is_refused_as_on_the_command_line(place: Path) -> None:
    file = place / "conf/user.yaml"
    file.write_text(f"{USER}model: {{scheme: rk4}}\n")
    assert f"{file}: model.scheme=rk4 would have no effect, space=smoke searches it" in refusal(
        "--config-dir=conf", "--config-name=user"
    )
    file.write_text(f"{USER}model: {{nodes: 4}}\nstudy: {{families: [resnet, continuous]}}\n")
    own = ["--config-dir=conf", "--config-name=user"]
    assert f"{file}: model.nodes=4 would have no effect, the spaces of resnet, continuous search or fix" in refusal(
        *own
    )
    assert load([*own, "study.spaces=[shared]"], study=True).model.nodes == 4


def test_what_a_study_fixes_is_fixed_in_the_families_that_have_it_and_in_no_other() -> None:
    config = load(["study.families=[resnet,continuous]", "study.draws=[0]", "space.fix.model.scheme=rk4"], study=True)
    assert config.model.scheme is None
    fixed_in = {name: one.space.build().fixed.get("model.scheme") for name, one in members(config).items()}
    assert fixed_in == {"resnet-d0": None, "continuous-d0": "rk4"}
    only = load(["study.families=[hamiltonian]", "space.fix.model.depth_time=1"], study=True)
    assert members(only)["hamiltonian-d0"].space.build().fixed["model.depth_time"] == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("user", "modell: {width: 3}\ndefaults: [config, _self_]", "Key 'modell' not in 'AppConfig'"),
        ("user", "search: {trials: 3}", "user.yaml: begin it with `defaults: [config, _self_]`"),
        ("user", "defaults: [config, override data: nope, _self_]", "data/nope"),
        ("user", "modules: 3", "user.yaml: modules must be a list of names, not 3"),
        ("user", "a: [", "user.yaml cannot be read"),
        ("other", "", "there is no"),
    ],
)
def test_a_configuration_file_that_cannot_be_is_refused(place: Path, name: str, text: str, message: str) -> None:
    (place / "conf/user.yaml").write_text(text)
    found = refusal("--config-dir=conf", f"--config-name={name}")
    assert message in found and "\n" not in found


def test_where_the_file_is_must_be_said() -> None:
    assert refusal("--config-name=user") == "--config-name user: say where it is, --config-dir DIR."
    assert refusal("--config-dir=nowhere") == "--config-dir nowhere: there is no such directory."


# --- modules ----------------------------------------------------------------------------------------------------------


def test_a_network_of_the_users_own_is_named_and_shown_like_ours() -> None:
    config = load(["modules=[own.networks]", "space=own_net", "model.width=4"])
    assert config.model.network is Network["own_net"] is Network("own_net")
    assert NETWORKS[config.model.network].scheme is Scheme.heun
    assert "own_net" in refusal("modules=[own.networks]", "model.network=own_nt", "space.name=own_net")
    assert ", own_net, " in refusal("modules=[own.networks]", "space=own_nt")
    assert load(["--config-dir=conf", "--config-name=net"]).model.network.value == "own_net"


def test_tab_completion_knows_what_the_words_before_name() -> None:
    assert candidates("sweep search x space=own") == []
    assert candidates("sweep search x modules=[own.networks] space=own") == ["space=own_net"]
    assert candidates("sweep search x modules=[own.networks] space.fix.model.network=own") == [
        "space.fix.model.network=own_net"
    ]
    assert candidates("sweep search x --config-dir conf space=de") == ["space=deep"]
    assert candidates("sweep search x modules=[nothing] space=smo") == ["space=smoke"]


def test_a_study_compares_spaces_of_the_users_own_with_ours() -> None:
    config = load(["modules=[own.networks]", "study.families=[resnet,own_net]", "study.draws=[0]"])
    ours, own = members(config).values()
    assert not ours.space.parameters
    assert own.space.parameters["model.nodes"] == {"options": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "own.networks cannot be imported: ZeroDivisionError: division by zero ("),
        ("exit()", "own.networks cannot be imported: SystemExit"),
        ("class Own(BaseException): ...\nraise Own(1)", "own.networks cannot be imported: Own: 1 ("),
        ("x = (\n", "own/networks.py:"),
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("", "defines neither NETWORKS nor SPACES"),
        ("NETWORKS = 3", "defines neither NETWORKS nor SPACES"),
        ("from search_spaces import SPACES", "defines neither NETWORKS nor SPACES"),
        ("NETWORKS = {'x': 3}", "The network x is no row: a Wiring is needed, not 3"),
        ("NETWORKS = {'A b': 3}", "A network cannot be called 'A b'"),
        ("SPACES = {'x': 3}", "The space x must be a Space, not 3"),
        ("SPACES = {'resnet': __import__('search_spaces').SPACES['smoke']}", "resnet is the name of another space"),
        (NETWORK.format(name="resnet"), "There is a network called resnet already"),
        ("import beside\nSPACES = {}", "put both into one package, a folder with __init__.py"),
    ],
)
def test_a_module_that_defines_nothing_or_fails_is_refused_with_its_line(place: Path, text: str, message: str) -> None:
    (place / "own/networks.py").write_text(text)
    (place / "beside.py").write_text("")
    found = refusal("modules=[own.networks]")
    assert message in found and "\n" not in found


def test_the_names_of_modules_are_a_list_of_names() -> None:
    assert refusal("modules=own.networks") == "modules=own.networks must be a list: modules=[own.networks]."
    assert "modules has '../x'" in refusal("modules=[../x]")
    assert "There is no module own.nets" in refusal("modules=[own.nets]")


def test_a_saved_configuration_imports_no_module_by_itself(place: Path) -> None:
    config = load(["modules=[own.networks]", "space=own_net"])
    saved = place / "config.yaml"
    saved.write_text(save(config))
    assert f"{saved} was made with the user's own modules own.networks" in refusal(saved=saved)
    assert load(["modules=[own.networks]"], saved) == config
    assert load(["--config-dir=conf", "--config-name=net"], saved) == config


def test_workers_import_the_source_that_is_kept_whatever_became_of_it_since(place: Path) -> None:
    names, kept = ["own.networks"], place / "kept"
    with taken_away():
        load(["modules=[own.networks]"])
        before = module_hash("own.networks")
        for name, text in kept_texts(names).items():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            (kept / name).write_text(text)
        assert changed_since(names, kept) == []
        (place / "own/networks.py").write_text("raise SystemExit('another one')")
        assert changed_since(names, kept) == names
    import_kept(names, kept)  # as in a process that begins, although the other is on its path, too
    assert Path(str(sys.modules["own.networks"].__file__)).is_relative_to(kept)
    assert module_hash("own.networks") == before
    assert "own_net" in Network.__members__
