"""How detectors are evaluated."""

from dataclasses import dataclass

from pipeline.core.errors import ConfigError
from pipeline.views.geometry import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Section ``evaluate``."""

    scale: tuple[int, int]
    """Test scale ``(long, short)``, px."""
    batch_size: int
    area_edges: tuple[float, float]
    """Sides in px whose squares part small, medium and large objects."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: expected 1 or more, but got {self.batch_size}")
        if not 0 < self.area_edges[0] < self.area_edges[1]:
            raise ConfigError(f"area_edges: expected 0 < small < large, but got {self.area_edges}")
        # The rule of scales is that of views.
        ViewsConfig(scales=(self.scale,), flips=(False,))
