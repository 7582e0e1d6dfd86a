"""Cells: what determines a result names its file; whatever a method does ends as a row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import datasets
from harness.cells import LikelihoodCell, RuntimeCell, base, likelihood, runtime
from harness.datasets.preprocessing import Dequantize, Identity
from harness.errors import InputError
from harness.methods import LayerCost, Method, Problem
from harness.methods.density import build, count_parameters
from harness.methods.registry import registry
from harness.results.provenance import capture
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig

TIMING = RuntimeCell(
    experiment="runtime", profile="custom", methods=("fake",), problem=Problem(shape=(3,), batch=4), repeats=3
)
TRAINING = LikelihoodCell(
    experiment="train",
    profile="custom",
    method="fake",
    problem=Problem(shape=(1, 8, 8)),
    dataset="digits",
    config=TrainingConfig(epochs=1, evaluate_every=1),
    draws=2,
)


@pytest.fixture(autouse=True)
def _fake_is_registered(with_methods: Callable[..., None], fake_method: Callable[..., Method]) -> None:
    with_methods(fake_method())


@pytest.fixture
def saying(fake_method: Callable[..., Method], fake_model: type) -> Callable[[str, float | Exception], Method]:
    """A method whose loss is multiplied by a number, or raises an error."""

    def make(name: str, effect: float | Exception) -> Method:
        class Affected(fake_model):
            def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
                if isinstance(effect, Exception):
                    raise effect
                return super().training_loss(x, generator) * effect

        return fake_method(name, Affected)

    return make


def test_timing_makes_rows_of_methods_and_of_the_machine(
    with_methods: Callable[..., None], fake_method: Callable[..., Method], saying: Callable[..., Method]
) -> None:
    with_methods(saying("bad", RuntimeError("no\nkernel")), fake_method("gone", requires=("no_such_library",)))
    told: list[tuple[int, int, str]] = []
    cell = replace(TIMING, methods=("gone", "bad", "fake"), problem=TIMING.problem.replace(seed=5, noise=0.5))
    rows = cell.run(lambda *step: told.append(step)).rows
    assert [(row.method, row.metric, row.status, row.reason) for row in rows] == [
        (
            "gone",
            "seconds_per_iteration",
            "unavailable",
            "no_such_library is not installed: pip install no_such_library",
        ),
        ("bad", "seconds_per_iteration", "failed", "RuntimeError: no kernel"),
        ("fake", "seconds_per_iteration", "ok", None),
        ("fake", "seconds_per_gradient", "ok", None),
        ("fake", "peak_memory", "ok", None),
        *[("fake", "seconds_of_repetition", "ok", None)] * 3,
        ("machine", "gemm_rate", "ok", None),
        ("machine", "copy_bandwidth", "ok", None),
        ("machine", "reference_gemm", "ok", None),
    ]
    assert all(row.value > 0 for row in rows[2:])
    assert [(row.unit, row.n) for row in rows[3:5]] == [("s", 3), ("B", 1)]
    assert [(row.unit, row.iteration) for row in rows[5:8]] == [("s", number) for number in range(3)]
    assert sorted(row.value for row in rows[5:8])[1] == rows[2].value
    assert [(row.unit, row.n) for row in rows[8:10]] == [("flop/s", 3), ("B/s", 3)]
    assert rows[10].unit == "flop/s"
    good = rows[2]
    assert good.value > 0
    assert good.ci_low <= good.value <= good.ci_high
    assert (good.metric, good.unit, good.n, good.parameters) == ("seconds_per_iteration", "s", 3, 6)
    assert (good.D, good.L, good.B, good.shape, good.seed) == (3, 2, 4, "3", 5)
    assert (good.experiment, good.dataset, good.linear, good.dtype) == ("runtime", "normal", "diagonal", "float32")
    assert good.threads == torch.get_num_threads()
    assert {row.cell for row in rows} == {cell.key()}
    assert [row.value for row in rows[:2]] == [None, None]
    assert told == [(step, 6, "") for step in (1, 2, 3)]
    config = json.loads(good.config)
    assert config["identity"]["problem"] == {"shape": [3], "batch": 4, "seed": 5, "noise": 0.5}
    assert config["settings"]["problem"]["layers"] == 2
    assert config["identity"]["repeats"] == config["settings"]["repeats"] == 3
    assert json.loads(good.versions)["torch"] == capture("cpu").versions["torch"]


@pytest.mark.parametrize(("slower", "noisy"), [(1.0, False), (1.2, False), (1.5, True)])
def test_a_machine_that_drifts_marks_the_rows_of_its_speed(
    slower: float, noisy: bool, clock: Callable[..., dict[str, float]]
) -> None:
    product = chain([0.002] * 15, repeat(0.002 * slower))
    clock({"method": lambda: 0.02, "reference": lambda: next(product), "rate": lambda: 0.02})
    rows = replace(TIMING, repeats=150).run().rows
    (drifted,) = (row for row in rows if row.metric == "reference_gemm_drift")
    assert (drifted.method, drifted.value, drifted.reason) == ("machine", pytest.approx(slower), None)
    (watched,) = (row for row in rows if row.metric == "reference_gemm")
    assert watched.n >= 10
    assert watched.ci_low <= watched.value <= watched.ci_high
    reasons = {row.metric: row.reason for row in rows}
    mark = "noisy" if noisy else None
    assert {reasons[m] for m in ("seconds_per_iteration", "seconds_of_repetition", "gemm_rate")} == {mark}
    assert reasons["peak_memory"] is None
    assert {row.status for row in rows} == {"ok"}


@pytest.fixture
def careless(fake_method: Callable[..., Method], fake_model: type) -> Method:
    """A method that leaves anomaly mode on when it is built, and the default dtype changed by a step."""

    class Careless(fake_model):
        def __init__(self, problem: Problem) -> None:
            super().__init__(problem)
            torch.autograd.set_detect_anomaly(True)

        def after_step(self) -> None:
            torch.set_default_dtype(torch.float64)

    return fake_method("careless", Careless)


def test_what_a_method_leaves_changed_reaches_no_other_and_is_told(
    careless: Method, fake_method: Callable[..., Method], fake_model: type, with_methods: Callable[..., None]
) -> None:
    seen = set()

    class Sees(fake_model):
        def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
            seen.add((torch.is_anomaly_enabled(), torch.get_default_dtype()))
            return super().training_loss(x, generator)

    with_methods(careless, fake_method("sees", Sees))
    rows = replace(TIMING, methods=("careless", "sees")).run().rows
    assert seen == {(False, torch.float32)}
    caveat = (
        "the method changed anomaly mode, the default dtype for the whole process; this was undone after every call"
    )
    assert {row.reason for row in rows if row.method == "careless"} == {caveat}
    assert {row.reason for row in rows if row.method != "careless"} == {None}


def test_a_training_whose_method_changes_settings_says_so(careless: Method, with_methods: Callable[..., None]) -> None:
    with_methods(careless)
    rows = replace(TRAINING, method="careless").run().rows
    assert {row.status for row in rows} == {"ok"}
    assert all("the method changed anomaly mode, the default dtype" in str(row.reason) for row in rows)
    assert (torch.is_anomaly_enabled(), torch.get_default_dtype()) == (False, torch.float32)


@pytest.mark.parametrize(("slower", "mark"), [(1.2, None), (1.5, "noisy")])
def test_a_machine_that_drifts_marks_the_seconds_of_a_training(
    slower: float, mark: str | None, clock: Callable[..., dict[str, float]]
) -> None:
    product = chain([0.002] * 6, repeat(0.002 * slower))
    clock({"reference": lambda: next(product)})
    rows = {row.metric: row for row in TRAINING.run().rows}
    assert (rows["reference_gemm_drift"].method, rows["reference_gemm_drift"].value) == ("fake", pytest.approx(slower))
    assert rows["training_seconds"].reason == mark
    assert rows["nll"].reason is None


def test_no_progress_tells_of_a_validation_that_was_not() -> None:
    told: list[str] = []
    replace(TRAINING, config=replace(TRAINING.config, epochs=2)).run(lambda done, total, note: told.append(note))
    assert told[0] == ""
    assert told[1].startswith("best validation ")


def test_a_training_of_which_a_part_ran_before_was_not_watched(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    resume = TrainingCheckpoint(tmp_path / "state", {})
    assert "reference_gemm_drift" not in {row.metric for row in TRAINING.run(resume=resume).rows}


def test_bounds_follow_from_the_cost_and_the_machine(
    with_methods: Callable[..., None], fake_method: Callable[..., Method]
) -> None:
    with_methods(fake_method(fc_cost=LayerCost(3, cubic=2)))
    rows = {row.metric: row for row in TIMING.run().rows}
    flops, moved = (2 * 3 - 1) * 2 * 4 * 9 + 2 * 2 * 27, 6 * 4 * 8  # L = 2, B = 4, D = 3; six parameters of four bytes
    assert (rows["flops"].value, rows["optimizer_bytes"].value) == (flops, moved)
    gradient = 360 / rows["gemm_rate"].value + 108 / rows["gemm_rate_square"].value
    assert rows["gradient_bound"].value == pytest.approx(gradient)
    assert rows["iteration_bound"].value == pytest.approx(gradient + moved / rows["copy_bandwidth"].value)
    without_average = replace(TIMING, config=TrainingConfig(ema_decay=None)).run().rows
    assert {row.metric: row.value for row in without_average}["optimizer_bytes"] == 6 * 4 * 5


def test_a_compiled_loss_tells_its_first_iteration(
    with_methods: Callable[..., None], fake_method: Callable[..., Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda loss, **_: compiled.append(loss) or loss)
    with_methods(fake_method())
    rows = {row.metric: row for row in replace(TIMING, config=TrainingConfig(compile=True)).run().rows}
    assert len(compiled) == 1
    assert rows["seconds_of_first_iteration"].value > 0
    assert "seconds_of_first_iteration" not in {row.metric for row in TIMING.run().rows}
    assert len(compiled) == 1


def test_skipped_steps_have_a_row_where_they_may_be_skipped() -> None:
    skipping = replace(TRAINING, config=replace(TRAINING.config, skip_not_finite=True))
    assert [row.value for row in skipping.run().rows if row.metric == "skipped_steps"] == [0]


def test_a_last_batch_without_a_finite_gradient_has_no_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    real = likelihood.fit_and_score

    def skipped_last(*args: Any) -> Any:
        outcome = real(*args)
        *curve, last = outcome.report.curve
        curve.append(replace(last, gradient_norm=math.nan))
        return replace(outcome, report=replace(outcome.report, curve=tuple(curve)))

    monkeypatch.setattr(likelihood, "fit_and_score", skipped_last)
    rows = TRAINING.run().rows
    assert {"nll", "validation_curve"} <= {row.metric for row in rows}
    assert "gradient_norm" not in {row.metric for row in rows}
    assert {row.status for row in rows} == {"ok"}


def test_score_matching_has_its_own_loss_beside_the_nll() -> None:
    rows = [row for row in replace(TRAINING, method="ebflow-dsm").run().rows if row.iteration is not None]
    nll, loss = ([row for row in rows if row.metric == metric] for metric in ("validation_curve", "validation_loss"))
    assert [(row.iteration, row.seconds) for row in nll] == [(row.iteration, row.seconds) for row in loss]


def test_training_makes_one_row_a_metric() -> None:
    everything = TRAINING.run().rows
    rows = {row.metric: row for row in everything}
    assert {metric: row.unit for metric, row in rows.items()} == {
        "nll": "nats",
        "nll_of_draw": "nats",
        "bits_per_dim": "bits",
        "validation_nll": "nats",
        "peak_memory": "B",
        "training_seconds": "s",
        "training_iterations": "1",
        "validation_curve": "nats",
        "gradient_norm": "1",
        "reference_gemm_drift": "1",
    }
    nll, bits = rows["nll"], rows["bits_per_dim"]
    assert nll.n == 2
    assert nll.ci_low < nll.value < nll.ci_high
    for attribute in ("value", "ci_low", "ci_high"):
        assert getattr(bits, attribute) == pytest.approx(getattr(nll, attribute) / (64 * math.log(2)))
    assert rows["training_iterations"].value == 12
    assert rows["validation_nll"].value == pytest.approx(nll.value, rel=0.1)
    assert {row.parameters for row in rows.values()} == {128}
    assert {row.status for row in rows.values()} == {"ok"}
    assert {row.dataset for row in rows.values()} == {"digits"}
    assert nll.shape == "1x8x8"
    # The curve ends where training did; what is no curve has no place on it.
    assert (rows["validation_curve"].iteration, rows["gradient_norm"].iteration) == (12, 12)
    assert rows["validation_curve"].seconds == rows["gradient_norm"].seconds == rows["training_seconds"].value
    assert rows["validation_curve"].value == rows["validation_nll"].value
    assert rows["gradient_norm"].value > 0
    assert (nll.iteration, nll.seconds) == (None, None)
    draws = [row for row in everything if row.metric == "nll_of_draw"]
    assert [row.iteration for row in draws] == [0, 1]
    assert sum(row.value for row in draws) / 2 == pytest.approx(nll.value)


def test_densities_make_divergence_rows() -> None:
    cell = replace(
        TRAINING, method="gaussian", dataset="sine", problem=Problem(architecture="toy", shape=(2,), layers=1), draws=1
    )
    rows = {row.metric: row for row in cell.run().rows}
    assert list(rows) == ["nll", "bits_per_dim", "validation_nll", "kl", "fisher", "nll_of_draw"]
    assert rows["kl"].value > 0
    assert rows["fisher"].value > 0
    assert rows["nll"].ci_low is None


@pytest.mark.parametrize(("matrix", "parameters"), [("full", 340), ("lower", 205), ("upper", 205), ("lu", 370)])
def test_matrices_train_on_the_multimodal_set(matrix: str, parameters: int) -> None:
    cell = replace(
        TRAINING,
        method=f"ebflow-{matrix}-ml",
        dataset="multimodal10",
        problem=Problem(architecture="multimodal", shape=(10,), layers=3, batch=5000, dtype="float64"),
        config=TrainingConfig(optimizer="adam", learning_rate=1e-2, decay=1.0, ema_decay=None, epochs=2),
        draws=1,
    )
    rows = {row.metric: row for row in cell.run().rows}
    # The score of this density has no finite estimate.
    assert rows.keys() >= {"nll", "kl"}
    assert "fisher" not in rows
    assert rows["nll"].parameters == parameters
    # The entropy of the data is 4.03 nats, and a mean over 10,000 points is off by 0.16.
    assert rows["nll"].value - rows["kl"].value == pytest.approx(4.03, abs=5 * 0.16)
    assert rows["kl"].value > 0


@pytest.mark.parametrize(
    ("effect", "status", "reason"),
    [
        (float("nan"), "diverged", "the loss is not finite at step 1"),
        (RuntimeError("no\nkernel"), "failed", "RuntimeError: no kernel"),
        (ValueError("layer 2 is singular"), "failed", "ValueError: layer 2 is singular"),
        (MemoryError(), "failed", "MemoryError: "),
    ],
)
def test_a_training_that_goes_wrong_is_a_row(
    effect: float | Exception,
    status: str,
    reason: str,
    saying: Callable[..., Method],
    with_methods: Callable[..., None],
) -> None:
    with_methods(saying("bad", effect))
    (row,) = replace(TRAINING, method="bad").run().rows
    assert (row.metric, row.status, row.reason, row.value) == ("nll", status, reason, None)


def test_what_is_missing_is_a_row(
    with_methods: Callable[..., None], fake_method: Callable[..., Method], tmp_path: Path
) -> None:
    with_methods(fake_method("gone", requires=("no_such_library",)))
    (row,) = replace(TRAINING, method="gone").run().rows
    assert (row.status, row.reason) == ("unavailable", "no_such_library is not installed: pip install no_such_library")
    (row,) = replace(TRAINING, dataset="mnist", data_dir=tmp_path).run().rows
    assert row.status == "unavailable"
    assert row.reason.startswith(f"{tmp_path}/mnist/train-images-idx3-ubyte is missing")


def test_data_that_cannot_be_fetched_are_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, data_dir: Path | None, seed: int, columns: tuple[str, ...]) -> None:
        raise InputError("could not download it: connect to the network")

    monkeypatch.setattr(datasets, "load", load)
    (row,) = replace(TRAINING, download=True).run().rows
    assert (row.status, row.reason) == ("unavailable", "could not download it: connect to the network")


def test_the_user_s_mistakes_are_raised_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(runtime, "measure")
    monkeypatch.delattr(likelihood, "fit_and_score")
    cnn = Problem(architecture="cnn", shape=(1, 6, 6), layers=3)
    with pytest.raises(InputError, match=r"^ebflow-ml: squeeze halves images"):
        replace(TIMING, methods=("ebflow-ml",), problem=cnn).check()
    with pytest.raises(InputError, match=r"^fake has no cnn architecture"):
        replace(TRAINING, problem=cnn).check()
    with pytest.raises(InputError, match=r"^fake cannot start from raw pixels; leave out --without-map"):
        replace(TRAINING, preprocess=False).check()
    TIMING.check()
    TRAINING.check()
    replace(TRAINING, method="ebflow-dsm", preprocess=False).check()


def test_a_check_computes_nothing(with_methods: Callable[..., None], fake_method: Callable[..., Method]) -> None:
    problem = Problem(shape=(10_000_000,), layers=2)  # of 400 TB, if it were built

    def refuses(problem: Problem) -> Any:
        raise RuntimeError("I have to compute to be built")

    model = build(registry().find("ebflow-ml"), problem.replace(device="meta"))
    assert count_parameters(model) == 2 * (10_000_000**2 + 10_000_000)
    with_methods(fake_method("refuses", refuses), fake_method("gone", refuses, requires=("no_such_library",)))
    replace(TIMING, methods=("ebflow-ml", "refuses", "gone"), problem=problem).check()


def test_logit_scale_and_place_are_the_cell_s(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def watched(method: Method, problem: Problem, data: Any, batches: Any, *rest: Any) -> None:
        seen.append((problem.raw_pixel_alpha, data.preprocessing, batches.preprocessing))
        raise RuntimeError("seen enough")

    monkeypatch.setattr(likelihood, "fit_and_score", watched)
    for changes in (
        {},
        {"logit_alpha": 0.75},
        {"logit_alpha": 0.75, "preprocess": False},
        {"clean_batches": True},
        {"smooth_noise": 1.5},
        {"smooth_noise": 1.5, "preprocess": False},
    ):
        replace(TRAINING, method="ebflow-dsm", **changes).run()
    plain, scaled, inside, clean, smooth, smooth_inside = seen
    assert plain[0] is None
    assert plain[1].alpha == 0.5
    assert plain[2] is plain[1]
    assert scaled[1].alpha == 0.75
    assert inside[0] == 0.75
    assert inside[1] == Dequantize(17)
    assert clean[1].alpha == 0.5
    assert clean[2] == Identity()
    assert smooth[1] == smooth[2] == replace(plain[1], smooth=1.5)
    assert smooth_inside[1] == Dequantize(17, smooth=1.5)


def test_smooth_noise_is_of_grey_levels() -> None:
    points = replace(
        TRAINING, dataset="sine", smooth_noise=1.5, problem=TRAINING.problem.replace(architecture="toy", shape=(2,))
    )
    (row,) = points.run().rows
    reason = "sine has no grey levels to add smooth noise to; use a recipe without it"
    assert (row.status, row.reason) == ("unavailable", reason)


CHANGES_OF_TIMING: list[dict[str, Any]] = [
    {"experiment": "x"},
    {"profile": "quick"},
    {"methods": ("fake", "ebflow-ml")},
    {"problem": TIMING.problem.replace(shape=(4,))},
    {"problem": TIMING.problem.replace(seed=1)},
    {"problem": TIMING.problem.replace(dtype="float64")},
    {"repeats": 4},
    {"config": TrainingConfig(optimizer="adam")},
]
CHANGES_OF_TRAINING: list[dict[str, Any]] = [
    {"experiment": "x"},
    {"profile": "quick"},
    {"method": "ebflow-ml"},
    {"problem": TRAINING.problem.replace(noise=0.1)},
    {"problem": TRAINING.problem.replace(seed=1)},
    {"dataset": "sine"},
    {"config": TrainingConfig(epochs=2, evaluate_every=1)},
    {"config": replace(TRAINING.config, ema_decay=None)},
    {"draws": 3},
    {"logit_alpha": 0.75},
    {"smooth_noise": 1.25},
    {"preprocess": False},
    {"clean_batches": True},
    {"standardize": True},
    {"columns": ("a",)},
    {"dequantize": True},
]


@pytest.mark.parametrize(
    ("cell", "changes"),
    [(TIMING, c) for c in CHANGES_OF_TIMING] + [(TRAINING, c) for c in CHANGES_OF_TRAINING],
    ids=str,
)
def test_the_key_changes_with_whatever_determines_the_result(cell: Any, changes: dict[str, Any]) -> None:
    assert replace(cell, **changes).key() != cell.key()


def test_the_key_does_not_change_with_where_files_lie(tmp_path: Path) -> None:
    moved = replace(TRAINING, data_dir=tmp_path, download=True, save=tmp_path / "w")
    assert moved.key() == TRAINING.key()
    assert TIMING.key() != TRAINING.key()


@pytest.mark.parametrize(
    ("attribute", "value"), [("cpu", "another"), ("gpu", "a card"), ("threads", 99), ("versions", {"torch": "0"})]
)
@pytest.mark.parametrize("cell", [TIMING, TRAINING], ids=["timing", "training"])
def test_the_key_changes_with_machine_and_software(
    cell: Any, attribute: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cell.key()
    elsewhere = replace(capture("cpu"), **{attribute: value})
    monkeypatch.setattr(base, "capture", lambda device, libraries: elsewhere)
    assert cell.key() != before


@pytest.mark.parametrize("cell", [TIMING, TRAINING], ids=["timing", "training"])
def test_the_key_does_not_change_with_the_commit(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or everything would have to be measured again after the change of a comment.
    before = cell.key()
    elsewhere = replace(capture("cpu"), commit="another")
    monkeypatch.setattr(base, "capture", lambda device, libraries: elsewhere)
    assert cell.key() == before


def test_titles_tell_cells_apart() -> None:
    assert TIMING.title == "fc, D = 3, L = 2"
    assert TRAINING.title == "fake on digits, fc, seed 0"
