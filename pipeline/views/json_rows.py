"""Large JSON files, read row by row: memory holds a block of the file and one row, never the whole."""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, BinaryIO

BLOCK_BYTES = 2**20

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_CUT_OFF = 3
"""Characters that may follow a number and still belong to it: of ``1.5e-`` at the end, ``1.5`` is read."""


def read_json(blocks: Iterable[bytes], rows: Mapping[str, Callable[[Any], None]]) -> Any:
    """Decode a JSON file as :func:`json.loads` does, but hand the rows of its large lists on, one by one.

    Args:
        blocks: The bytes of the file.
        rows: Who takes the rows of the lists that stand under a key of the outermost object.

    Returns:
        The decoded value, in which lists whose rows were handed on are empty.

    Raises:
        ValueError: It is not JSON, or a key of the outermost object stands there twice.
        RecursionError: It is a list in a list in a list ...
    """
    text = _Window(_decode(iter(blocks)))
    content = _read_object(text, rows) if text.peek() == "{" else text.read_value()
    if text.peek():
        raise text.unexpected("the end")
    return content


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file from where it stands."""
    while block := file.read(BLOCK_BYTES):
        yield block


def _decode(blocks: Iterator[bytes]) -> Iterator[str]:
    first = next(blocks, b"")
    return codecs.iterdecode(chain([first], blocks), json.detect_encoding(first), "surrogatepass")


class _Window:
    """The part of a text that is being read; what has been read is dropped, what follows is fetched."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks = blocks
        self._text = ""
        self._place = 0
        self._dropped = 0

    def peek(self) -> str:
        """The next character that is not white space; none at the end of the text."""
        while True:
            space = _SPACE.match(self._text, self._place)
            assert space is not None, "nothing is white space, too"
            self._place = space.end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._fetch():
                return ""

    def take(self, expected: str) -> str:
        """The next character that is not white space, which must be one of some, and is passed."""
        got = self.peek()
        if not got or got not in expected:
            raise self.unexpected(" or ".join(map(repr, expected)))
        self._place += 1
        return got

    def read_value(self) -> Any:
        """The next value, which is passed."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if not self._fetch():
                    raise ValueError(f"{error.msg}: character {self._dropped + error.pos}") from error
                continue
            if end + _CUT_OFF <= len(self._text) or not self._fetch():
                self._place = end
                return value

    def unexpected(self, expected: str) -> ValueError:
        """What is wrong at this place."""
        return ValueError(f"Expecting {expected}: character {self._dropped + self._place}")

    def _fetch(self) -> bool:
        """Look at twice as much text, so that a long row is not tried too often; false at the end."""
        rest = len(self._text) - self._place
        fetched = list(islice(self._blocks, 1 + rest // BLOCK_BYTES))
        if fetched:
            self._text = "".join([self._text[self._place :], *fetched])
            self._dropped += self._place
            self._place = 0
        return bool(fetched)


def _read_object(text: _Window, rows: Mapping[str, Callable[[Any], None]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in _members(text, "{}"):
        if text.peek() != '"':
            raise text.unexpected("a key")
        key = text.read_value()
        if key in content:
            raise ValueError(f"the key {key!r} stands there twice")
        text.take(":")
        if key in rows and text.peek() == "[":
            content[key] = []
            for _ in _members(text, "[]"):
                rows[key](text.read_value())
        else:
            content[key] = text.read_value()
    return content


def _members(text: _Window, brackets: str) -> Iterator[None]:
    """Stop before every member of a list or of an object; brackets and commas are passed."""
    closing = brackets[1]
    text.take(brackets[0])
    if text.peek() == closing:
        text.take(closing)
        return
    yield
    while text.take("," + closing) == ",":
        yield
