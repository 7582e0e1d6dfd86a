"""A training that was stopped, at any step and in any way, ends as one that was not: to the bit, timings aside."""

from __future__ import annotations

import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from harness import datasets
from harness.cells import LikelihoodCell
from harness.cells.sweep import run_cells
from harness.datasets.dataset import Dataset
from harness.datasets.preprocessing import GaussianNoise
from harness.methods import Method, Problem
from harness.methods.density import build
from harness.methods.registry import registry
from harness.results import Row, Store
from harness.training import checkpoints
from harness.training import loop as training
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.loop import Divergence
from harness.training.saved_model import read_model
from harness.training.scoring import fit
from harness.training.signals import Stopped

_SHAPES = {"fc": (4,), "toy": (2,), "multimodal": (4,), "cnn": (1, 4, 4), "glow": (1, 4, 4)}
_LAYERS = {"cnn": 3}


class Killed(KeyboardInterrupt):
    """As abrupt as a test in one process can be."""


class Often(TrainingCheckpoint):
    """Due at every so many steps; the process is gone at one of them."""

    def __init__(self, path: Path, every: int = 1, killed_at: int | None = None, **made_from: str) -> None:
        super().__init__(path, {"cell": "a cell", **made_from})
        self.steps, self.every, self.killed_at = 0, every, killed_at

    def due(self) -> bool:
        self.steps += 1
        if self.steps == self.killed_at:
            raise Killed
        return self.steps % self.every == 0


class Outcome(NamedTuple):
    weights: dict[str, Tensor]
    curve: list[tuple[int, float, str]]
    best: float
    skipped: int | None
    ended: str


def data_of(shape: tuple[int, ...]) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    parts = (1.5 * torch.rand(n, *shape, generator=generator) for n in (38, 30, 20))
    return Dataset("points", shape, *parts, GaussianNoise(0.05))


def trained(
    method: str | Method, config: TrainingConfig, resume: TrainingCheckpoint | None = None, **changes: Any
) -> Outcome:
    """Train a new model, four steps an epoch."""
    method = registry().find(method) if isinstance(method, str) else method
    architecture = changes.get("architecture", method.architectures[0])
    shape, layers = _SHAPES[architecture], _LAYERS.get(architecture, 2)
    problem = Problem(**{"shape": shape, "layers": layers, "batch": 10, "noise": 0.3, **changes})
    problem = problem.replace(architecture=architecture)
    model, data = build(method, problem), data_of(shape)
    report = fit(model, problem, data, data, config, resume=resume)
    # As text, for a norm may be no number, which equals nothing.
    curve = [(point.iteration, point.validation_nll, repr(point.gradient_norm)) for point in report.curve]
    return Outcome(model.module.state_dict(), curve, report.best_validation, report.skipped, report.ended)


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert found[1:] == expected[1:]
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert torch.equal(found.weights[name], tensor), name


def recipe(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 5, "evaluate_every": 1, "learning_rate": 1e-3, "ema_decay": 0.9, **changes})


@pytest.mark.parametrize(
    ("method", "architecture"),
    [
        ("ebflow-ml", "fc"),
        ("ebflow-sml", "fc"),
        ("ebflow-ssm", "cnn"),
        ("ebflow-tssm", "toy"),
        ("ebflow-dsm", "glow"),
        ("ebflow-fdssm", "fc"),
        ("ebflow-snl", "fc"),
        ("nflows-dense-ml", "fc"),
        ("nflows-dense-dsm", "fc"),
        ("normflows-residual-ml", "fc"),
        ("normflows-glow-ml", "glow"),
        ("zuko-nsf-ml", "fc"),
        ("relative-gradient-ml", "fc"),
        ("self-normalizing-ml", "fc"),
        ("free-form-ml", "fc"),
        ("tarflow-ml", "fc"),
        ("zuko-cnf-fm", "toy"),
        ("zuko-nsf-reg", "fc"),
    ],
)
def test_killed_at_random_steps_every_family_ends_with_the_same_bits(
    method: str, architecture: str, tmp_path: Path
) -> None:
    chance = random.Random(f"{method} {architecture}")
    config = recipe(
        optimizer=chance.choice(["rmsprop", "adam"]),
        clip_norm=chance.choice([None, 0.5]),
        ema_decay=chance.choice([None, 0.9]),
        schedule=chance.choice(["steps", "cosine"]),
        weight_decay=chance.choice([0.0, 0.01]),
        evaluate_every=chance.choice([1, 2]),
    )
    expected = trained(method, config, architecture=architecture)
    path = tmp_path / "state"
    for _ in range(3):
        with pytest.raises(Killed):
            trained(method, config, Often(path, chance.randint(1, 4), chance.randint(4, 8)), architecture=architecture)
    resume = Often(path, 3)
    assert_same(trained(method, config, resume, architecture=architecture), expected)
    assert resume.steps < 5 * 4 + 1  # it had not begun anew


def test_a_start_from_the_data_that_is_refitted_is_resumed_too(tmp_path: Path) -> None:
    config = recipe(start_samples=20, calibrate=True)
    expected = trained("ebflow-ml", config, start="whitened")
    assert expected.curve[0][0] == 0
    for killed_at in (2, 9):
        with pytest.raises(Killed):
            trained("ebflow-ml", config, Often(tmp_path / "state", 1, killed_at), start="whitened")
    assert_same(trained("ebflow-ml", config, Often(tmp_path / "state"), start="whitened"), expected)


@pytest.mark.parametrize("dtype", ["float64", "bf16"])
def test_other_arithmetic_is_resumed_to_the_bit(dtype: str, tmp_path: Path) -> None:
    expected = trained("ebflow-dsm", recipe(), dtype=dtype)
    with pytest.raises(Killed):
        trained("ebflow-dsm", recipe(), Often(tmp_path / "state", 1, 7), dtype=dtype)
    assert_same(trained("ebflow-dsm", recipe(), Often(tmp_path / "state"), dtype=dtype), expected)


def test_a_compiled_loss_is_resumed_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = recipe(compile=True, epochs=2)
    expected = trained("ebflow-dsm", config)
    with pytest.raises(Killed):
        trained("ebflow-dsm", config, Often(tmp_path / "state", 1, 3))
    assert_same(trained("ebflow-dsm", config, Often(tmp_path / "state")), expected)


def test_patience_goes_on_counting(tmp_path: Path, fake_method: Callable[..., Method], fake_model: type) -> None:
    class Worse(fake_model):
        """Trains away from the data."""

        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return -super().training_loss(x, generator)

    method, config = fake_method(build=Worse), recipe(epochs=9, patience=3)
    expected = trained(method, config)
    assert expected.ended == "no better validation in the last 3 of 4 epochs"
    for killed_at in (5, 6, 5):
        with pytest.raises(Killed):
            trained(method, config, Often(tmp_path / "state", 1, killed_at))
    assert_same(trained(method, config, Often(tmp_path / "state")), expected)
    # What is saved after the last epoch is over: nothing more is trained.
    resume = Often(tmp_path / "state")
    assert_same(trained(method, config, resume), expected)
    assert resume.steps == 0


@pytest.mark.parametrize(("odds", "most"), [(0.4, 50), (0.8, 3)])
def test_skipped_steps_go_on_counting(
    odds: float,
    most: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_method: Callable[..., Method],
    fake_model: type,
) -> None:
    class Odd(fake_model):
        """Some of its losses are not a number, by the saved generator's draws."""

        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            loss = super().training_loss(x, generator)
            return loss * (math.nan if torch.rand((), generator=generator) < odds else 1.0)

    monkeypatch.setattr(training, "_MOST_SKIPPED", most)
    method, config = fake_method(build=Odd), recipe(skip_not_finite=True)

    def ended(resume: Often | None = None) -> Any:
        try:
            return trained(method, config, *([resume] if resume else []))
        except Divergence as error:
            return str(error)

    expected = ended()
    assert isinstance(expected, str) == (most == 3)  # it diverged, with these odds and this seed
    for killed_at in (2, 1):
        with pytest.raises(Killed):
            ended(Often(tmp_path / "state", 1, killed_at))
    found = ended(Often(tmp_path / "state"))
    if most == 3:
        assert found == expected
    else:
        assert expected.skipped > 0
        assert_same(found, expected)


def test_seconds_go_on_and_leave_saving_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_method: Callable[..., Method], fake_model: type
) -> None:
    now = [0.0]

    class Slow(fake_model):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            now[0] += 1.0
            return super().training_loss(x, generator)

    class SlowDisk(Often):
        def write(self, *state: Any) -> bool:
            now[0] += 1000.0
            return super().write(*state)

    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    method, data = fake_method(build=Slow), data_of((4,))
    problem = Problem(shape=(4,), batch=10)
    for killed_at in (7, 8, None):
        resume = SlowDisk(tmp_path / "state", 1, killed_at)
        try:
            report = fit(build(method, problem), problem, data, data, recipe(), resume=resume)
        except Killed:
            continue
    assert report.iterations == report.seconds == 20


def test_a_state_of_before_layers_kept_their_constants_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with pytest.raises(Killed):
        trained("ebflow-ssm", recipe(), Often(path, 1, 7))
    tensors, metadata = checkpoints.read_tensors(path)
    older = {name: tensor for name, tensor in tensors.items() if not name.endswith("_extra_state")}
    assert len(older) < len(tensors)
    checkpoints.write_tensors(path, older, metadata)
    resume = Often(path)
    assert_same(trained("ebflow-ssm", recipe(), resume), trained("ebflow-ssm", recipe()))
    assert resume.steps < 20


class TestWhatIsNoState:
    """Named in one line, set aside, and training starts from the beginning."""

    @pytest.fixture
    def state(self, tmp_path: Path) -> Path:
        with pytest.raises(Killed):
            trained("ebflow-ssm", recipe(), Often(tmp_path / "state", 1, 7))
        return tmp_path / "state"

    def assert_set_aside(self, resume: Often, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
        content = resume.path.read_bytes()
        capsys.readouterr()
        assert_same(trained("ebflow-ssm", recipe(), resume), trained("ebflow-ssm", recipe()))
        assert resume.steps == 20  # four steps an epoch, the last of which is looked at after its validation
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{resume.path} is no state to go on from ({reason}")
        assert line.endswith("it is now state.aside, and training starts anew")
        assert resume.path.with_name("state.aside").read_bytes() == content

    def test_of_other_code(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.assert_set_aside(Often(state, code="b"), "its code is None, that of this training is b", capsys)

    def test_of_another_cell(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.assert_set_aside(Often(state, cell="b"), "its cell is a cell, that of this training is b", capsys)

    def test_of_other_data(
        self, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = data_of

        def changed(shape: tuple[int, ...]) -> Dataset:
            data = whole(shape)
            data.validation[3, 2] += 1
            return data

        monkeypatch.setitem(globals(), "data_of", changed)
        self.assert_set_aside(Often(state), "its data is", capsys)

    def test_of_another_format(
        self, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "_FORMAT", "0")
        self.assert_set_aside(Often(state), "it is no training state of this version", capsys)

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\3\4 some archive, and long enough to look at"])
    def test_of_no_format(self, content: bytes, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        state.write_bytes(content)
        self.assert_set_aside(Often(state), "it cannot be read: ", capsys)

    def test_cut_off(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        state.write_bytes(state.read_bytes()[:-1])
        self.assert_set_aside(Often(state), "it cannot be read: ", capsys)

    def test_weights_alone(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        checkpoints.write_tensors(state, {"weight": torch.ones(3)}, {})
        self.assert_set_aside(Often(state), "it is no training state of this version", capsys)

    def test_of_another_model(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        # The same cell in name, by a method of another package that has changed since.
        with pytest.raises(Killed):
            trained("ebflow-ssm", recipe(), Often(state.with_name("other"), 1, 7), layers=3)
        state.with_name("other").replace(state)
        self.assert_set_aside(Often(state), "it does not fit in ", capsys)

    def test_one_bit_is_another(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        whole = state.read_bytes()
        header = 8 + struct.unpack("<Q", whole[:8])[0]
        chance = random.Random(0)
        for place in [*chance.sample(range(header), 20), *chance.sample(range(header, len(whole)), 20)]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << chance.randrange(8)
            state.write_bytes(damaged)
            resume = Often(state)
            resume.made_from["data"] = checkpoints.digest(
                {"train": data_of((4,)).train, "validation": data_of((4,)).validation}
            )
            assert resume.read() is None, f"byte {place} of a header of {header}"
            assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_disk_costs_the_state_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained("ebflow-dsm", recipe())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_same(trained("ebflow-dsm", recipe(), Often(tmp_path / "state", 10)), expected)
    line, again = capsys.readouterr().err.splitlines()
    assert line == again
    assert line == (
        f"the state of the training could not be saved in {tmp_path / 'state'} ([Errno 28] No space left on device); "
        "it goes on unsaved"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_step_and_saves(
    number: signal.Signals, status: int, tmp_path: Path, fake_method: Callable[..., Method], fake_model: type
) -> None:
    steps = count(1)

    class Interrupted(fake_model):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            if next(steps) == 6:
                signal.raise_signal(number)
            return super().training_loss(x, generator)

    method = fake_method(build=Interrupted)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as stopped:
        trained(method, recipe(), TrainingCheckpoint(tmp_path / "state", {}))
    assert str(stopped.value) == "the running training is saved at step 6, after 1 of 5 epochs"
    assert stopped.value.status == status
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    outcome = trained(method, recipe(), TrainingCheckpoint(tmp_path / "state", {}))
    assert next(steps) == 20 + 1
    assert_same(outcome, trained(method, recipe()))


def test_a_signal_between_two_looks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_method: Callable[..., Method]
) -> None:
    looks = count(1)

    def largest(value: int, device: str) -> int:
        if next(looks) == 5:  # of several processes each waits here for the others
            signal.raise_signal(signal.SIGTERM)
        return value

    monkeypatch.setattr(training, "largest", largest)
    with pytest.raises(Stopped, match="is saved at step 6,"):
        trained(fake_method(), recipe(), TrainingCheckpoint(tmp_path / "state", {}))


def test_a_second_signal_does_not_wait(tmp_path: Path, fake_method: Callable[..., Method], fake_model: type) -> None:
    class Hanging(fake_model):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt) as stopped:
        trained(fake_method(build=Hanging), recipe(), TrainingCheckpoint(tmp_path / "state", {}))
    assert not isinstance(stopped.value, Stopped)


def test_a_signal_is_not_lost_in_a_training_that_fails(
    tmp_path: Path, fake_method: Callable[..., Method], fake_model: type
) -> None:
    class Failing(fake_model):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("no kernel")

    with pytest.raises(KeyboardInterrupt):
        trained(fake_method(build=Failing), recipe(), TrainingCheckpoint(tmp_path / "state", {}))


class TestCells:
    CELL = LikelihoodCell(
        experiment="train",
        profile="custom",
        method="stopping",
        problem=Problem(shape=(1, 8, 8)),
        dataset="digits",
        config=TrainingConfig(epochs=2, evaluate_every=1),
        draws=1,
    )

    @pytest.fixture
    def stopping(
        self,
        with_methods: Callable[..., None],
        fake_method: Callable[..., Method],
        fake_model: type,
        monkeypatch: pytest.MonkeyPatch,
    ) -> dict[str, Any]:
        """A method whose training steps are counted, and at one of them end with this."""
        told: dict[str, Any] = {"steps": 0, "at": None, "with": Killed()}

        class Stopping(fake_model):
            def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
                told["steps"] += 1
                if told["steps"] == told["at"]:
                    raise told["with"]
                return super().training_loss(x, generator)

        with_methods(fake_method("stopping", Stopping))
        monkeypatch.setattr(checkpoints, "_INTERVAL", 0.0)
        return told

    def rows(self, folder: Path, fresh: bool = False, cell: LikelihoodCell = CELL) -> list[Row]:
        return run_cells([cell], Store(folder), lambda cell, there: lambda *step: None, fresh=fresh)

    def saved(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("checkpoints/*/*"))

    def test_a_killed_cell_goes_on_and_leaves_nothing(self, stopping: dict[str, Any], tmp_path: Path) -> None:
        expected = untimed(self.rows(tmp_path / "whole"))
        stopping.update(steps=0, at=20)
        with pytest.raises(Killed):
            self.rows(tmp_path)
        (path,) = self.saved(tmp_path)
        assert path == tmp_path / "checkpoints" / "train" / f"{expected[0]['cell']}.safetensors"
        left_by_a_kill = path.with_name(f".{path.name}-0123abcd")
        left_by_a_kill.write_bytes(b"half a state")
        assert untimed(self.rows(tmp_path)) == expected
        assert stopping["steps"] == 24 + 1 + 2  # one step was lost, and two tell the memory of a step
        assert list((tmp_path / "checkpoints" / "train").iterdir()) == []

    def test_fresh_begins_anew(self, stopping: dict[str, Any], tmp_path: Path) -> None:
        stopping["at"] = 20
        with pytest.raises(Killed):
            self.rows(tmp_path)
        self.rows(tmp_path, fresh=True)
        assert stopping["steps"] == 20 + 24 + 2

    def test_a_failed_training_begins_anew(self, stopping: dict[str, Any], tmp_path: Path) -> None:
        stopping.update({"at": 20, "with": RuntimeError("no kernel")})
        assert {row.status for row in self.rows(tmp_path)} == {"failed"}
        assert self.saved(tmp_path) == []

    def test_data_that_are_away_cost_nothing(
        self, stopping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopping["at"] = 20
        with pytest.raises(Killed):
            self.rows(tmp_path)
        before = self.saved(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(datasets, "why_unavailable", lambda *_: "they are elsewhere")
            assert {row.status for row in self.rows(tmp_path)} == {"unavailable"}
        assert self.saved(tmp_path) == before
        self.rows(tmp_path)
        assert stopping["steps"] == 24 + 1 + 2

    def test_a_resumed_training_keeps_its_best_weights_where_it_is_told_now(
        self, stopping: dict[str, Any], tmp_path: Path
    ) -> None:
        def keeping(name: str) -> LikelihoodCell:
            return replace(self.CELL, save=tmp_path / name)

        self.rows(tmp_path / "whole", cell=keeping("whole.safetensors"))
        stopping.update(steps=0, at=24)
        with pytest.raises(Killed):
            self.rows(tmp_path, cell=keeping("first.safetensors"))
        self.rows(tmp_path, cell=keeping("second.safetensors"))
        assert stopping["steps"] == 24 + 1 + 2
        (first, weights), (second, others) = (
            read_model(tmp_path / f"{name}.safetensors") for name in ("second", "whole")
        )
        assert first == second
        assert checkpoints.digest(weights) == checkpoints.digest(others)


_TIMINGS = ("training_seconds", "reference_gemm_drift")


def untimed(rows: list[Row] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock has said."""
    records = [row if isinstance(row, dict) else vars(row) for row in rows]
    return [
        {key: value for key, value in row.items() if key not in ("started_at", "seconds")}
        for row in records
        if row["metric"] not in _TIMINGS
    ]


_PROGRAM = """
import time
from harness.cli import program
from harness.training import checkpoints, loop
checkpoints._INTERVAL = 0.0
step = loop.Trainer.step
loop.Trainer.step = lambda self, x: (time.sleep(0.004), step(self, x))[1]
program.main()
"""


def test_a_program_that_is_killed_again_and_again_ends_with_the_same_rows(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = ["train", "--method", "ebflow-dsm", "--epochs", "40", "--threads", "1", "--draws", "2", "--json"]
    expected = run(*arguments, "--results-dir", str(tmp_path / "whole")).rows
    folder = tmp_path / "killed"
    chance = random.Random(7)
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        before = {path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
        program = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments, "--results-dir", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while program.poll() is None and not changed_since(before, folder):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        program.send_signal(number)
        _, told = program.communicate()
        assert program.returncode == status
        if number != signal.SIGKILL:
            last = told.splitlines()[-1]
            assert last.startswith("stopped: the running training is saved at step ")
            assert last.endswith(f"finished cells are in {folder}, and the same command goes on from there")
    assert untimed(run(*arguments, "--results-dir", str(folder)).rows) == untimed(expected)
    assert len(expected) > 10


def changed_since(before: set[int], folder: Path) -> bool:
    try:
        return bool({path.stat().st_mtime_ns for path in folder.rglob("[!.]*.safetensors")} - before)
    except FileNotFoundError:  # replaced in between
        return False


def test_a_process_that_follows_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_INTERVAL", 0.0)
    leader = TrainingCheckpoint(tmp_path / "state", {"cell": "a"})
    follower = TrainingCheckpoint(leader.path, {"cell": "a"}, follows=True)
    assert (leader.due(), follower.due()) == (True, False)
    assert follower.write({"weight": torch.ones(2)}, {"epochs": 1})
    assert not leader.path.exists()
    assert leader.write({"weight": torch.ones(2)}, {"epochs": 2})
    assert follower.read()[1] == {"epochs": 2}
    assert TrainingCheckpoint(leader.path, {"cell": "b"}, follows=True).read() is None
    assert leader.path.exists()
    assert capsys.readouterr().err == ""
