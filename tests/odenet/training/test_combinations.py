"""What may be asked of which network: combinations that are refused with the reason, and those that are not."""

from itertools import cycle, product
from typing import Any

import pytest
import torch

from odenet import (
    Basis,
    ExperimentConfig,
    Gradient,
    Initialisation,
    ModelConfig,
    Network,
    RefinementConfig,
    RuntimeConfig,
    Scheme,
    Start,
    build_model,
    refine,
)
from odenet.integrators.schemes import SCHEMES, TwoStep
from odenet.networks.model_config import check_model
from odenet.networks.table import NETWORKS, RUNGE_KUTTA
from odenet.training.config import depths_after

ONE = RefinementConfig(count=1)
AT = RefinementConfig(at=[2, 4])
RK = ", ".join(scheme.value for scheme in RUNGE_KUTTA)
AT_END = ", ".join(s.value for s in RUNGE_KUTTA if any(stage.abscissa == 1 for stage in SCHEMES[s].stages(1)))


def of(network: str, **model: Any) -> ModelConfig:
    return ModelConfig(network=Network[network], **model)


IMPOSSIBLE: list[tuple[ModelConfig, str]] = [
    # schemes
    (
        of("resnet", scheme=Scheme.rk4),
        r"model\.network=resnet with model\.scheme=rk4: only euler is possible, it is a ResNet\.",
    ),
    (
        of("continuous", scheme=Scheme.lm),
        rf"model\.network=continuous with model\.scheme=lm: only {RK}, .* is possible, .*",
    ),
    (of("continuous", scheme=Scheme.verlet), r"model\.network=continuous with model\.scheme=verlet: only euler, .*"),
    (of("continuous", scheme=Scheme.dopri5), r"model\.network=continuous with model\.scheme=dopri5: only euler, .*"),
    (
        of("continuous", scheme=Scheme.leapfrog),
        r"model\.network=continuous with model\.scheme=leapfrog: only euler, .*",
    ),
    (
        of("hamiltonian", scheme=Scheme.leapfrog),
        r"model\.network=hamiltonian with model\.scheme=leapfrog: only euler, .*, verlet is possible, it is a "
        r"Hamiltonian system of first order\.",
    ),
    (
        of("leapfrog", scheme=Scheme.euler),
        r"model\.network=leapfrog with model\.scheme=euler: only leapfrog is possible, its ODE x'' = R\(x\) is of "
        r"second order\.",
    ),
    (
        of("revnet", scheme=Scheme.euler),
        r"model\.network=revnet with .*: only verlet is possible, it is a reversible .*",
    ),
    (of("lm_resnet", scheme=Scheme.euler), r"model\.network=lm_resnet with .*: only lm is possible, its k_n belong .*"),
    (
        of("polynet", scheme=Scheme.euler),
        r"model\.network=polynet with .*: only polynet is possible, PolyNet's block .*",
    ),
    (
        of("neural_ode", nodes=1, scheme=Scheme.polynet),
        rf"model\.network=neural_ode with model\.scheme=polynet: only dopri5, {RK} is possible, its weights do not .*",
    ),
    # bases
    (
        of("resnet", basis=Basis.hat),
        r"model\.network=resnet with model\.basis=hat: only piecewise_constant is possible, it is a ResNet\.",
    ),
    (
        of("heunnet", basis=Basis.piecewise_constant),
        r"model\.network=heunnet with model\.basis=piecewise_constant: only hat is possible, HeunNet shares the .*",
    ),
    (
        of("continuous", nodes=3, basis=Basis.discontinuous_linear),
        r"model\.nodes=3 with model\.basis=discontinuous_linear: every element has a node at each of its two ends, so "
        r"the number of nodes must be even, such as 4\.",
    ),
    (
        of("hamiltonian", basis=Basis.discontinuous_linear),
        r"model\.nodes=1 with model\.basis=discontinuous_linear: .*",  # of the opening stage
    ),
    # what else a network is
    *(
        (
            of(network, initialisation=Initialisation.zero),
            rf"model\.network={network} with model\.initialisation=zero: only independent, smooth is possible, a zero "
            r"rate has no gradient here\.",
        )
        for network in ("hamiltonian", "midpoint", "leapfrog", "fractalnet")
    ),
    (
        of("preact_resnet", substeps=2),
        r"model\.network=preact_resnet with model\.substeps=2: it is a ResNet, its block is one step; use 1\.",
    ),
    (of("lm_resnet", substeps=2), r"model\.network=lm_resnet with model\.substeps=2: its k_n belong .*; use 1\."),
    (
        of("preact_resnet", depth_time=2.0),
        r"model\.network=preact_resnet with model\.depth_time=2\.0: it is a ResNet; use null\.",
    ),
    (
        of("neural_ode", nodes=2),
        r"model\.network=neural_ode with model\.nodes=2: its weights do not depend on depth; use 1\.",
    ),
    (
        of("hamiltonian", nodes=1),
        r"model\.network=hamiltonian with model\.nodes=1: its last stage has 1 fewer, so at least 2 are needed\.",
    ),
    (
        of("continuous", nodes=512, substeps=9),
        r"model\.nodes=512 with model\.substeps=9 takes 4608 steps per stage: at most 4096 are possible\.",
    ),
    # widths
    (
        of("revnet", width=3),
        r"model\.network=revnet with model\.width=3, widen=1, final_width=None: a partitioned rate halves its "
        r"channels: 3 is odd\.",
    ),
    (
        of("hamiltonian", width=6),
        r"model\.network=hamiltonian with .*: from 6 to 12 channels: zero channels are added on both sides of each "
        r"half, so there must be 4 times 0, 1, 2, \.\.\. more\.",
    ),
    (
        of("midpoint", final_width=8),
        r"model\.network=midpoint with .*, final_width=8: from 32 to 8 channels: .* of the state, so .* 2 times .*",
    ),
    # gradients
    (
        of("lm_resnet", gradient=Gradient.reconstructed),
        r"model\.scheme=lm with model\.gradient=reconstructed: undoing an LM step divides by k_n, which may be 0; .*",
    ),
    (
        of("neural_ode", nodes=1, gradient=Gradient.checkpointed),
        r"model\.scheme=dopri5 with model\.gradient=checkpointed: an adaptive scheme has no fixed steps; use .*",
    ),
    # what would have no effect
    *(
        (
            of("continuous", start=start),
            rf"model\.start={start.value} with model\.scheme=euler has no effect: a start is for two_step_midpoint, "
            r"leapfrog; use consistent\.",
        )
        for start in (Start.repeat, Start.paper)
    ),
    (
        of("continuous", tolerance=1e-4),
        r"model\.tolerance=0\.0001 with model\.scheme=euler has no effect: a tolerance is for dopri5; use 0\.001\.",
    ),
    (
        of("bottleneck_resnet", skip_init=True, initialisation=Initialisation.zero),
        r"model\.skip_init=true with model\.initialisation=zero: either makes the rate zero; use one\.",
    ),
    (
        of("wide_resnet", cardinality=2),
        r"model\.cardinality=2 with model\.network=wide_resnet has no effect: only lm_bottleneck, lm_resnext, "
        r"bottleneck_resnet, resnext, resnet50, resnet101 have groups; use 1\.",
    ),
    # nodes that are not read
    (
        of("continuous", basis=Basis.hat),
        r"model\.scheme=euler with model\.basis=hat, 2 nodes and 1 steps never reads node 1, whose weights would "
        rf"stay untrained: choose a scheme with a stage at the end of the step \({AT_END}\), or "
        r"model\.substeps=2\.",
    ),
    (of("heunnet", scheme=Scheme.euler), r"model\.scheme=euler with model\.basis=hat, 2 nodes and 1 steps never .*"),
    (of("midpoint", basis=Basis.hat), r"model\.scheme=two_step_midpoint with model\.basis=hat, 2 nodes .*"),
    (of("continuous", basis=Basis.discontinuous_linear), r"model\.scheme=euler with .*, 2 nodes and 1 steps never .*"),
]


@pytest.mark.parametrize(("model", "message"), IMPOSSIBLE)
def test_an_impossible_network_is_refused(model: ModelConfig, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ExperimentConfig(model=model)


@pytest.mark.parametrize(
    ("model", "refinement", "message"),
    [
        (
            of("resnet"),
            ONE,
            r"model\.network=resnet with refinement\.count=1: it is a ResNet, its depth cannot change\.",
        ),
        (
            of("lm_resnet"),
            RefinementConfig(coarsen=0.5),
            r"model\.network=lm_resnet with refinement\.coarsen=0\.5: its k_n .*, its depth cannot change\.",
        ),
        (of("revnet"), ONE, r"model\.network=revnet with refinement\.count=1: it is a reversible ResNet, its depth .*"),
        (of("neural_ode", nodes=1), ONE, r"model\.network=neural_ode with refinement\.count=1: its weights do not .*"),
        (
            of("continuous", basis=Basis.hat, nodes=1),
            ONE,
            r"model\.scheme=euler with model\.basis=hat, 2 nodes and 1 steps after refinement never reads node 1, .*",
        ),
        (
            of("continuous", nodes=1024),
            RefinementConfig(count=3, interval=0.1),
            r"refinement\.count=3 from model\.nodes=1024 ends, after 3, with 8192 nodes and 8192 steps per stage: "
            r"at most 4096 are possible; refine less often or start with fewer\.",
        ),
        (of("resnet"), AT, r"model\.network=resnet with refinement\.at=\[2, 4\]: it is a ResNet, its depth cannot .*"),
        (
            of("continuous", nodes=2048),
            AT,
            r"refinement\.at=\[2, 4\] from model\.nodes=2048 ends, after 2, with 8192 .*",
        ),
        (of("continuous"), RefinementConfig(at=[30]), r"refinement\.at=\[30\]: training has 30 epochs, 0 to 29\."),
        (
            of("continuous"),
            RefinementConfig(at=[2, 15], coarsen=0.5),
            r"refinement\.coarsen=0\.5 falls on epoch 15 .*",
        ),
        (
            of("continuous", substeps=2048),
            RefinementConfig(count=2, interval=0.1),
            r"refinement\.count=2 from model\.nodes=2 ends, after 1, with 4 nodes and 8192 steps .*",
        ),
        (
            of("continuous"),
            RefinementConfig(count=9),
            r"refinement\.count=9 with first=0\.3 .* but training has 30: .*",
        ),
        (
            of("continuous"),
            RefinementConfig(count=2, coarsen=0.5),
            r"refinement\.coarsen=0\.5 falls on epoch 15 \(from 0\) of 30: it must come after the last refinement "
            r"\[15\] and before the last epoch ends\.",
        ),
    ],
)
def test_an_impossible_refinement_is_refused(model: ModelConfig, refinement: RefinementConfig, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ExperimentConfig(model=model, refinement=refinement)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        *(
            (
                of("hamiltonian", gradient=gradient),
                rf"runtime\.compile=true with model\.gradient={gradient.value}: an integration that recomputes runs "
                r"outside compiled code, so nothing would be gained; use direct, or compile=false\.",
            )
            for gradient in (Gradient.checkpointed, Gradient.reconstructed)
        ),
        (
            of("neural_ode", nodes=1),
            r"runtime\.compile=true with model\.scheme=dopri5: its steps depend on the data; use false\.",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(model: ModelConfig, message: str) -> None:
    RuntimeConfig().check(model)
    with pytest.raises(ValueError, match=f"^{message}$"):
        RuntimeConfig(compile=True).check(model)


@pytest.mark.parametrize("network", Network)
def test_a_network_is_possible_with_every_scheme_basis_and_initialisation_it_is_said_to_have(network: Network) -> None:
    row = NETWORKS[network]
    can, nodes = row.capability, min(4, row.capability.most_nodes or 4)
    for initialisation in can.initialisations:
        ExperimentConfig(model=ModelConfig(network=network, nodes=nodes, initialisation=initialisation))
    for scheme in can.schemes:
        ExperimentConfig(model=ModelConfig(network=network, nodes=nodes, scheme=scheme, substeps=substeps(network)))
    if row.opening is None:
        for basis in can.bases:
            ExperimentConfig(model=ModelConfig(network=network, nodes=nodes, basis=basis, substeps=substeps(network)))
    for start in Start if isinstance(SCHEMES[row.scheme], TwoStep) else ():
        ExperimentConfig(model=ModelConfig(network=network, nodes=nodes, start=start))


@pytest.mark.slow
def test_whatever_is_built_runs_forward_and_backward_and_the_rest_is_refused_by_a_message_that_names_its_key() -> None:
    """Every network, scheme and basis under one gradient after another, and no ExperimentConfig before it."""
    x_BCHW, possible = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), 0
    asked = product(Network, (None, *Scheme), (None, *Basis), (1, 2, 3, 4))
    for (network, scheme, basis, nodes), gradient in zip(asked, cycle(Gradient), strict=False):
        config = of(network.value, scheme=scheme, basis=basis, nodes=nodes, gradient=gradient, width=8)
        try:
            check_model(config)
        except ValueError as refusal:
            assert str(refusal).startswith("model."), config
            with pytest.raises(ValueError) as refused:
                build_model(config, channels=1, classes=2)
            assert str(refused.value) == str(refusal)
            continue
        possible += 1
        if possible % 5 == 0:
            build_model(config, channels=1, classes=2)(x_BCHW).sum().backward()
    assert possible > 500


def substeps(network: Network) -> int:
    """Two where there may be more than one: so every scheme reads every node."""
    return 2 if NETWORKS[network].capability.substeps else 1


CONTINUOUS = NETWORKS[Network.continuous].capability


@pytest.mark.parametrize("scheme", CONTINUOUS.schemes)
@pytest.mark.parametrize("basis", Basis)
def test_what_the_message_recommends_is_accepted(scheme: Scheme, basis: Basis) -> None:
    for nodes in (2, 4):
        ExperimentConfig(model=ModelConfig(scheme=scheme, basis=basis, nodes=nodes, substeps=2), refinement=ONE)
    if scheme.value in AT_END.split(", "):
        ExperimentConfig(model=ModelConfig(scheme=scheme, basis=basis), refinement=ONE)


@pytest.mark.parametrize("network", [network for network, row in NETWORKS.items() if row.capability.refines])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_depths_at_the_end_of_training_are_known_beforehand(network: Network, count: int) -> None:
    start = ModelConfig(network=network, width=4, nodes=2, substeps=2)
    config = ExperimentConfig(model=start, refinement=RefinementConfig(count=count))
    named = ExperimentConfig(model=start, refinement=RefinementConfig(at=[2, 5, 6][:count] or None))
    model = build_model(start, channels=1, classes=2)
    for _ in range(count):
        refine(model)
    assert depths_after(config) == depths_after(named) == model.depths()
