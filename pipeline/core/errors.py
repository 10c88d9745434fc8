"""Errors that a user can cause: a message says what was expected, what came, where, and what to do next."""

from reprlib import Repr

MAX_SHOWN = 200
"""Characters of a text, or of a number's digits, that a message repeats."""


class PipelineError(Exception):
    """Base of every error that is shown as one clear line, without a traceback."""

    def __str__(self) -> str:
        """One line, whatever a file's name or another library's message has in it."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class ConfigError(PipelineError, ValueError):
    """``params.yaml`` (or a recipe) lacks a key, has an unknown one, or a value out of range.

    A ``ValueError`` too, so that msgspec adds to it where a value stands.
    """


class DatasetError(PipelineError):
    """A dataset's folder, annotation file or image cannot be used."""


class TeacherError(PipelineError):
    """A teacher's weights or outputs cannot be used."""


class CacheError(PipelineError):
    """A store is incomplete, damaged, of another version or of another fingerprint."""


class OutputError(PipelineError):
    """A file cannot be written."""


def short_repr(value: object) -> str:
    """A value from outside as it stands in a message: one short line, however large or deep it is."""
    short = Repr()
    short.maxstring = short.maxlong = short.maxother = MAX_SHOWN
    return short.repr(value)
