"""Errors that a user can cause: a message says what was expected, what came, where, and what to do next."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from reprlib import Repr

MAX_SHOWN = 200
"""Characters of a text, or of a number's digits, that a message repeats."""


class PipelineError(Exception):
    """Base of every error that is shown as one clear line, without a traceback."""

    def __str__(self) -> str:
        """One line, whatever a file's name or another library's message has in it."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class ConfigError(PipelineError, ValueError):
    """A parameter file is wrong; a ``ValueError`` too, so that msgspec adds to it where a value stands."""


class DatasetError(PipelineError):
    """A dataset's folder, annotation file or image cannot be used."""


class TeacherError(PipelineError):
    """A teacher's weights or outputs cannot be used."""


class CacheError(PipelineError):
    """A store is incomplete, damaged, of another version or of another fingerprint."""


class OutputError(PipelineError):
    """A file cannot be written."""


@contextmanager
def explained_memory() -> Iterator[None]:
    """Raise a ``PipelineError`` with the ways out where Python or torch has too little memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_memory = ("out of memory", "can't allocate memory")  # in torch's words of a GPU and of the CPU
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in of_memory):
            raise
        reason = str(error).partition("\n")[0][:MAX_SHOWN] or "MemoryError"
        raise PipelineError(
            f"expected enough memory, but it is used up ({reason}); set LDP_MICRO_BATCH, LDP_EVAL_BATCH, "
            "a smaller cache_teacher.batch_size, or fewer LDP_WORKERS, and run again"
        ) from error


def short_repr(value: object) -> str:
    """A value from outside as it stands in a message: one short line, however large or deep it is."""
    short = Repr()
    short.maxstring = short.maxlong = short.maxother = MAX_SHOWN
    return short.repr(value)


def listed(items: Sequence[object], most: int = 10) -> str:
    """The first items, and how many more there are."""
    shown, more = ", ".join(map(str, items[:most])), len(items) - most
    return f"{shown} and {more:,} more" if more > 0 else shown
