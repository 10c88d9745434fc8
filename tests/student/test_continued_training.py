"""A killed training run goes on to the same weights; nothing bad replaces what it goes on from."""

import hashlib
import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import QUANTIZED, small_view_set
from training_cases import (
    FULL,
    IMAGES,
    KilledAfterSaving,
    KilledError,
    same_weights,
    store_of,
    student,
    taught,
)

from pipeline.core.errors import CacheError, PipelineError
from pipeline.detector.gfl import GFL
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.train import run_identity
from pipeline.training.checkpoints import Checkpoints, hold_checkpoints, run_key
from pipeline.training.loop import Trained
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.training.validation import Validation

pytestmark = pytest.mark.slow

EPOCHS = 4
CONFIG = student(FULL, epochs=EPOCHS)

Run = Callable[..., Trained]


@pytest.fixture(scope="module")
def run(stores: Path) -> Run:
    return lambda config=CONFIG, **options: taught(config, stores, **{"log_every": 3, **options})


@pytest.fixture(scope="module")
def straight(run: Run) -> Run:
    """Undisturbed runs, each made once."""
    return cache(run)


def kill_in_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the training raise in a step (0, 1, ...), once."""
    plain = torch.optim.SGD.step
    calls = iter(range(10**6))

    def killed(*arguments: object) -> object:
        if next(calls) == step:
            raise KilledError
        return plain(*arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", killed)


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
    log_every, seconds = (3, 300) if saves == 4 else (1, 0)
    expected = straight(config, log_every=log_every)
    checkpoints = Checkpoints(folder=tmp_path, seconds=seconds)
    with monkeypatch.context() as patch:
        kill_in_step(step, patch)
        with pytest.raises(KilledError):
            run(config, log_every=log_every, checkpoints=checkpoints)
    torch.manual_seed(123)  # the next process begins with other random numbers
    caplog.set_level("INFO")
    resumed = run(config, log_every=log_every, checkpoints=checkpoints)
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


def test_the_random_numbers_go_on_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step draws one."""
    plain = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *args: (torch.rand(1), plain(*args))[1])
    checkpoints = Checkpoints(folder=tmp_path)
    run(checkpoints=checkpoints)
    left = torch.rand(3)
    run(checkpoints=checkpoints)
    assert torch.equal(torch.rand(3), left)


def epoch_scores(*scores: float, seen: list[GFL] | None = None, keep: str = "best") -> Validation:
    """Validation that returns given scores one after another and keeps the model that it was shown."""
    left = iter(scores)

    def score(model: GFL) -> dict[str, float | None]:
        if seen is not None:
            copy = GFL(model.config)
            copy.load_state_dict(model.state_dict())
            seen.append(copy)
        value = next(left)
        return {"AP": value, "AP50": value, "AP75": None}

    return Validation(score=score, every=1, keep=keep)


def test_the_best_epoch_is_kept_and_survives_a_kill(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[GFL] = []
    checkpoints = Checkpoints(folder=tmp_path)
    with monkeypatch.context() as patch:
        kill_in_step(13, patch)
        with pytest.raises(KilledError):
            run(checkpoints=checkpoints, validation=epoch_scores(1, 3, 2, seen=seen))
    resumed = run(checkpoints=checkpoints, validation=epoch_scores(3))
    assert same_weights(resumed.model, seen[1])
    assert {epoch: row["AP"] for epoch, row in resumed.scores.items()} == {1: 1, 2: 3, 3: 2, 4: 3}


def test_the_last_epoch_is_kept_where_the_best_is_not_asked_for(run: Run, straight: Run) -> None:
    last = run(validation=epoch_scores(1, 3, 2, 0, keep="last"))
    assert same_weights(last.model, straight(CONFIG).model)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.optim.SGD.step
    calls = iter(range(100))

    def spoil(optimizer: torch.optim.SGD) -> object:
        if next(calls) == 6:
            optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
        return plain(optimizer)

    checkpoints = Checkpoints(folder=tmp_path)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda optimizer, *_: spoil(optimizer))
    with pytest.raises(PipelineError, match=r"^step 7: expected a finite loss, but got loss_cls=nan"):
        run(checkpoints=checkpoints)
    kept = checkpoints.load(SINGLE_PROCESS)
    assert kept["curve"]["step"] == 4
    assert all(value.isfinite().all() for value in kept["weights"].values())


def test_weights_that_broke_in_an_epochs_last_step_are_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss was still finite; the next one would not be."""
    plain = torch.optim.SGD.step
    calls = iter(range(100))

    def spoil(optimizer: torch.optim.SGD, *_: object) -> object:
        if next(calls) == 7:
            optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))
        return plain(optimizer)

    checkpoints = Checkpoints(folder=tmp_path)
    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    with pytest.raises(PipelineError, match=r"^step 7: expected finite weights"):
        run(checkpoints=checkpoints)
    assert checkpoints.load(SINGLE_PROCESS)["curve"]["step"] == 4


def one_epoch(run: Run, folder: Path) -> None:
    """Leave the checkpoint of the first epoch in a folder."""
    with pytest.raises(KilledError):
        run(checkpoints=KilledAfterSaving(folder=folder))


def saved(folder: Path, state: dict[str, object], code: dict[str, str] | None = None) -> Checkpoints:
    """A whole checkpoint of any content."""
    checkpoints = Checkpoints(folder=folder)
    buffer = io.BytesIO()
    torch.save({"code": checkpoints.code if code is None else code, "state": state}, buffer)
    checkpoints.path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    return checkpoints


def test_a_checkpoint_is_refused_with_any_bit_flipped_and_at_any_length(run: Run, tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    one_epoch(run, tmp_path)
    whole = checkpoints.path.read_bytes()
    rng = random.Random(0)
    damaged = [whole[: rng.randrange(1, len(whole))] for _ in range(20)]
    for _ in range(100):
        place = rng.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
    for content in (*damaged, b"", b"no checkpoint", b"x" * 10**5):
        checkpoints.path.write_bytes(content)
        with pytest.raises(CacheError, match=r"^[^\n]*checkpoint.pt: expected a checkpoint .* remove it"):
            checkpoints.load(SINGLE_PROCESS)
    checkpoints.path.write_bytes(whole)
    assert checkpoints.load(SINGLE_PROCESS)["curve"]["step"] == 4


def test_a_checkpoint_of_other_keys_or_shapes_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    one_epoch(run, tmp_path)
    state = checkpoints.load(SINGLE_PROCESS)
    weights = {name: value[:1] if value.dim() else value for name, value in state["weights"].items()}
    less = {name: value for name, value in state.items() if name != "curve"}
    for wrong in (
        {},
        less,
        {**state, "weights": weights},
        {**state, "weights": {}},
        {**state, "optimizer": {}},
        {**state, "curve": {}},
        {**state, "scores": [{"epoch": 1}]},
        {**state, "random": []},
    ):
        with pytest.raises(CacheError, match=r"^[^\n]*checkpoint.pt: expected a checkpoint [^\n]* remove it"):
            run(checkpoints=saved(tmp_path, wrong))


def test_code_that_has_changed_is_named_and_goes_on_where_the_user_says_so(
    run: Run,
    straight: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    one_epoch(run, tmp_path)
    module = "pipeline/views/images.py"
    old = {**checkpoints.code, module: "other", "torch": "0"}
    saved(tmp_path, checkpoints.load(SINGLE_PROCESS), old)
    before = checkpoints.path.read_bytes()
    with pytest.raises(
        CacheError, match=rf"{module}, torch; LDP_RESUME=changed-code goes on .* removing the file"
    ):
        run(checkpoints=checkpoints)
    assert checkpoints.path.read_bytes() == before, "nothing is deleted"
    monkeypatch.setenv("LDP_RESUME", "changed-code")
    assert same_weights(run(checkpoints=checkpoints).model, straight(CONFIG).model)
    assert f"going on with code that has changed since: {module}, torch" in caplog.text


def test_the_folder_is_held_by_one_run_and_goes_when_it_ends_well(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KilledError), hold_checkpoints(folder, tmp_path, SINGLE_PROCESS):
        raise KilledError
    assert folder.is_dir()
    with hold_checkpoints(folder, tmp_path, SINGLE_PROCESS):
        with (
            pytest.raises(CacheError, match="another run"),
            hold_checkpoints(folder, tmp_path, SINGLE_PROCESS),
        ):
            pass
        assert folder.is_dir()
    assert not folder.exists()


def test_another_parameter_is_another_run_and_another_store_of_the_same_fingerprint_too(
    tmp_path: Path,
) -> None:
    def key(config: StudentConfig, store: TargetStore) -> str:
        return run_key("ld", run_identity(config, store, [small_view_set(tmp_path, IMAGES).manifest]))

    store = store_of(tmp_path, QUANTIZED)
    assert key(CONFIG, store) == key(CONFIG, TargetStore.open(store.path))
    assert key(CONFIG, store) != key(replace(CONFIG, train=replace(CONFIG.train, seed=1)), store)
    other = store_of(tmp_path, QUANTIZED, 1)
    other.schema, other.fingerprint = store.schema, store.fingerprint
    assert key(CONFIG, store) != key(CONFIG, other)
