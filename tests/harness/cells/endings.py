"""Cells that end in every way there is; a module of its own, so that other processes can import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from harness.cells import Cell, Keep, Progress, single
from harness.cells.base import APART
from harness.methods import Problem
from harness.results import Row
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.signals import Stopped


def quiet(done: int, total: int, note: str) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True)
class Ending(Cell):
    """A cell that ends as its name of `ENDINGS` says; those that leave traces leave them in a folder."""

    kind: ClassVar[str] = "ending"
    main_metric: ClassVar[tuple[str, str]] = ("nll", "nats")

    ending: str
    number: int = 0
    folder: Path | None = field(default=None, metadata=APART)
    alone: bool = False
    experiment: str = field(default="ending", kw_only=True)
    profile: str = field(default="custom", kw_only=True)
    problem: Problem = field(default_factory=Problem, kw_only=True)

    @property
    def title(self) -> str:
        return f"{self.ending} {self.number}"

    @property
    def method_names(self) -> tuple[str, ...]:
        return ("gaussian",)

    @property
    def exclusive(self) -> bool:
        return self.alone

    def check(self) -> None:
        pass

    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        if self.folder is not None:
            (self.folder / f"{self.number}.pid").write_text(str(os.getpid()))
        progress(1, 1, "")
        return [self.row_maker(None)("nll", "nats", single(ENDINGS[self.ending](self)))]


def _raise(cell: Ending) -> float:
    raise RuntimeError("no\nkernel")


def _crash(cell: Ending) -> float:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0.0


def _killed(cell: Ending) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def _killed_once(cell: Ending) -> float:
    try:
        (cell.folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        return 7.0
    return _killed(cell)


def _stopped_once(cell: Ending) -> float:
    try:
        (cell.folder / "stopped").touch(exist_ok=False)
    except FileExistsError:
        return 7.0
    raise Stopped("the state is saved", signal.SIGTERM)


def _fork_and_exit(cell: Ending) -> float:
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    (cell.folder / f"{cell.number}.pid").write_text(str(pid))
    os._exit(3)


class Panic(BaseException):
    """As libraries in Rust have it: no Exception."""


def _panic(cell: Ending) -> float:
    raise Panic("index out of bounds")


def _hang(cell: Ending) -> float:
    while True:
        time.sleep(1)


def _eat(cell: Ending) -> float:
    eaten = []
    while True:
        eaten.append(torch.ones(25_000_000))  # 100 MB
        time.sleep(0.05)


def _print(cell: Ending) -> float:
    print("not a row", flush=True)
    os.write(1, b"nor this")
    return 1.0


def _draw(cell: Ending) -> float:
    if cell.folder is not None:
        with (cell.folder / f"{cell.number}.runs").open("a") as file:
            file.write("x")
    time.sleep(1)
    return float(torch.randn((), generator=torch.Generator().manual_seed(cell.number)))


ENDINGS: dict[str, Callable[[Ending], float]] = {
    "pid": lambda cell: float(os.getpid()),
    "threads": lambda cell: float(torch.get_num_threads()),
    "draw": _draw,
    "raise": _raise,
    "sys.exit": lambda cell: sys.exit(3),
    "os._exit": lambda cell: os._exit(3),
    "crash": _crash,
    "killed": _killed,
    "killed once": _killed_once,
    "stopped once": _stopped_once,
    "fork, os._exit": _fork_and_exit,
    "panic": _panic,
    "hang": _hang,
    "eat": _eat,
    "nan": lambda cell: float("nan"),
    "print": _print,
}
