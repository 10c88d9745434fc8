"""What BCKD's two terms cost, forward and backward, beside the quality focal loss that every step has.

uv run python tests/scale/bckd_terms.py --images 8 --positions 3598 --classes 80 --bins 8
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.codec.dense import DensePrecision
from pipeline.cost.timer import take_turns
from pipeline.losses.detection import quality_focal_loss
from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss, bckd_distances


def main() -> None:
    """Print the lowest milliseconds of many rounds: the machine may be busy."""
    parser = argparse.ArgumentParser()
    for name, value in {"images": 8, "positions": 3598, "classes": 80, "bins": 8, "rounds": 50}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    sizes = parser.parse_args()
    torch.manual_seed(0)
    cells = sizes.images, sizes.positions
    logits = (torch.randn(*cells, sizes.classes) - 4).requires_grad_()
    edges = torch.randn(*cells, 4, sizes.bins).requires_grad_()
    scores = torch.from_numpy(DensePrecision().scores(-7.0))
    codes = torch.randint(0, len(scores), logits.shape, dtype=torch.uint8)
    distances, weight, goal = 7 * torch.rand(*cells, 4), torch.rand(cells), torch.zeros(logits.shape)
    terms: dict[str, Callable[[], Tensor]] = {
        "class term": lambda: bckd_cls_loss(logits, codes, scores)[0],
        "box term": lambda: bckd_box_loss(bckd_distances(edges), distances) * weight,
        "quality focal loss": lambda: quality_focal_loss(logits, goal),
    }

    def learn(term: Callable[[], Tensor]) -> None:
        logits.grad = edges.grad = None
        term().sum().backward()  # type: ignore[no-untyped-call]

    work = {name: lambda term=term: learn(term) for name, term in terms.items()}
    for name, repeats in take_turns(work, sizes.rounds, torch.device("cpu")).items():
        print(f"{name:20}{1e3 * repeats.lowest:8.1f} ms")


if __name__ == "__main__":
    main()
