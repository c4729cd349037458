"""A run directory in storage: what is built again is what was there at the last manifest, whatever is damaged since."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.errors import InputError, WorkError
from sweep.records.files import append_line, write_text
from sweep.storage import lease, mirror, mirroring
from sweep.storage.lease import begin_session, sessions_of
from sweep.storage.mirror import Followed, Mirror
from sweep.storage.mirroring import check_absent, mirrored
from sweep.storage.objects import SharedDirectory, Unreachable
from sweep.storage.rebuild import names_in, rebuild, record_text
from tests.sweep.sweep_command import tree


class Place:
    """A directory as storage, a run directory `x`, and what was said."""

    def __init__(self, path: Path) -> None:
        self.address, self.runs = str(path / "storage"), path / "runs"
        self.directory = self.runs / "x"
        Path(self.address).mkdir()
        self.store, self.said = SharedDirectory(self.address), list[str]()
        self.write(config="a: 1\n")
        write_text(self.directory / mirror.RECORD, record_text(self.address))

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            write_text(self.directory / f"{name}.yaml", text)

    def grow(self, name: str, *lines: str) -> None:
        for line in lines:
            append_line(self.directory / name, f"{line}\n")

    def session(self, copy: str = "here") -> Mirror:
        return Mirror(self.store, begin_session(self.store, "x", copy, self.said.append), self.directory)

    def rebuilt(self, name: str = "there") -> dict[str, bytes]:
        """The files of the run directory as it is built again."""
        target = self.runs / name
        rebuild(self.store, "x", target, self.said.append)
        files = {str(Path(path).relative_to(target)): content for path, content in tree(target).items() if content}
        assert json.loads(files.pop(mirror.RECORD))["storage"] == self.address
        return {path: content for path, content in files.items() if not path.startswith(".")}

    def keys(self, part: str = "") -> list[str]:
        return [one.key for one in self.store.objects("x/") if part in one.key]

    def damage(self, key: str) -> None:
        content = self.store.get(key)
        self.store.put(key, content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    return Place(tmp_path)


def _away(*_: object) -> None:
    raise Unreachable("no answer")


# --- what is brought there --------------------------------------------------------------------------------------------


def test_what_is_built_again_is_what_was_there_at_the_last_manifest(place):
    session = place.session()
    place.grow("curves.csv", "number,epoch", "0,1")
    (place.directory / "final").mkdir()
    place.grow("final/ledger.csv", "number", "7")
    session.turn()
    then = {"config.yaml": b"a: 1\n", "curves.csv": b"number,epoch\n0,1\n", "final/ledger.csv": b"number\n7\n"}
    place.grow("curves.csv", "0,2")
    assert place.rebuilt("before") == then
    session.turn()
    assert place.rebuilt("after") == then | {"curves.csv": b"number,epoch\n0,1\n0,2\n"}


def test_half_a_line_what_belongs_to_a_machine_and_what_is_in_storage_already_stay_here(place):
    for name in ("driver.lock", "mlflow.db", "delivered.json", "ray/x", "checkpoints/1/epoch-000001.ckpt", ".x.1"):
        write_text(place.directory / name, "x")
    (place.directory / "outbox.jsonl").write_bytes(b'{"a": 1}\n{"a"')
    (place.directory / "ledger.csv").write_bytes(b'number,reason\n1,"two\nlines"\n2,"half\n')
    place.session().turn()
    assert place.rebuilt() == {
        "config.yaml": b"a: 1\n", "outbox.jsonl": b'{"a": 1}\n', "ledger.csv": b'number,reason\n1,"two\nlines"\n',
    }  # fmt: skip


def test_a_sealed_segment_is_not_sent_again_and_a_file_written_anew_is(place, monkeypatch):
    monkeypatch.setattr(mirror, "SEGMENT_BYTES", 20)
    session, sent = place.session(), list[tuple[str, bytes]]()
    put = place.store.put
    monkeypatch.setattr(place.store, "put", lambda key, content: (sent.append((key, content)), put(key, content))[0])
    for lines in (["first line", "second line"], ["third"], ["fourth"]):
        place.grow("outbox.jsonl", *lines)
        session.turn()
    ours = [content for key, content in sent if key.endswith("outbox.jsonl")]
    assert ours == [b"first line\nsecond line\n", b"third\n", b"third\nfourth\n"]
    assert place.rebuilt()["outbox.jsonl"] == b"first line\nsecond line\nthird\nfourth\n"
    write_text(place.directory / "outbox.jsonl", "other first line of another\nx\n")
    session.turn()
    assert place.rebuilt("anew")["outbox.jsonl"] == b"other first line of another\nx\n"


def test_a_long_sweep_leaves_few_objects_and_two_sessions(place):
    for number in range(3):
        session = place.session()
        for turn in range(6):
            place.write(best=f"{number} {turn}")
            place.grow("curves.csv", f"{number},{turn}")
            session.turn(closed=turn == 5)
    assert [one.number for one in sessions_of(place.store, "x")] == [2, 3]
    assert len(place.keys("/000003/")) <= 1 + 2 + 1 + 2 + 2  # driver, manifests, config, of best and curves the newest


def test_what_an_older_record_needs_is_deleted_when_the_newer_one_is_there(place, monkeypatch):
    session, done = place.session(), list[str]()
    session.after_next(lambda: done.append("deleted"))
    put = place.store.put
    monkeypatch.setattr(place.store, "put", _away)
    with pytest.raises(Unreachable):
        session.turn()
    assert done == []
    monkeypatch.setattr(place.store, "put", put)
    for _ in range(2):
        session.turn()
    assert done == ["deleted"]


# --- damage -----------------------------------------------------------------------------------------------------------


def test_of_damaged_objects_the_newest_whole_record_is_taken_and_it_is_said(place):
    first = place.session()
    first.turn(closed=True)
    second = place.session()
    for text in ("a: 2\n", "a: 3\n"):
        place.write(config=text)
        second.turn()
    assert place.rebuilt("whole") == {"config.yaml": b"a: 3\n"}
    place.damage(place.keys("000002/manifest-00000002")[0])
    assert place.rebuilt("manifest") == {"config.yaml": b"a: 2\n"}
    assert "manifest-00000002.json is damaged: the record before it is used." in place.said[-2]
    place.damage(place.keys("000002/00000001-config")[0])
    assert place.rebuilt("object") == {"config.yaml": b"a: 1\n"}
    place.store.delete(place.keys("000001/00000001-config"))
    with pytest.raises(InputError, match=r"Nothing of x in .* is whole: .*config.yaml is missing"):
        place.rebuilt("nothing")
    assert not (place.runs / "nothing").exists()


def test_a_manifest_of_a_strangers_writes_nothing_outside_of_the_run_directory(place):
    place.session().turn()
    key = place.keys("manifest")[0]
    content = place.store.get(key).partition(b"\n")[2].replace(b'"config.yaml"', b'"../../outside.yaml"')
    place.store.put(key, f"{mirror.checksum(content)}\n".encode() + content)
    with pytest.raises(InputError, match=r"outside.yaml' is no place in a run directory"):
        place.rebuilt()
    assert not list(place.runs.parent.rglob("outside.yaml"))


def test_a_name_that_storage_does_not_have_is_refused_with_those_it_has(place):
    place.session().turn()
    assert names_in(place.store) == ["x"]
    with pytest.raises(InputError, match=r"There is no sweep y in .*: those there are x."):
        rebuild(place.store, "y", place.runs / "y", place.said.append)


# --- two drivers ------------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_while_the_first_gives_signs_of_life(place, monkeypatch):
    monkeypatch.setattr(lease, "SILENT_SECONDS", 5.0)
    first, poll = place.session(), lease.time.sleep
    first.turn()

    def beat(seconds: float) -> None:
        first.turn()
        poll(0.01)

    monkeypatch.setattr(lease.time, "sleep", beat)
    with pytest.raises(InputError, match=r"Another driver is at work on x in .*: on .*, since .*stop it first"):
        place.session()
    assert "did not end its session" in place.said[0]


def test_a_driver_that_comes_back_after_another_has_taken_over_writes_nothing_that_is_read(place):
    first = place.session()
    first.turn()
    second = place.session()
    second.turn()
    place.write(config="a: of the first\n")
    with pytest.raises(Followed):
        first.turn()
    assert place.rebuilt() == {"config.yaml": b"a: 1\n"}


def test_of_two_drivers_that_begin_at_once_one_is_refused(place, monkeypatch):
    create = place.store.create
    monkeypatch.setattr(place.store, "create", lambda key, content: create(key, b"other") and create(key, content))
    with pytest.raises(InputError, match=r"Another driver has begun to work on x in .* at this moment"):
        place.session()


def test_a_session_that_was_ended_is_followed_at_once(place, monkeypatch):
    monkeypatch.setattr(lease, "SILENT_SECONDS", 1000.0)
    place.session().turn(closed=True)
    assert place.session() and place.said == []


# --- beside a stage ---------------------------------------------------------------------------------------------------


def entered(place: Place, directory: Path | None = None, address: str | None = None) -> None:
    with mirrored(address or place.address, directory or place.directory, place.said.append):
        pass


def test_a_run_directory_is_gone_on_with_where_it_is_the_newest_and_nowhere_else(place):
    entered(place)
    rebuild(place.store, "x", elsewhere := place.runs.parent / "other" / "x", place.said.append)
    entered(place, elsewhere)
    entered(place, elsewhere)
    with pytest.raises(InputError, match=r"x went on in .* and what is here is older. Move the directory away"):
        entered(place)


@pytest.mark.parametrize(
    ("prepare", "address", "needle"),
    [
        (lambda place: (place.directory / mirror.RECORD).unlink(), "", "x began without storage, and its checkpoints"),
        (lambda place: None, "/tmp", "runtime.storage=/tmp: x keeps its checkpoints in"),
        (lambda place: write_text(place.directory / mirror.RECORD, "{"), "", "storage.json is damaged"),
        (lambda place: Path(place.address).rename(f"{place.address}.away"), "", "there is no such directory"),
    ],
)
def test_another_storage_than_the_sweeps_own_is_refused(
    place: Place, prepare: Callable[[Place], None], address: str, needle: str
) -> None:
    prepare(place)
    with pytest.raises(InputError, match=needle):
        entered(place, address=address or None)


def test_a_new_sweep_takes_no_name_that_storage_has(place):
    check_absent(None, "x")
    check_absent(place.address, "x")
    entered(place)
    with pytest.raises(InputError, match=r"has a sweep x already: choose another name, or go on with it by"):
        check_absent(place.address, "x")


def test_an_outage_is_said_once_the_stage_goes_on_and_what_it_missed_is_brought_there(place, monkeypatch):
    monkeypatch.setattr(mirroring, "BEAT_SECONDS", 0.02)
    put, is_away = place.store.put, [False]

    def at_times(key: str, content: bytes) -> None:
        if is_away[0]:
            raise Unreachable("no answer")
        put(key, content)

    monkeypatch.setattr(SharedDirectory, "put", lambda self, key, content: at_times(key, content))
    with mirrored(place.address, place.directory, place.said.append):
        is_away[0] = True
        place.grow("curves.csv", "a")
        _wait(lambda: len(place.said) == 1)
        place.grow("curves.csv", "b")
        is_away[0] = False
        _wait(lambda: len(place.said) == 2)
    assert place.rebuilt()["curves.csv"] == b"a\nb\n"
    assert [text.partition(" ")[0] for text in place.said[:2]] == ["Not", place.address]


def test_what_storage_does_not_take_in_the_end_is_said_and_kept(place, monkeypatch):
    monkeypatch.setattr(mirroring, "END_SECONDS", 0.0)
    with (
        pytest.raises(WorkError, match=r"did not take what was written since .*: no answer. All of it is kept"),
        mirrored(place.address, place.directory, place.said.append),
    ):
        monkeypatch.setattr(SharedDirectory, "put", _away)
    assert (place.directory / "config.yaml").exists()


def _wait(until: Callable[[], bool]) -> None:
    end = lease.time.monotonic() + 10
    while not until() and lease.time.monotonic() < end:
        lease.time.sleep(0.01)
    assert until()


def test_a_driver_whose_sweep_another_has_taken_over_is_stopped_and_says_so(place, monkeypatch):
    monkeypatch.setattr(mirroring, "BEAT_SECONDS", 0.02)
    asked_to_stop: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: asked_to_stop.append(number))
    try:
        with (
            pytest.raises(WorkError, match=r"Another driver went on with this sweep in .*; what this one wrote after"),
            mirrored(place.address, place.directory, place.said.append),
        ):
            place.store.create("x/_sessions/000002/driver.json", b"{}")
            _wait(lambda: bool(asked_to_stop))
    finally:
        signal.signal(signal.SIGTERM, before)
