"""How detectors are evaluated."""

from pipeline.core.config import Positive, Section
from pipeline.core.errors import ConfigError
from pipeline.detector.config import NetworkPrecision
from pipeline.views.geometry import check_scale


class EvaluateConfig(Section, frozen=True, kw_only=True):
    """Section ``evaluate``."""

    scale: tuple[int, int]
    """Test scale ``(long, short)``, px."""
    precision: NetworkPrecision = "float32"
    """Of the networks, that of their training; ONNX files have their own."""
    area_edges: tuple[Positive, Positive] = (32.0, 96.0)
    """Sides in px whose squares part small, medium and large objects (COCO's)."""

    def __post_init__(self) -> None:
        check_scale(self.scale, "scale")
        if not self.area_edges[0] < self.area_edges[1]:
            raise ConfigError(f"area_edges: expected small < large, but got {list(self.area_edges)}")
