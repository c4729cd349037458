"""Ask a sweep's Optuna study which configurations are tried, and tell it what samplers learn of them.

There are two studies. The journal on disk is what happened; a kill leaves each trial in it whole or absent. The one in
memory is what samplers learn from. It is built from the journal when it is needed and there is none, and never where
nothing learns, so that a random search spends on its thousandth trial what it spends on its first.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from odenet.seeding import derive
from search_spaces import Space
from sweep.config.search_config import Objective, SamplerKind, SearchConfig
from sweep.records.outcome import STATES, Outcome
from sweep.tuning.optuna_study import OptunaStudy, Standing, damaged
from sweep.tuning.samplers import LEARNING, given, sampler_for

ENQUEUED = "enqueued"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to be tried."""

    number: int
    trial_id: str
    parameters: dict[str, Any]  # complete: the fixed ones, too
    proposed_by: str  # a sampler, or ENQUEUED


class Proposals:
    """The proposals of a sweep, each told how its trial stands. Only the driver has such an object.

    Args:
        study: in its file, begun or gone on with; or in memory, where nothing is to be kept.
        chance: the accuracy of guessing, which samplers are told of a trial that diverged.
        enqueued: configurations tried before all others, each once.

    Raises:
        ValueError: an enqueued configuration is not in the space.
        InputError: the study holds what no sweep has asked.
        StorageError: the journal cannot be written, now or later.
    """

    def __init__(
        self,
        space: Space,
        config: SearchConfig,
        study: OptunaStudy,
        chance: float,
        enqueued: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._space, self._config, self._chance = space, config, chance
        self._learns = config.sampler in LEARNING
        self._memory: OptunaStudy | None = None
        self._journal, self._asked = study, _proposals(study)
        self._worst: dict[Objective, float] = {}  # of done trials
        for trial in self._journal.trials():
            self._remember_worst(trial)
        self._enqueued = _pending(_complete(space, enqueued), self._asked, ENQUEUED)
        grid = list(space.grid()) if config.sampler is SamplerKind.grid else []
        # Shuffled, so that a sweep with fewer trials than points sees them from everywhere, not from one end.
        random.Random(derive(config.seed, "grid")).shuffle(grid)
        self._grid = _pending(grid, self._asked, SamplerKind.grid.value)

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def asked(self) -> Sequence[Proposal]:
        """All proposals in the order of their numbers, also those before a restart."""
        return self._asked

    @property
    def exhausted(self) -> bool:
        """Tell whether every point of a grid has been asked, and the random share beside it, so that nothing is left to
        propose."""
        if self._config.sampler is not SamplerKind.grid or self._grid or self._enqueued:
            return False
        share = math.floor(self._config.trials * self._config.random_share)
        return sum(one.proposed_by == SamplerKind.random.value for one in self._asked) >= share

    def ask(self) -> Proposal:
        """Propose the next configuration: first those enqueued, then the random share's, the grid's or the sampler's.

        A random one depends on (sweep seed, number) only.
        """
        number = len(self)
        chosen, proposed_by = self._choice(number)
        trial = self._sample(number, chosen) if chosen is None or self._learns else written_out(self._space, chosen)
        parameters = self._space.complete(trial.params)
        proposal = Proposal(number, uuid4().hex[:8], parameters, proposed_by)
        memory, self._memory = self._memory, None  # forgotten where the line cannot be written
        self._journal.add(recorded(proposal, trial))
        self._memory = memory
        self._asked.append(proposal)
        return proposal

    def report(self, number: int, step: int, value: float) -> None:
        """Report the objective at an epoch or rung, once each. Optuna keeps none where there are several objectives."""
        trial = self._journal.trial(number)
        if len(self._config.objectives) > 1 or trial.state.is_finished() or step in trial.intermediate_values:
            return
        self._journal.report(number, step, value)
        self._learn(number, lambda memory: memory.report(number, step, value))

    def tell(
        self,
        number: int,
        outcome: Outcome,
        values: Mapping[Objective, float] | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Tell how a trial stands; an ending is told once, what comes after it is ignored.

        `values` are needed where it is done. `constraints` are measured values minus limits: feasible up to 0.
        """
        trial = self._journal.trial(number)
        if trial.state.is_finished():
            return
        state = TrialState[STATES[outcome].optuna]
        told = Standing(outcome, state, self._values(trial, outcome, values or {}), constraints or {})
        self._journal.tell(number, told)
        self._remember_worst(self._journal.trial(number))
        if (trial.state, state) != (TrialState.WAITING, TrialState.WAITING):
            self._learn(number, lambda memory: memory.tell(number, _lesson(told, self._config)))

    def outcome(self, number: int) -> Outcome:
        """Return the outcome last told of this trial; `running` where none was."""
        trial = self._journal.trial(number)
        if trial.state is TrialState.RUNNING:  # the outcome is written before the state: a kill may come between
            return Outcome.running
        return Outcome[trial.user_attrs["outcome"]]

    def _choice(self, number: int) -> tuple[dict[str, Any] | None, str]:
        """Choose the parameters, None where a learning sampler is to choose them, and name the proposer."""
        if self._enqueued:
            return self._enqueued.popleft(), ENQUEUED
        used_up = self._config.sampler is SamplerKind.grid and not self._grid
        if self._config.sampler is SamplerKind.random or self._config.is_random(number) or used_up:
            return random_parameters(self._space, self._config, number), SamplerKind.random.value
        if self._config.sampler is SamplerKind.grid:
            return self._grid.popleft(), SamplerKind.grid.value
        return None, self._config.sampler.value

    def _sample(self, number: int, chosen: dict[str, Any] | None) -> FrozenTrial:
        if self._memory is None:
            self._memory = self._rebuilt()
        sampler = sampler_for(self._config, number)
        self._memory.optuna.sampler = sampler if chosen is None else given(chosen, sampler)
        self._space.suggest(self._memory.optuna.ask())
        return self._memory.trial(number)

    def _rebuilt(self) -> OptunaStudy:
        memory = OptunaStudy.in_memory(self._config.objectives)
        for proposal, trial in zip(self._asked, self._journal.trials(), strict=True):
            memory.add(_learnable(trial, proposal, self._space, self._config))
        return memory

    def _learn(self, number: int, change: Callable[[OptunaStudy], None]) -> None:
        """Change the study in memory. Optuna lets nobody change what has ended, and for samplers a waiting trial has:
        then drop the study, to be rebuilt."""
        if self._memory is not None and self._memory.trial(number).state.is_finished():
            self._memory = None
        if self._memory is not None:
            change(self._memory)

    def _values(
        self, trial: FrozenTrial, outcome: Outcome, values: Mapping[Objective, float]
    ) -> Sequence[float] | None:
        if STATES[outcome].at_chance:
            return [self._at_chance(objective, values) for objective in self._config.objectives]
        if outcome is Outcome.done:
            numbers = [values[objective] for objective in self._config.objectives]
            assert all(map(math.isfinite, numbers)), numbers
            return numbers
        steps = trial.intermediate_values
        return [steps[max(steps)]] if steps and STATES[outcome].optuna == TrialState.PRUNED.name else None

    def _at_chance(self, objective: Objective, values: Mapping[Objective, float]) -> float:
        if not objective.minimized:
            return self._chance
        return values.get(objective, self._worst.get(objective, 1.0))

    def _remember_worst(self, trial: FrozenTrial) -> None:
        if trial.state is not TrialState.COMPLETE or trial.user_attrs["outcome"] != Outcome.done.value:
            return
        for objective, value in zip(self._config.objectives, trial.values, strict=True):
            self._worst[objective] = max(value, self._worst.get(objective, value))


def random_parameters(space: Space, config: SearchConfig, number: int) -> dict[str, Any]:
    """Return the random configuration of a trial, which depends on (sweep seed, number) only."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = sampler_for(config, number, SamplerKind.random)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


def _proposals(study: OptunaStudy) -> list[Proposal]:
    try:
        return [
            Proposal(trial.number, *(trial.user_attrs[name] for name in ("trial_id", "parameters", "proposed_by")))
            for trial in study.trials()
        ]
    except KeyError as error:
        raise damaged(study.path or Path(), error) from error


def recorded(proposal: Proposal, trial: FrozenTrial) -> FrozenTrial:
    """Build the journal's record of a proposal, `trial` being how Optuna sees it."""
    own = {"trial_id": proposal.trial_id, "proposed_by": proposal.proposed_by, "parameters": proposal.parameters}
    return create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=own,
        system_attrs=trial.system_attrs,
    )


def written_out(space: Space, parameters: Mapping[str, Any]) -> FrozenTrial:
    """Build the trial in which these parameters were sampled from the space."""
    trial = FixedTrial(dict(parameters))
    space.suggest(trial)
    return create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)


def _learnable(trial: FrozenTrial, proposal: Proposal, space: Space, config: SearchConfig) -> FrozenTrial:
    """Turn a trial of the journal into one for samplers: failed where it is not in the space, which may have
    changed."""
    if not space.contains(proposal.parameters):
        return create_trial(state=TrialState.FAIL)
    lesson = _lesson(Standing(Outcome.running, trial.state, trial.values, trial.constraints), config)
    written = written_out(space, proposal.parameters)
    return create_trial(
        state=lesson.state,
        values=lesson.values,
        params=written.params,
        distributions=written.distributions,
        system_attrs={**trial.system_attrs, **lesson.attributes},
        intermediate_values=trial.intermediate_values,
    )


def _lesson(told: Standing, config: SearchConfig) -> Standing:
    """Turn a standing into what samplers learn: a waiting trial is as good as its reports, a limit nobody measured is
    kept.

    As running ones, waiting trials would count as bad to TPE's constant liar; the Gaussian process wants as many
    constraints of each complete trial.
    """
    if told.state is TrialState.WAITING:
        return replace(told, state=TrialState.PRUNED)
    if told.state is TrialState.COMPLETE:
        return replace(told, constraints={**dict.fromkeys(config.constraints.limits(), 0.0), **told.constraints})
    return told


def _complete(space: Space, enqueued: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    completed = []
    for place, parameters in enumerate(enqueued, start=1):
        try:
            completed.append(space.complete(parameters))
        except ValueError as error:
            raise ValueError(f"Enqueued configuration {place} of {len(enqueued)}: {error}") from error
    return completed


def _pending(wanted: Iterable[dict[str, Any]], asked: Iterable[Proposal], proposer: str) -> deque[dict[str, Any]]:
    """List the configurations that this proposer has not had asked yet, each once."""
    known = {_identity(proposal.parameters) for proposal in asked if proposal.proposed_by == proposer}
    distinct = {_identity(parameters): parameters for parameters in wanted}
    return deque(parameters for identity, parameters in distinct.items() if identity not in known)


def _identity(parameters: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, repr(value)) for key, value in parameters.items())
