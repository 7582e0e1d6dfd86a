"""A competitor that hangs, exits, or breaks its promises of shapes and numbers ends as a row; the others go on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from endings import quiet

from harness.cells import LikelihoodCell, RuntimeCell
from harness.cells.sweep import run_cells
from harness.methods import Method, Model, Problem
from harness.methods.density import build, log_prob
from harness.results import Store
from harness.training.configuration import TrainingConfig

TIMING = RuntimeCell(
    experiment="runtime", profile="custom", methods=("bad", "good"), problem=Problem(shape=(3,), batch=4), repeats=2
)
TRAINING = LikelihoodCell(
    experiment="train",
    profile="custom",
    method="bad",
    problem=Problem(shape=(1, 8, 8)),
    dataset="digits",
    config=TrainingConfig(epochs=1, evaluate_every=1),
    draws=1,
)
LIMIT = "took longer than 600 s, the limit for one call (HARNESS_CALL_LIMIT)"

Rows = list[tuple[str, str, str | None]]


def hang(*arguments: Any) -> None:
    # The ten minutes are over in a moment: a limit that short would also end what torch imports at the first step.
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 590
    signal.setitimer(signal.ITIMER_REAL, 0.01, 1)
    while True:
        time.sleep(1)


def leave(*arguments: Any) -> None:
    sys.exit("no GPU, no work")


@pytest.fixture
def bad(fake_model: type[Model]) -> Callable[..., type[Model]]:
    """Make a model with members of its own; each is given the usual result of the member that it replaces."""

    def make(**replaced: Callable[[Any], Any]) -> type[Model]:
        def instead(member: str) -> Callable[..., Any]:
            return lambda self, *arguments: replaced[member](getattr(fake_model, member)(self, *arguments))

        return type("Bad", (fake_model,), {member: instead(member) for member in replaced})

    return make


@pytest.fixture
def rows_of(
    tmp_path: Path, with_methods: Callable[..., None], fake_method: Callable[..., Method]
) -> Callable[..., Rows]:
    """Run a cell with a bad method, and then a good one's, as the program does; return the bad one's rows."""

    def run(cell: Any, build: Callable[[Problem], Any]) -> Rows:
        with_methods(fake_method("bad", build), fake_method("good"))
        cells = [
            cell,
            RuntimeCell(
                experiment="runtime",
                profile="custom",
                methods=("good",),
                problem=Problem(shape=(2,), batch=4),
                repeats=1,
            ),
        ]
        for each in cells:
            each.check()
        rows = run_cells(cells, Store(tmp_path), lambda cell, there: quiet)
        good = [row for row in rows if row.method == "good" and row.metric == "seconds_per_iteration"]
        assert [row.reason for row in good if row.status != "ok"] == []
        assert len(good) == len([each for each in cells if isinstance(each, RuntimeCell)])
        return [(row.metric, row.status, row.reason) for row in rows if row.method == "bad"]

    return run


@pytest.mark.parametrize("cell", [TIMING, TRAINING])
@pytest.mark.parametrize(("act", "what"), [(hang, LIMIT), (leave, "called sys.exit('no GPU, no work')")])
@pytest.mark.parametrize(
    ("member", "call"),
    [
        ("build", "build of bad"),
        ("init_batch", "init_batch"),
        ("training_loss", "a training step"),
        ("after_step", "a training step"),
    ],
)
def test_hanging_and_leaving(
    cell: Any, act: Callable[..., None], what: str, member: str, call: str, bad: Any, rows_of: Any
) -> None:
    kind = "TimeoutError" if act is hang else "RuntimeError"
    metric = "seconds_per_iteration" if cell is TIMING else "nll"
    model = act if member == "build" else bad(**{member: act})
    assert rows_of(cell, model) == [(metric, "failed", f"{kind}: {call} {what}")]


@pytest.mark.parametrize(("act", "what"), [(hang, f"TimeoutError: to_latent {LIMIT}"), (leave, None)])
def test_hanging_and_leaving_in_an_evaluation(act: Any, what: str | None, fake_model: Any, rows_of: Any) -> None:
    class Bad(fake_model):
        def to_latent(self, x: torch.Tensor) -> Any:
            return super().to_latent(x) if self.module.training else act()

    expected = what or "RuntimeError: to_latent called sys.exit('no GPU, no work')"
    assert rows_of(TRAINING, Bad) == [("nll", "failed", expected)]


def test_a_method_that_hangs_later_leaves_the_others_their_turns(fake_model: Any, rows_of: Any) -> None:
    class Tires(fake_model):
        def after_step(self) -> None:
            super().after_step()
            if len(self.log) > 7:
                hang()

    assert rows_of(TIMING, Tires) == [("seconds_per_iteration", "failed", f"TimeoutError: a training step {LIMIT}")]


@pytest.mark.parametrize(
    ("made", "described"),
    [(lambda problem: None, "None"), (lambda problem: {}, "a dict"), (lambda problem: type("M", (), {})(), "a M")],
)
@pytest.mark.parametrize("cell", [TIMING, TRAINING])
def test_what_is_no_model(cell: Any, made: Callable[[Problem], Any], described: str, rows_of: Any) -> None:
    ((_, status, reason),) = rows_of(cell, made)
    assert status == "failed"
    assert reason == (f"TypeError: build returned {described}, not a model with a torch.nn.Module as its `module`")


@pytest.mark.parametrize(
    ("effect", "described"),
    [
        (lambda loss: None, "None"),
        (lambda loss: 1.0, "a float"),
        (lambda loss: loss.expand(4), "a tensor of shape (4,) and torch.float32"),
        (lambda loss: loss[None], "a tensor of shape (1,) and torch.float32"),
        (lambda loss: loss + 0j, "a tensor of shape () and torch.complex64"),
    ],
)
@pytest.mark.parametrize("cell", [TIMING, TRAINING])
def test_a_loss_that_is_no_real_scalar(cell: Any, effect: Any, described: str, bad: Any, rows_of: Any) -> None:
    ((_, status, reason),) = rows_of(cell, bad(training_loss=effect))
    assert (status, reason) == ("failed", f"TypeError: training_loss returned {described}, not a real scalar tensor")


def test_a_loss_that_is_not_a_number(bad: Any, rows_of: Any) -> None:
    model = bad(training_loss=lambda loss: loss * float("nan"))
    reason = "ArithmeticError: the loss is not finite during warm-up"
    assert rows_of(TIMING, model) == [("seconds_per_iteration", "failed", reason)]
    assert rows_of(TRAINING, model) == [("nll", "diverged", "the loss is not finite at step 1")]


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (lambda z, log_det: None, "to_latent returned None, not the pair of tensors z and log|det dz/dx|"),
        (lambda z, log_det: z, "to_latent returned a Tensor, not the pair of tensors z and log|det dz/dx|"),
        (lambda z, log_det: (z, 0.0), "to_latent returned a tuple, not the pair of tensors z and log|det dz/dx|"),
        (lambda z, log_det: (z.mT, log_det), "to_latent returned z of shape (3, 5) for data of shape (5, 3)"),
        (lambda z, log_det: (z[:, :2], log_det), "to_latent returned z of shape (5, 2) for data of shape (5, 3)"),
        (lambda z, log_det: (z, log_det[0]), "to_latent returned log|det| of shape (), not (5,): one for each sample"),
        (
            lambda z, log_det: (z, log_det[:1]),
            "to_latent returned log|det| of shape (1,), not (5,): one for each sample",
        ),
        (
            lambda z, log_det: (z, log_det[:, None]),
            "to_latent returned log|det| of shape (5, 1), not (5,): one for each sample",
        ),
        (lambda z, log_det: (z, log_det + 0j), "to_latent returned log|det| of torch.complex64, not of torch.float32"),
        (lambda z, log_det: (z + 0j, log_det), "to_latent returned z of torch.complex64, not of torch.float32"),
        (lambda z, log_det: (z.long(), log_det), "to_latent returned z of torch.int64, not of torch.float32"),
    ],
)
def test_latents_that_break_the_promise(effect: Any, message: str, bad: Any, fake_method: Any) -> None:
    model = build(fake_method("bad", bad(to_latent=lambda found: effect(*found))), Problem(shape=(3,)))
    with pytest.raises(ValueError, match=r"^to_latent returned") as caught:
        log_prob(model, torch.zeros(5, 3))
    assert str(caught.value) == message


def test_latents_of_another_shape_of_event_are_fine(bad: Any, fake_method: Any) -> None:
    model = build(
        fake_method("bad", bad(to_latent=lambda found: (found[0].flatten(1), found[1]))), Problem(shape=(2, 3))
    )
    assert log_prob(model, torch.zeros(5, 2, 3)).shape == (5,)
    assert log_prob(model, torch.zeros(0, 2, 3)).shape == (0,)


def test_a_broken_promise_in_an_evaluation_is_a_row(fake_model: Any, rows_of: Any) -> None:
    class Scalar(fake_model):
        def to_latent(self, x: torch.Tensor) -> Any:
            z, log_det = super().to_latent(x)
            return z, log_det if self.module.training else log_det[0]

    assert rows_of(TRAINING, Scalar) == [
        ("nll", "failed", "ValueError: to_latent returned log|det| of shape (), not (297,): one for each sample")
    ]


def test_a_check_outlives_everything(fake_method: Any, with_methods: Any) -> None:
    for act in (hang, leave, lambda problem: None):
        with_methods(fake_method("bad", act), fake_method("good"))
        TIMING.check()


def test_what_a_method_prints_is_not_among_the_rows(bad: Any, fake_method: Any, with_methods: Any, run: Any) -> None:
    with_methods(fake_method("loud", bad(after_step=lambda result: print("hello"))))
    ended = run("runtime", "--dims", "3", "--methods", "loud", "--repeats", "1", "--json")
    assert ended.status == 0
    assert {row["method"] for row in ended.rows} == {"loud", "machine"}
    assert "hello" not in ended.out
    assert "hello" in ended.err
