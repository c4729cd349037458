"""ContinuousNet by one integrator each: what the continuous family searches, its scheme fixed."""

from search_spaces import SPACES as FAMILIES
from search_spaces import Space

SPACES: dict[str, Space] = {
    f"continuous_{scheme}": FAMILIES["continuous"].fix({"model.scheme": scheme}) for scheme in ("euler", "rk4")
}
