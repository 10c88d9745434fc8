"""How charts look: colors and matplotlib's settings, for the page and for single pictures."""

from typing import Any, Final

INK, MUTED, HAIRLINE, TRUTH = "#22262e", "#6b7280", "#d8dce3", "#1f7a4d"

STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "font.size": 12.0,
    "text.color": INK,
    "axes.edgecolor": HAIRLINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef2",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "lines.solid_joinstyle": "round",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

EDGE_NAMES = ("left", "top", "right", "bottom")

TEACHER, VALUABLE, MAIN = "#27364f", "#d79a1e", "#5b4a9e"
"""Colors of the teacher, of the valuable and of the main region."""

PALETTE = (
    *("#d1495b", "#0072b2", "#2a9d5c", "#c77700", "#7b4fb5"),
    *("#00889a", "#b5367f", "#6b6f1a", "#8c4a2f", "#4a5fc1"),
)
"""Colors of classes and objects: dark enough for white text on them."""
