"""The blocks of shell commands of the READMEs, and a shell that runs them in a small project."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from project import run

from recipes import DATASET, ROOT

STORE = "runs/shapes/cache/targets.zarr"
LD_STAGES = {"train_student@ld", "evaluate_student@ld", "report"}

STAND_INS = {
    "uv run ": "",
    "/path/to/coco-sample": "{dataset}",
    "/path/to/coco ": "{dataset} ",
    "git@example.org:lab/ld.git": "{folder}/hub.git",
    "/mnt/share/ld": "{folder}/remote",
    "/srv/ld-cache": "{folder}/shared_cache",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "--all-commits": "--all-commits --force",
}
"""What stands in a README for a place, a machine and an answer of the reader's own, and what it is here."""


@dataclass(frozen=True)
class Block:
    """Shell commands of a README, from a line on, and why they are not run; empty if they are."""

    readme: str
    line: int
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.readme}:{self.line}"


def blocks() -> list[Block]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*README.md"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    pattern = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n+)?^```(?:sh|bash)\n(.*?)^```", re.M | re.S)
    found = []
    for name in names:
        text = (ROOT / name).read_text()
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Block(name, line, match[2], match[1] or ""))
    return found


BLOCKS = blocks()


def block_with(command: str, readme: str = "stages/README.md") -> Block:
    """The first block of a manual that holds a command."""
    return next(block for block in BLOCKS if block.readme == readme and command in block.text)


OWN_IMAGES = block_with("ldp recipe new", "README.md")
IN_ORDER = [
    block_with(command)
    for command in (
        *("dvc push", "git clone", "--pull --allow-missing", "dvc fetch --run-cache", "ldp store show"),
        *("cache.shared", "dvc exp run -S", "dvc queue start"),
    )
]
ALONE = [block for block in BLOCKS if block not in (OWN_IMAGES, *IN_ORDER) and not block.not_run]


def shell(where: Path, folder: Path, text: str, **changes: str) -> str:
    """Run commands; the places that they name are below ``folder``."""
    for named, here in STAND_INS.items():
        text = text.replace(named, here.format(folder=folder, dataset=folder / "project" / DATASET))
    return run(where, "bash", "-euo", "pipefail", "-c", text, **changes)
