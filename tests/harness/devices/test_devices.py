"""What a GPU must do, done on it where there is one, and on the CPU by the same code with a tape in place of graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import tape
import torch
from torch import Tensor

from ebflow import SingularJacobianError, architectures
from harness.cells import LikelihoodCell, RuntimeCell
from harness.methods import Problem
from harness.methods.density import build, log_prob
from harness.methods.precision import tf32_where_declared
from harness.methods.registry import registry
from harness.methods.seeds import generator
from harness.timing.interleaved import measure
from harness.timing.memory import peak_bytes
from harness.training import recorded
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.configuration import TrainingConfig
from harness.training.recorded import RecordedStep
from harness.training.step import Trainer

GPU = pytest.param("cuda", marks=pytest.mark.cuda)
METHODS = ("ebflow-ml", "ebflow-aml", "ebflow-dsm", "ebflow-ssm", "ebflow-fdssm", "ebflow-tssm", "relative-gradient-ml")


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device with the means to record a step."""
    name = str(request.param)
    if name == "cpu":
        monkeypatch.setattr(recorded, "record", tape.record)
    elif not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, which torch does not find here")
    return name


def trainer_of(name: str, device: str, config: TrainingConfig | None = None, dtype: str = "float32") -> Trainer:
    problem = Problem(shape=(1, 8, 8), batch=16, noise=0.3, device=device, dtype=dtype)
    model = build(registry().find(name), problem)
    model.module.train()
    return Trainer(model, config or TrainingConfig(learning_rate=1e-3), generator(1, "training", device), dtype)


def batches(device: str, count: int) -> list[Tensor]:
    drawn = torch.randn(count, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return list(drawn.to(device))


@pytest.mark.parametrize("name", ["ebflow-ml", "nflows-dense-ml", "normflows-dense-ml", "zuko-dense-ml"])
def test_densities_are_those_of_a_cpu(name: str, device: str) -> None:
    problem = Problem(shape=(1, 8, 8), dtype="float64", start="orthogonal")
    here, there = (build(registry().find(name), problem.replace(device=place)) for place in ("cpu", device))
    x = batches("cpu", 1)[0].double()
    torch.testing.assert_close(log_prob(there, x.to(device)).cpu(), log_prob(here, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_replayed_steps_end_where_plain_ones_do(name: str, device: str) -> None:
    ends = []
    for replayed in (False, True):
        trainer = trainer_of(name, device)
        step = RecordedStep(trainer) if replayed else trainer.step
        losses = torch.stack([step(x) for x in batches(device, 30)])
        ends.append([weight.detach().clone() for weight in [*trainer.weights, *(trainer.average or []), losses]])
    # A graph's learning rate is float32, that of a plain step float64; on a CPU both are float64.
    tolerance = 0.0 if device == "cpu" else 1e-4
    for plain, again in zip(*ends, strict=True):
        torch.testing.assert_close(again, plain, rtol=tolerance, atol=tolerance)
        assert bool(plain.isfinite().all())


@pytest.mark.parametrize("replayed", [False, True])
def test_an_iteration_is_timed_and_its_memory_known(replayed: bool, device: str) -> None:
    problem = Problem(shape=(64,), batch=16, device=device)
    config = TrainingConfig(cuda_graphs=replayed)
    methods = [registry().find(name) for name in ("ebflow-ml", "ebflow-aml", "ebflow-dsm")]
    for timing in measure(methods, problem, 2, config).timings:
        assert timing.failure is None
        assert all(seconds > 0 for seconds in timing.seconds)
        assert timing.parameters == 2 * (64 * 64 + 64)
        # Weights, gradients, their average, the optimiser's second moment.
        assert (timing.peak_bytes or 0) >= 4 * 4 * timing.parameters


def test_the_peak_grows_with_the_batch(device: str) -> None:
    peaks = []
    for rows in (16, 4096):
        trainer = trainer_of("ebflow-dsm", device)
        x = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
        trainer.step(x)
        peaks.append(peak_bytes(trainer, x))
    assert peaks[1] - peaks[0] > 4080 * 64 * 4  # the batch alone


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_log_z_of_weights_that_are_no_numbers_raises_whatever_the_library_says(
    bad: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some versions return a finite log|det| for a matrix with NaN on a GPU (pytorch issue 173638).
    blind = torch.linalg.slogdet

    def hiding(matrix: Tensor) -> tuple[Tensor, Tensor]:
        return blind(matrix.nan_to_num(0.5, 0.5, 0.5))

    monkeypatch.setattr(torch.linalg, "slogdet", hiding)
    flow = architectures.fc((16,)).to(device)
    with torch.no_grad():
        flow.layers[0].get_parameter("weight")[3, 4] = bad
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(SingularJacobianError, match="a weight that is not finite"):
            flow.log_normalizer()


@pytest.mark.parametrize(
    ("dtype", "lowest", "highest", "device"),
    [
        ("float32", 0.0, 1e-5, "cpu"),
        ("bf16", 1e-4, 0.1, "cpu"),
        pytest.param("float32", 0.0, 1e-5, "cuda", marks=pytest.mark.cuda),
        pytest.param("bf16", 1e-4, 0.1, "cuda", marks=pytest.mark.cuda),
        pytest.param("tf32", 1e-6, 1e-2, "cuda", marks=pytest.mark.cuda),  # which no CPU has
    ],
    indirect=["device"],
)
def test_products_are_as_precise_as_declared(dtype: str, lowest: float, highest: float, device: str) -> None:
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    exact = a.double() @ a.double()
    with tf32_where_declared(dtype), torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
        product = a @ a
    off = float((product.double() - exact).norm() / exact.norm())
    assert lowest <= off < highest
    trainer = trainer_of("ebflow-dsm", device, dtype=dtype)
    assert all(bool(trainer.step(x).isfinite()) for x in batches(device, 3))


def test_a_training_of_a_cell_replays_its_steps(device: str, tmp_path: Path) -> None:
    problem = Problem(shape=(1, 8, 8), noise=0.3, start="whitened", device=device)
    config = TrainingConfig("adam", 1e-3, "cosine", epochs=2, evaluate_every=1, start_samples=1000, cuda_graphs=True)
    cell = LikelihoodCell(
        experiment="x", profile="x", method="ebflow-aml", problem=problem, dataset="digits", config=config, draws=1
    )
    resume = TrainingCheckpoint(tmp_path / "state.safetensors", {})
    rows = cell.run(resume=resume).rows
    value = next(row.value for row in rows if row.metric == "nll")
    assert value is not None
    assert value < 103  # one Gaussian has 104.3
    assert not [row for row in rows if row.status != "ok"]


def test_rows_of_timings_name_the_device(device: str) -> None:
    cell = RuntimeCell(
        experiment="runtime",
        profile="x",
        methods=("ebflow-dsm",),
        problem=Problem(shape=(16,), batch=8, device=device),
        repeats=2,
        config=TrainingConfig(cuda_graphs=True),
    )
    rows = cell.run().rows
    assert {row.device for row in rows} == {device}
    assert all((row.gpu is None) == (device == "cpu") for row in rows)
    assert not [row for row in rows if row.metric == "seconds_per_gradient"]


@pytest.mark.parametrize(("architecture", "shape", "layers"), [("fc", (12_288,), 2), ("cnn", (3, 64, 64), 6)])
def test_the_largest_problem_of_a_gpu_fits_together(architecture: str, shape: tuple[int, ...], layers: int) -> None:
    """On the meta device, where shapes are all that there is."""
    for name in ("ml", "aml", "sml", "ssm", "dsm", "fdssm"):
        problem = Problem(architecture, shape, layers, device="meta", residual=architecture == "cnn")
        model = build(registry().find(f"ebflow-{name}"), problem)
        x = torch.empty(100, *shape, device="meta")
        model.init_batch(x)
        loss = model.training_loss(x, None)
        loss.backward()
        assert loss.shape == ()
        assert all(weight.grad is not None and weight.grad.is_meta for weight in model.module.parameters())
