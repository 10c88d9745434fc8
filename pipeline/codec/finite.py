"""The one check that every quantizer makes on its input."""

import numpy as np
from numpy.typing import NDArray


def require_finite(name: str, values: NDArray[np.floating]) -> None:
    """Refuse NaN and infinity: as codes they would look like ordinary values.

    Raises:
        ValueError: Says how many values of ``name`` are not finite.
    """
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise ValueError(f"expected finite {name}, but {bad} of {values.size} values are NaN or infinite")
