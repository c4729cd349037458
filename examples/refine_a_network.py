"""Train a shallow network, refine it in depth while it trains, and look at it under other integrators.

Run it with `python examples/refine_a_network.py`; it takes seconds, on scikit-learn's digits.
"""

from odenet import (
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    RefinementConfig,
    Scheme,
    Training,
    TrainingConfig,
    evaluate,
    manifest,
    refine,
)

# An experiment is one value. Twice the cells from epoch 6 on (counted from 0): one node to a stage, then two.
CONFIG = ExperimentConfig(
    data=DataConfig(per_class=20),
    model=ModelConfig(width=4, nodes=1, scheme=Scheme.midpoint),
    training=TrainingConfig(epochs=12),
    refinement=RefinementConfig(at=[6]),
)


def main() -> None:
    # The loop is yours: training yields a report after every epoch and knows nothing of who pulls it.
    training = Training(CONFIG)
    for report in training:
        metrics = report.metrics
        print(
            f"epoch {report.epoch}: {metrics['depth/nodes']} nodes per stage, "
            f"loss {metrics['train/loss']:.3f}, val accuracy {metrics['val/accuracy']:.3f}"
        )

    # The same weights under other integrators and numbers of steps. How much accuracy is kept says how far the network
    # is the ODE that it discretises, rather than these very steps.
    model, images = training.model, training.val_batches
    for scheme, steps in ((Scheme.midpoint, 2), (Scheme.rk4, 2), (Scheme.rk4, 8), (Scheme.euler, 2)):
        score = evaluate(manifest(model, scheme=scheme, steps=steps), images)
        print(f"{scheme.value} with {steps} steps: val accuracy {score.accuracy:.3f}, loss {score.loss:.3f}")

    # `refine` by hand, for a training loop of your own: it changes the network in place and takes an optimizer along.
    # The weights are the same function of depth as before, so the network is the same under twice the steps.
    before = evaluate(manifest(model, scheme=Scheme.midpoint, steps=4), images)
    refine(model, training.optimizer)
    after = evaluate(model, images)
    print(f"{model.depths()[0].nodes} nodes per stage: loss {after.loss:.3f}, as before: {before.loss:.3f}")


if __name__ == "__main__":
    main()
