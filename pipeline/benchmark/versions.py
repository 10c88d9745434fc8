"""What a measurement was made with."""

import platform
from collections.abc import Iterable
from importlib.metadata import version


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Processor, Python and some packages."""
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
