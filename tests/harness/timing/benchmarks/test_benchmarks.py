"""The asv suite runs at its smallest point, and is the one whose results are read."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.methods import Problem
from harness.methods.density import log_prob
from harness.methods.registry import registry
from harness.timing import asv_results
from harness.timing.benchmarks import DEPTHS, DIMENSIONS, OncePerPoint, evaluation, grid, iteration

ROOT = Path(__file__).parents[4]


def suite() -> Iterator[tuple[str, type[OncePerPoint]]]:
    """Name, as asv gives it, and class of every benchmark."""
    for module in (iteration, evaluation):
        for name, found in inspect.getmembers(module, inspect.isclass):
            if found.__module__ != module.__name__:
                continue
            for method, _ in inspect.getmembers(found, inspect.isfunction):
                if method.startswith("time_"):
                    yield f"{module.__name__.rsplit('.', 1)[-1]}.{name}.{method}", found


BENCHMARKS = dict(suite())


def test_what_is_read_is_what_is_run() -> None:
    assert set(asv_results._BENCHMARKS) == set(BENCHMARKS)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_method_at_the_smallest_point(name: str) -> None:
    benchmark = BENCHMARKS[name]()
    function = getattr(benchmark, name.rsplit(".", 1)[-1])
    methods, dimensions, depths = benchmark.params
    assert len(benchmark.param_names) == 3
    for method in methods:
        benchmark.setup(method, dimensions[0], depths[0])
        function(method, dimensions[0], depths[0])
        assert all(bool(p.isfinite().all()) for p in benchmark.trainer.parameters)


@pytest.mark.parametrize(("kind", "asked", "threads"), [("existing", "2", 1), ("virtualenv", "2", 2), ("", None, 1)])
def test_a_benchmark_takes_the_threads_that_its_results_tell(
    kind: str, asked: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASV_ENV_TYPE", kind)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        iteration.TrainingIteration().setup("ebflow-dsm", 16, 1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_other_processes_do_not_count() -> None:
    benchmark = iteration.TrainingIteration()
    benchmark.setup("ebflow-ml", 16, 1)
    assert all(found.timer is iteration.TrainingIteration.timer for found in BENCHMARKS.values())
    assert benchmark.timer() == pytest.approx(time.process_time(), abs=1)


def test_a_timed_call_holds_a_whole_period_and_tells_the_mean_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = iteration.TrainingIteration()
    benchmark.setup("ebflow-aml", 16, 2)
    clock, refreshes = [0.0], []

    def step(batch: torch.Tensor) -> torch.Tensor:
        before = benchmark.trainer.model.observations()["refreshes"]
        loss = real(batch)
        refreshes.append(benchmark.trainer.model.observations()["refreshes"] - before)
        clock[0] += 101.0 if refreshes[-1] else 1.0  # the dear step, and the cheap ones
        return loss

    real = benchmark.trainer.step
    monkeypatch.setattr(benchmark.trainer, "step", step)
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    timer = benchmark.timer
    period = registry().find("ebflow-aml").period(Problem(shape=(16,)))
    for _ in range(3):
        began = timer()
        benchmark.time_iteration("ebflow-aml", 16, 2)
        assert timer() - began == pytest.approx(1 + 100 / period)
    assert (len(refreshes), sum(refreshes)) == (3 * period, 3)


def test_what_every_process_needs_is_loaded_before_asv_forks() -> None:
    code = (
        "import sys; from harness.timing.benchmarks import iteration; loaded = set(sys.modules);"
        "iteration.TrainingIteration().setup('nflows-lu-ml', 16, 2);"
        "print(sum(name not in loaded for name in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert int(ended.stdout) < 100, ended.stderr  # torch._dynamo alone is 800


def test_a_plain_run_is_a_part_of_the_full_grid() -> None:
    (sizes, depths), (all_sizes, all_depths) = grid(""), grid("full")
    assert set(sizes) < set(all_sizes)
    assert set(depths) < set(all_depths)
    assert 4 * len(sizes) * len(depths) <= len(all_sizes) * len(all_depths)
    with pytest.raises(ValueError, match="HARNESS_ASV_GRID must be full or not be set, unlike 'Full'"):
        grid("Full")


@pytest.mark.parametrize("name", ["", "full"])
def test_the_environment_chooses_the_grid(name: str) -> None:
    code = "from harness.timing.benchmarks import iteration; print(iteration.TrainingIteration.params[1:])"
    environment = {**os.environ, "HARNESS_ASV_GRID": name}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.stdout == f"{grid(name)}\n", ended.stderr


@pytest.mark.parametrize(
    ("page", "method"), [("adding-a-baseline.md", "plain-dense-ml"), ("regressions.md", "ebflow-dsm")]
)
def test_the_documented_selection_is_one_method_alone(page: str, method: str) -> None:
    shown = re.findall(r"^asv run (--bench .*?)(?: +#.*)?$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    ((_, selection),) = map(shlex.split, shown)
    names = {*iteration.TrainingIteration.params[0], "plain-dense-ml"}
    # As asv names a point.
    points = {f"iteration.TrainingIteration.time_iteration({name!r}, 784, 2)": name for name in names}
    assert [name for point, name in points.items() if re.search(selection, point)] == [method]


def test_points() -> None:
    assert iteration.TrainingIteration.params[1:] == (DIMENSIONS, DEPTHS)
    assert {"ebflow-ml", "ebflow-dsm", "nflows-lu-ml"} <= set(iteration.TrainingIteration.params[0])
    # Only likelihood methods differ in what comes after training.
    assert "ebflow-dsm" not in evaluation.Sampling.params[0]
    assert "gaussian" not in iteration.TrainingIteration.params[0]


def test_a_point_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    original = OncePerPoint.setup.__globals__["trainer_on_noise"]

    def counted(method: Any, problem: Any, config: Any) -> Any:
        built.append((method.name, problem.dimension, problem.layers))
        return original(method, problem, config)

    monkeypatch.setitem(OncePerPoint.setup.__globals__, "trainer_on_noise", counted)
    benchmark = iteration.TrainingIteration()
    for point in [("ebflow-ml", 16, 1), ("ebflow-ml", 16, 1), ("ebflow-ml", 16, 2), ("ebflow-dsm", 16, 2)]:
        benchmark.setup(*point)
    assert built == [("ebflow-ml", 16, 1), ("ebflow-ml", 16, 2), ("ebflow-dsm", 16, 2)]


def test_every_log_determinant_is_due() -> None:
    # The weights change before every evaluation, so that no cache answers.
    benchmark = evaluation.LogDeterminant()
    benchmark.setup("ebflow-ml", 16, 2)
    with torch.no_grad():
        before = log_prob(benchmark.trainer.model, benchmark.batch[:1])
    for _ in range(3):
        benchmark.time_log_determinant("ebflow-ml", 16, 2)
    with torch.no_grad():
        assert not torch.equal(log_prob(benchmark.trainer.model, benchmark.batch[:1]), before)


def configuration() -> dict[str, Any]:
    text = (ROOT / "asv.conf.json").read_text()
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))


def test_asv_loads_the_plugin_from_the_folder_of_its_configuration_without_torch(tmp_path: Path) -> None:
    (tmp_path / "asv").mkdir()
    (tmp_path / "asv" / "machine.py").write_text("Machine = MachineCollection = None")
    (plugin,) = configuration()["plugins"]
    assert plugin.startswith(".")
    code = f"import sys; sys.path.insert(0, '.'); import {plugin[1:]}; sys.exit('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_asv_configuration() -> None:
    config = configuration()
    assert (ROOT / config["benchmark_dir"]).is_dir()
    for plugin in config["plugins"]:
        assert (ROOT / f"{plugin.lstrip('.').replace('.', '/')}.py").is_file()
    # The torch that asv installs is the one that everything else is tested with.
    (torch_version,) = config["matrix"]["req"]["torch"]
    assert f"torch=={torch_version}" in (ROOT / "constraints.txt").read_text().split()
    # `harness tables` looks for asv's results where asv puts them.
    assert config["results_dir"] == "results/local/asv"
    # Two threads that share a busy machine are noise; every row says how many there were.
    assert config["matrix"]["env_nobuild"]["OMP_NUM_THREADS"] == ["1"]
