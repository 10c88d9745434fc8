"""A killed training run goes on to the same weights; nothing bad replaces what it goes on from."""

import random
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from training_cases import FULL, KilledAfterSaving, KilledError, same_weights, student, taught

from pipeline.core.errors import CacheError, PipelineError
from pipeline.detector.gfl import GFL
from pipeline.student.config import StudentConfig
from pipeline.training.checkpoints import Checkpoints, hold_checkpoints
from pipeline.training.loop import Trained, Validation
from pipeline.training.processes import SINGLE_PROCESS

pytestmark = pytest.mark.slow

EPOCHS = 4
CONFIG = student(FULL, epochs=EPOCHS)

Run = Callable[..., Trained]


@pytest.fixture(scope="module")
def run(stores: Path) -> Run:
    def run(config: StudentConfig = CONFIG, rows_of: int = 3, **options: Any) -> Trained:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.training.loop.log_interval", lambda _steps: rows_of)
            return taught(config, stores, **options)

    return run


@pytest.fixture(scope="module")
def straight(run: Run) -> Run:
    """Undisturbed runs, each made once."""
    return cache(run)


def change_step(
    step: int, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.optim.Optimizer], object]
) -> None:
    """Have something happen before the update of a step (0, 1, ...), once."""
    plain, calls = torch.optim.SGD.step, count()

    def changed(optimizer: torch.optim.SGD, *arguments: object) -> object:
        if next(calls) == step:
            change(optimizer)
        return plain(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", changed)


def kill(_optimizer: torch.optim.Optimizer) -> None:
    raise KilledError


@pytest.mark.parametrize(
    ("step", "precision", "saves"),
    [
        (3, "float32", 4),
        (15, "float32", 4),
        (9, "float16", 4),
        *((step, "float32", 1) for step in (1, 4, 14)),
    ],
)
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_curve(
    step: int,
    precision: str,
    saves: int,
    run: Run,
    straight: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rows of three steps, which the ends of epochs of four cut, or of one, with a checkpoint after each."""
    config = replace(CONFIG, train=replace(CONFIG.train, precision=precision))
    rows_of, seconds = (3, 300) if saves == 4 else (1, 0)
    expected = straight(config, rows_of)
    checkpoints = Checkpoints(folder=tmp_path, seconds=seconds)
    with monkeypatch.context() as patch:
        change_step(step, patch, kill)
        with pytest.raises(KilledError):
            run(config, rows_of, checkpoints=checkpoints)
    caplog.set_level("INFO")
    resumed = run(config, rows_of, checkpoints=checkpoints)
    assert f"after step {step // saves * saves} of 16" in caplog.text or step < saves
    assert same_weights(resumed.model, expected.model)
    assert resumed.curve == expected.curve


def test_a_finished_run_that_was_killed_while_writing_is_not_trained_again(run: Run, tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    finished = run(checkpoints=checkpoints)
    before = checkpoints.load(SINGLE_PROCESS)["seconds"]
    again = run(checkpoints=checkpoints)
    assert again.seconds > before > 0, "the time of the first run counts"
    assert same_weights(again.model, finished.model)
    assert again.curve == finished.curve


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epoch_is_kept_if_it_is_to_be_and_survives_a_kill(
    keep: str, run: Run, straight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[GFL] = []
    left = iter((1, 3, 2, 3))

    def score(model: GFL) -> dict[str, float | None]:
        shown.append(GFL(model.config))
        shown[-1].load_state_dict(model.state_dict())
        value = next(left)
        return {"AP": value, "AP50": value, "AP75": None}

    options = {
        "checkpoints": Checkpoints(folder=tmp_path),
        "validation": Validation(score=score, every=1, keep=keep),
    }
    with monkeypatch.context() as patch:
        change_step(13, patch, kill)
        with pytest.raises(KilledError):
            run(**options)
    resumed = run(**options)
    assert same_weights(resumed.model, shown[1] if keep == "best" else straight(CONFIG).model)
    assert {epoch: row["AP"] for epoch, row in resumed.scores.items()} == {1: 1, 2: 3, 3: 2, 4: 3}


@pytest.mark.parametrize(
    ("step", "bad", "message"),
    [(6, "nan", "a finite loss, but got loss_cls=nan"), (7, "inf", "finite weights")],
)
def test_what_is_not_finite_leaves_the_last_good_checkpoint(
    step: int, bad: str, message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch's last step, the loss is still finite; the next one would not be."""
    checkpoints = Checkpoints(folder=tmp_path)
    change_step(
        step, monkeypatch, lambda optimizer: optimizer.param_groups[0]["params"][0].data.fill_(float(bad))
    )
    with pytest.raises(PipelineError, match=rf"^step 7: expected {message}"):
        run(checkpoints=checkpoints)
    kept = checkpoints.load(SINGLE_PROCESS)
    assert kept["curve"]["step"] == 4
    assert all(value.isfinite().all() for value in kept["weights"].values())


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Checkpoints:
    """The checkpoint of the first epoch."""
    with pytest.raises(KilledError):
        run(checkpoints=KilledAfterSaving(folder=tmp_path))
    return Checkpoints(folder=tmp_path)


def test_a_checkpoint_is_refused_with_any_bit_flipped_and_at_any_length(saved: Checkpoints) -> None:
    whole, rng = saved.path.read_bytes(), random.Random(0)
    damaged = [whole[: rng.randrange(1, len(whole))] for _ in range(20)]
    for _ in range(100):
        place = rng.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
    for content in (*damaged, b"", b"no checkpoint", b"x" * 10**5):
        saved.path.write_bytes(content)
        with pytest.raises(CacheError, match=r"^[^\n]*checkpoint.pt: expected a checkpoint .* remove it"):
            saved.load(SINGLE_PROCESS)
    saved.path.write_bytes(whole)
    assert saved.load(SINGLE_PROCESS)["curve"]["step"] == 4


def test_a_checkpoint_of_other_keys_or_shapes_is_refused_in_one_line(run: Run, saved: Checkpoints) -> None:
    state = saved.load(SINGLE_PROCESS)
    weights = {name: value[:1] if value.dim() else value for name, value in state["weights"].items()}
    changes = {"weights": {}, "optimizer": {}, "curve": {}, "scores": [{"epoch": 1}]}
    wrong = [{}, {**state, "weights": weights}, *({**state, name: value} for name, value in changes.items())]
    for other in wrong:
        saved.save(other)
        with pytest.raises(CacheError, match=r"^[^\n]*checkpoint.pt: expected a checkpoint [^\n]* remove it"):
            run(checkpoints=saved)


def test_code_that_has_changed_is_named_and_goes_on_where_the_user_says_so(
    run: Run,
    straight: Run,
    saved: Checkpoints,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = "pipeline/views/images.py"
    state, old = saved.load(SINGLE_PROCESS), {**saved.code, module: "other", "torch": "0"}
    Checkpoints(folder=saved.folder, code=old).save(state)
    before = saved.path.read_bytes()
    with pytest.raises(CacheError, match=rf"{module}, torch; LDP_RESUME=changed-code .* removing the file"):
        run(checkpoints=saved)
    assert saved.path.read_bytes() == before, "nothing is deleted"
    monkeypatch.setenv("LDP_RESUME", "changed-code")
    assert same_weights(run(checkpoints=saved).model, straight(CONFIG).model)
    assert f"going on with code that has changed since: {module}, torch" in caplog.text


def test_the_folder_is_held_by_one_run_and_goes_when_it_ends_well(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    held = partial(hold_checkpoints, folder, tmp_path, SINGLE_PROCESS)
    with pytest.raises(KilledError), held():
        raise KilledError
    assert folder.is_dir()
    with held():
        with pytest.raises(CacheError, match="another run"), held():
            pass
        assert folder.is_dir()
    assert not folder.exists()
