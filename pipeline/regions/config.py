"""Which points distillation reads."""

from typing import Any, Literal

from pipeline.core.config import Section, Share

Vlr = Literal["released", "paper", "inside"]
"""As the LD repository computes the region (the published numbers), as the paper writes it, or all points in
a box: for students whose assigner may choose any of them."""


class RegionsConfig(Section, frozen=True, kw_only=True):
    """The valuable localization region; the main region has no parameter."""

    vlr: Vlr = "released"
    vlr_gamma: Share = 0.25
    """The region starts at this fraction of ATSS's threshold (``gamma`` of the paper)."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in fingerprints, in the words that they always had."""
        return {"overlap": "diou" if self.vlr == "paper" else self.vlr, "lower_fraction": self.vlr_gamma}
