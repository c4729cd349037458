"""What Ray's autoscaler on a cloud is told by RAY_AUTOSCALER_UTILIZATION_SCORER: which type of node to start.

Ray's own answer does not look at whether the cloud had any: it asks for a spot instance again and again while there are
none. It is found by its name alone, and runs in the autoscaler's process on the head.
"""

from typing import Any

ON_DEMAND = "_on_demand"  # how names of node types end that come last


def score(
    node_resources: dict[str, Any],
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Rank a type of node for these requests: first those that the cloud has not refused of late (Ray remembers for
    half an hour), of these spot before on-demand, then as Ray does. None: no request fits."""
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

    ours = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if ours is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (record is None or record.is_available, not node_type.endswith(ON_DEMAND), *ours)
