"""Reading a whole store to find what is damaged."""

from pathlib import Path
from typing import NamedTuple

from pipeline.core.progress import show_progress
from pipeline.store.format.attributes import ROOT_METADATA
from pipeline.store.reader.reader import read_finished, recorded_files


class Problem(NamedTuple):
    """A damaged, missing or unexpected file by its path inside the store; its partition, if it is a shard."""

    file: str
    partition: int | None
    message: str


def verify(path: Path, label: str | None = None) -> list[Problem]:
    """Files that are not of the recorded size and sha256, in order; errors as of :func:`read_finished`."""
    files = list(recorded_files(read_finished(path)))
    paths = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    strays = {file.relative_to(path).as_posix() for file in paths} - {file.name for file in files}
    problems = [Problem(name, None, "the file is not part of the store") for name in strays - {ROOT_METADATA}]
    for file in show_progress(files, len(files), label, unit=" files") if label else files:
        try:
            message = file.digest.problem(path / file.name)
        except OSError as error:  # what the disk does not give back is damaged like any other
            message = f"the file cannot be read ({error.strerror})"
        if message:
            problems.append(Problem(file.name, file.partition, message))
    return sorted(problems, key=lambda problem: problem.file)
