"""What the driver keeps of a trial that has ended: its row, and nothing of Ray Tune's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.ray_place import Place, short_place

TRIALS = 16


@pytest.fixture
def place() -> Iterator[Place]:
    with short_place() as place:
        yield place


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_ray_tune_keeps_no_segment_that_has_ended(place):
    """Each would be 0.1 MiB for as long as the sweep runs, and be looked at in every step."""
    benchmarks = Path(__file__).parents[3] / "benchmarks"
    done = place.drive(
        f"""
        import warnings
        warnings.simplefilter("default")
        sys.path.insert(0, {str(benchmarks)!r})
        from bench_overhead import measure
        from sweep.execution.ray_adapter import SegmentScheduler

        kept, choose = [], SegmentScheduler.choose_trial_to_run
        def watched(scheduler, controller):
            chosen = choose(scheduler, controller)
            kept.append(len(controller.get_trials()))
            return chosen
        SegmentScheduler.choose_trial_to_run = watched
        with connected(ClusterConfig(cpus=1), here):
            measure({TRIALS}, here, "random")
        print(json.dumps(kept))
        """
    )
    kept = json.loads(done.stdout.splitlines()[-1])
    assert len(kept) > TRIALS
    assert max(kept) <= 3
