"""Which points distillation reads."""

from typing import Any, Literal

from pipeline.core.config import Section, Share


class RegionsConfig(Section, frozen=True, kw_only=True):
    """The valuable localization region; the main region has no parameter."""

    vlr: Literal["released", "paper"] = "released"
    """As the LD repository computes it (the published numbers), or as the paper writes it."""
    vlr_gamma: Share = 0.25
    """The region starts at this fraction of ATSS's threshold (``gamma`` of the paper)."""

    @property
    def overlap(self) -> Literal["released", "diou"]:
        """The overlap that bounds the region."""
        return "diou" if self.vlr == "paper" else "released"

    def to_json(self) -> dict[str, Any]:
        """As it stands in fingerprints, in the words that they always had."""
        return {"overlap": self.overlap, "lower_fraction": self.vlr_gamma}
