import pytest

from pipeline.core.errors import CacheError
from pipeline.core.files import digest
from pipeline.store.format.fingerprint import check_compatible, diff

STORED = {"teacher": {"weights": "abc", "stride": 8}, "views": [1, 2]}


def test_digest_ignores_the_order_of_keys_and_tells_values_apart() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_digest_by_hand() -> None:
    """``printf '{"a":[1,2]}' | sha256sum``, so that no release changes what stores are keyed by."""
    assert digest({"a": (1, 2)}) == "01530d164d479cf08e26d3b1ad9bdba927120d97e2d057a6d792db778780d720"


def test_equal_and_partial_needs_are_met() -> None:
    check_compatible(STORED, STORED)
    check_compatible(STORED, {"teacher": {"stride": 8}, "views": (1, 2)})


def test_a_mismatch_names_the_path_and_both_values() -> None:
    with pytest.raises(CacheError, match=r'teacher\.weights is "abc" in the store, but "xyz" is needed'):
        check_compatible(STORED, {"views": [3], "teacher": {"weights": "xyz"}})


def test_a_need_that_the_store_does_not_know_is_a_mismatch() -> None:
    with pytest.raises(CacheError, match=r"teacher\.depth is \(absent\) in the store, but 101 is needed"):
        check_compatible(STORED, {"teacher": {"depth": 101}})


def test_a_value_in_place_of_a_section_is_a_mismatch() -> None:
    assert diff(STORED, {"teacher": "abc"}) == (
        "teacher",
        '{"stride":8,"weights":"abc"}',
        '"abc"',
    )
