"""Image files as arrays: what the manifest says, in memory that processes share."""

import pickle
from pathlib import Path

import pytest
from teacher_cases import small_manifest

from pipeline.training.files import ImageFiles


def test_files_are_those_of_the_manifest(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    files = ImageFiles.of_manifest(manifest)
    for record in manifest.images:
        path, size_hw = files.find(record.image_id)
        assert path == manifest.image_path(record)
        assert size_hw == (record.height, record.width)


@pytest.mark.parametrize("image_id", [-1, 10**9])
def test_an_image_that_is_not_there_is_refused(image_id: int, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        ImageFiles.of_manifest(small_manifest(tmp_path)).find(image_id)


def test_a_spawned_process_is_sent_no_annotations(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    assert b"nnotation" in pickle.dumps(manifest)
    assert b"annotation_id" not in pickle.dumps(ImageFiles.of_manifest(manifest))
