"""What a store holds."""

from pipeline.codec.dense import DensePrecision
from pipeline.codec.precision import Precision
from pipeline.core.config import Count, Section
from pipeline.detector.config import NetworkPrecision
from pipeline.regions.config import RegionsConfig
from pipeline.views.geometry import Views


class CacheConfig(Section, frozen=True, kw_only=True):
    """What the store holds, and how finely."""

    views: Views
    precision: Precision
    regions: RegionsConfig = RegionsConfig()
    dense: DensePrecision | None = None
    """The teacher at every point of every view as well, for students with BCKD's terms."""
    valuable_classes: bool = False
    """Class logits in the valuable region as well, for students with ``vlr_kd_weight``."""
    views_per_partition: Count = 512
    """Views in one unit of work, of commit and of repair."""
    batch_size: Count = 32
    """Views in one forward pass of the teacher; part of the fingerprint, for it can change last bits."""
    forward_precision: NetworkPrecision = "float32"
    """Precision of the teacher; part of the fingerprint unless it is float32."""
