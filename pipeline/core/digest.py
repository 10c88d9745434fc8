"""One number for a document, whatever the order of its keys."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(document: Any) -> bytes:
    """The one byte string of a JSON document: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
