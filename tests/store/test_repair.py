"""Repair: every file comes back to the byte, by a rename, and only if it is the recorded one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_cases import LOSSLESS, QUANTIZED, Plan, content_of, flip_bit, make_plan, plan_of, write_store

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.format.schema import REGION
from pipeline.store.reader.verify import verify
from pipeline.store.tools.repair import (
    Damage,
    Rebuilt,
    find_damage,
    rebuild_planned,
    rebuild_shards,
    remove_unexpected,
    silent_targets,
    stored_table,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path, make_plan())


def quiet(_done: int, _total: int) -> None:
    """No progress bar."""


def damage_of(path: Path) -> Damage:
    return find_damage(path, quiet)


def repair(path: Path, plan: Plan) -> Rebuilt:
    """All of it, with the views and targets that the store was written from."""
    damage = damage_of(path)
    remove_unexpected(damage)
    rebuilt = rebuild_planned(damage, plan.table)
    for index in damage.partitions:
        rows = plan.schema.partition_views(index)
        rebuilt += rebuild_shards(damage, index, plan.views[rows], plan.targets[rows])
    return rebuilt


def files_of(path: Path) -> list[str]:
    return sorted(set(content_of(path)) - {"zarr.json"})


def flip(file: Path) -> None:
    flip_bit(file, file.stat().st_size // 2)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def make_folder_of(file: Path) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


def make_dangling_link_of(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


DAMAGES: list[Callable[[Path], None]] = [flip, truncate, Path.unlink, make_folder_of, make_dangling_link_of]


def test_a_whole_store_has_nothing_to_repair(path: Path) -> None:
    damage = damage_of(path)
    assert (damage.lost, damage.unexpected, damage.partitions) == (0, (), ())
    assert repair(path, make_plan()) == Rebuilt()


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
@pytest.mark.parametrize("harm", DAMAGES)
def test_every_damaged_file_comes_back_to_the_byte(
    tmp_path: Path, harm: Callable[[Path], None], precision: Precision
) -> None:
    plan = make_plan(precision)
    path = write_store(tmp_path, plan)
    before = content_of(path)
    for name in files_of(path):
        harm(path / name)
    assert damage_of(path).lost == len(before) - 1
    assert sorted(repair(path, plan).replaced) == sorted(set(before) - {"zarr.json"})
    assert content_of(path) == before


def test_one_damaged_file_is_made_again_alone(path: Path) -> None:
    before = content_of(path)
    for name in files_of(path):
        times = {other: (path / other).stat().st_mtime_ns for other in before if other != name}
        flip(path / name)
        assert repair(path, make_plan()) == Rebuilt(replaced=(name,))
        assert content_of(path) == before
        assert times == {other: (path / other).stat().st_mtime_ns for other in times}


def test_damage_is_sorted_by_how_it_is_mended(path: Path) -> None:
    harmed = ["points/zarr.json", "views/extent/c/0/0", "points/region/c/1/0", "main/cls_codes/c/3/0"]
    for name in harmed:
        flip(path / name)
    (path / "points/stray.partial").touch()
    damage = damage_of(path)
    assert list(damage.metadata) == ["points/zarr.json"]
    assert list(damage.tables) == ["views/extent/c/0/0"]
    assert {index: list(files) for index, files in damage.shards.items()} == {1: [harmed[2]], 3: [harmed[3]]}
    assert damage.unexpected == ("points/stray.partial",)
    assert (damage.lost, damage.partitions) == (4, (1, 3))


def test_a_shard_that_the_plan_decides_needs_no_teacher(path: Path) -> None:
    before = content_of(path)
    flip(path / REGION / "c/0/0")
    flip(path / "main/cls_codes/c/1/0")
    damage, plan = damage_of(path), make_plan()
    assert not damage.needs_teacher(0)
    assert damage.needs_teacher(1)
    views = plan.views[plan.schema.partition_views(0)]
    rebuilt = rebuild_shards(damage, 0, views, silent_targets(plan.schema, views))
    assert rebuilt == Rebuilt(replaced=(f"{REGION}/c/0/0",))
    assert (path / REGION / "c/0/0").read_bytes() == before[f"{REGION}/c/0/0"]


def test_what_a_teacher_says_otherwise_does_not_come_in(path: Path) -> None:
    plan = make_plan()
    other = [replace(soft, edge_logits=np.roll(soft.edge_logits, 1, axis=-1)) for soft in plan.targets]
    for name in ("points/region/c/0/0", "points/edge_codes/c/0/0"):
        flip(path / name)
    harmed = content_of(path)
    rebuilt = repair(path, replace(plan, targets=other))
    assert rebuilt == Rebuilt(replaced=("points/region/c/0/0",), different=("points/edge_codes/c/0/0",))
    assert (path / "points/edge_codes/c/0/0").read_bytes() == harmed["points/edge_codes/c/0/0"]


def test_another_plan_of_views_is_refused(path: Path) -> None:
    flip(path / "views/extent/c/0/0")
    harmed = content_of(path)
    with pytest.raises(CacheError, match="the code that plans views has changed"):
        repair(path, plan_of(make_plan().views[:-1]))
    assert content_of(path) == harmed


def test_the_table_of_a_store_is_the_one_that_it_was_written_from(path: Path) -> None:
    assert stored_table(damage_of(path)).digest() == make_plan().table.digest()


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_linked_read_only_files_are_replaced_and_not_written_to(
    path: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    """As DVC leaves a store: every file a link to a file of its cache, which nobody may write to."""
    before = content_of(path)
    cached = tmp_path / "dvc"
    for number, name in enumerate(files_of(path)):
        target = cached / str(number)
        target.parent.mkdir(exist_ok=True)
        (path / name).rename(target)
        if number % 2:
            flip(target)
        target.chmod(0o444)
        link(path / name, target)
    kept = content_of(cached)
    repair(path, make_plan())
    assert content_of(path) == before
    assert content_of(cached) == kept
    for number, name in enumerate(files_of(path)):
        assert (path / name).samefile(cached / str(number)) == (number % 2 == 0)


def test_files_that_are_not_part_of_the_store_go_with_their_folders(path: Path, tmp_path: Path) -> None:
    before = content_of(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("stays")
    (path / "more/of/this").mkdir(parents=True)
    (path / "more/of/this/stray").touch()
    (path / "points/edge_codes/c/0/0.abc.partial").touch()
    (path / "views/link").symlink_to(elsewhere)
    (path / "views/dangling").symlink_to("nowhere")
    repair(path, make_plan())
    assert content_of(path) == before
    assert not (path / "more").exists()
    assert not (path / "views/dangling").is_symlink()
    assert elsewhere.read_text() == "stays"


def test_without_its_root_a_store_cannot_be_repaired_and_is_left_alone(path: Path) -> None:
    flip_bit(path / "zarr.json", 300)
    flip(path / "points/region/c/0/0")
    harmed = content_of(path)
    with pytest.raises(
        CacheError, match=r"without the store's own records: .*zarr.json is damaged.*dvc repro"
    ):
        repair(path, make_plan())
    assert content_of(path) == harmed


def test_a_file_that_the_disk_does_not_give_back_is_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_open(self: Path, *arguments: object, **names: object) -> object:
        if self.name == "0" and "edge_codes" in str(self):
            raise OSError(5, "Input/output error")
        return real_open(self, *arguments, **names)  # type: ignore[arg-type]

    real_open = Path.open
    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", broken_open)
        problems = verify(path, quiet)
    assert {problem.message for problem in problems} == {"the file cannot be read (Input/output error)"}
    assert {problem.partition for problem in problems} == {0, 1, 3}
