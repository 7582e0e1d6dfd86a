"""What foreign code does to the process at import is undone, and told."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.methods.imports import contained
from harness.methods.shared_settings import restored


def notes_of(code: str) -> list[str]:
    with contained("importing m") as notes:
        exec(code)
    return notes


def test_harmless_code_leaves_no_note() -> None:
    assert notes_of("x = 1") == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import torch; torch.set_default_dtype(torch.float64)", "the default dtype"),
        ("import torch; torch.set_default_device('meta')", "the default device"),
        ("import torch; torch.set_num_threads(torch.get_num_threads() + 1)", "the number of threads"),
        ("import torch; torch.set_grad_enabled(False)", "the gradient mode"),
        ("import torch; torch.autograd.set_detect_anomaly(True, False)", "anomaly mode"),
        ("import torch; torch.set_warn_always(True)", "warning every time"),
        ("import torch; torch.set_autocast_enabled('cpu', True)", "autocast on cpu"),
        ("import torch; torch.backends.mkldnn.enabled = False", "torch.backends.mkldnn.enabled"),
        ("import gc; gc.disable()", "garbage collection"),
        ("import gc; gc.set_threshold(1)", "the thresholds of garbage collection"),
        ("import torch; torch.set_flush_denormal(True)", "the flushing of denormal numbers"),
        ("import numpy; numpy.seterr(all='raise')", "numpy's error state"),
        ("import torch; torch.backends.cudnn.allow_tf32 ^= True", "torch.backends.cudnn.allow_tf32"),
        ("import torch; torch.manual_seed(5)", "torch's random state"),
        ("import numpy; numpy.random.rand()", "numpy's random state"),
        ("import random; random.random()", "Python's random state"),
        ("import warnings; warnings.simplefilter('ignore')", "the warnings filters"),
        (
            "from torch.distributions import Distribution as D; D._validate_args = False",
            "the validation of torch's distributions",
        ),
        (
            "from torch.distributions import Distribution as D; D.arg_constraints = {}",
            "the constraints of torch's distributions",
        ),
    ],
)
def test_what_was_changed_is_undone_and_noted(code: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test's import of zuko may have switched it off.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)

    def state() -> list[object]:
        return [
            torch.get_default_dtype(),
            torch.empty(0).device,
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            (torch.is_warn_always_enabled(), torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.enabled),
            (gc.isenabled(), gc.get_threshold()),
            (sys.float_info.min / 2, np.geterr(), torch.backends.cudnn.allow_tf32),
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            random.getstate(),
            list(warnings.filters),
            torch.distributions.Distribution._validate_args,
            vars(torch.distributions.Distribution)["arg_constraints"],
        ]

    before = state()
    assert notes_of(code) == [f"changed {what}: undone"]
    assert state() == before


def test_a_default_device_of_the_user_s_stays() -> None:
    torch.set_default_device("meta")
    try:
        assert notes_of("import torch; torch.set_default_device('cpu')") == ["changed the default device: undone"]
        assert torch.empty(0).device.type == "meta"
    finally:
        torch.set_default_device(None)


def test_a_default_device_that_is_set_in_a_build_on_the_meta_device_is_undone() -> None:
    with torch.device("meta"):
        assert notes_of("import torch; torch.set_default_device('meta')") == ["changed the default device: undone"]
    assert torch.empty(0).device.type == "cpu"
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import warnings; warnings.simplefilter('ignore')", "the warnings filters"),
        ("import os; os.environ['OMP_NUM_THREADS'] = '77'", "environment variables"),
        ("import os; os.environ.pop('PATH')", "environment variables"),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal handlers"),
        ("import logging; logging.disable(logging.CRITICAL)", "the root logger"),
        ("import sys; sys.path.insert(0, '/nowhere')", "sys.path"),
        ("import sys; sys.setrecursionlimit(2345)", "the recursion limit"),
    ],
)
def test_settings_of_python_are_undone_where_they_are_watched(code: str, what: str) -> None:
    def state() -> list[object]:
        logs = logging.root.level, logging.root.manager.disable
        handler = signal.getsignal(signal.SIGTERM)
        return [list(warnings.filters), dict(os.environ), handler, logs, list(sys.path), sys.getrecursionlimit()]

    before = state()
    with restored(interpreter=True) as changed:
        exec(code)
    assert changed == [what]
    assert state() == before


def test_what_a_library_adds_for_itself_is_no_change() -> None:
    with warnings.catch_warnings(), restored(interpreter=True) as changed:
        warnings.filterwarnings("ignore", message="of mine")
        os.environ["MY_LIBRARY_CACHE"] = "here"
    assert changed == []
    del os.environ["MY_LIBRARY_CACHE"]


def test_what_is_printed_stays_inside(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print('one\\ntwo'); print('three', file=sys.stderr); os.write(2, b'four' + b'!' * 60)"
    assert notes_of(code) == [f"printed 'one two three four{'!' * 39}...'"]
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_warnings_stay_inside() -> None:
    code = "import warnings; warnings.warn('a'); warnings.warn('b'); warnings.warn('c', DeprecationWarning)"
    assert notes_of(code) == ["warned 'a' and 1 more"]


def test_an_import_that_fails_is_undone_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), contained("importing m") as notes:
        exec("print('bye'); import torch; torch.set_default_dtype(torch.float64); 1 / 0")
    assert notes == ["printed 'bye'", "changed the default dtype: undone"]
    assert torch.get_default_dtype() == torch.float32
    assert capsys.readouterr().out == ""


def test_an_exit_is_an_error_and_an_interrupt_is_not() -> None:
    with pytest.raises(RuntimeError, match=r"^importing m called sys\.exit\(2\)$"):
        notes_of("raise SystemExit(2)")
    with pytest.raises(KeyboardInterrupt):
        notes_of("raise KeyboardInterrupt")


def test_an_import_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CALL_LIMIT", "0.1")
    with pytest.raises(TimeoutError, match=r"^importing m took longer than 0\.1 s"):
        notes_of("import time; time.sleep(60)")


def test_in_a_fresh_process_the_first_import_of_torch_is_watched_and_no_stream_is_lost(tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text(
        "import logging\nlogging.basicConfig()\nimport torch\ntorch.set_default_dtype(torch.float64)\nprint('hello')"
    )
    script = """
import logging, sys
from harness.methods.imports import contained
from harness.methods.shared_settings import restored
with contained("importing foreign") as notes:
    assert "torch" not in sys.modules
    import foreign
import torch
print(notes[-2:], torch.get_default_dtype())
logging.warning("later")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[\"printed 'hello'\", 'changed the default dtype: undone'] torch.float32\n"
    # The handler was made during the import, and writes to the real stream.
    assert done.stderr == "WARNING:root:later\n"
