"""The recorded set itself: complete, and of a kind that the tests beside this one know."""

import json

import numpy as np
import pytest
from golden_data import FOLDER, cases

KINDS = [f"{name}.npz" for name in ("anchors", "functions", "geometry", "e2e", "model/images")]
KINDS += [f"{names}.npz" for names in ("assign/*", "loss/*", "model/out_*", "post/*")]


def test_every_kind_of_case_is_there_and_every_file_is_of_a_kind_that_is_tested() -> None:
    assert {path for kind in KINDS for path in FOLDER.glob(kind)} == set(FOLDER.rglob("*.npz"))
    assert all(cases(kind) for kind in KINDS)
    with pytest.raises(FileNotFoundError, match=r"expected golden files nothing/\*\.npz, but there are none"):
        cases("nothing/*.npz")


def test_arrays_are_those_of_the_manifest() -> None:
    manifest = json.loads((FOLDER / "MANIFEST.json").read_text())
    assert set(manifest) == {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.npz")}
    for name, expected in manifest.items():
        with np.load(FOLDER / name) as arrays:
            found = {key: [str(arrays[key].dtype), list(arrays[key].shape)] for key in arrays.files}
        assert found == expected, name
