"""``asv continuous`` as docs/regressions.md has it: it names a loss that became twice as slow, and no equal commit.

Run by ``tox -e regressions``; too slow for the other tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("ebflow", "harness", "baselines", "pyproject.toml", "README.md", "LICENSE", "asv.conf.json")

Outcome = tuple[int, str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit: this tree, with asv's environment made from the packages that are already here."""
    folder = tmp_path_factory.mktemp("asv")
    repository = folder / "repository"
    repository.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, repository)
    # asv knows no environment that both lends packages and changes commits: one of its own is made, without a network,
    # that sees those of this process behind the commit's own wheel.
    (folder / "packages").symlink_to(sysconfig.get_path("purelib"))
    (repository / "lend.py").write_text(
        "import sys, sysconfig, pathlib\n"
        "pathlib.Path(sysconfig.get_path('purelib'), 'lent.pth').write_text(sys.argv[1] + '\\n')\n"
    )
    path = repository / "asv.conf.json"
    config = json.loads(re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE))
    config["matrix"].pop("req")
    config["build_command"] = [f"{config['build_command'][0]} --no-build-isolation"]
    config["install_command"] = [
        "in-dir={env_dir} python -m pip install --no-deps --force-reinstall {wheel_file}",
        f"python {{conf_dir}}/lend.py {sysconfig.get_path('purelib')}",
    ]
    path.write_text(json.dumps(config))
    git(repository, "init", "--quiet")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "before")
    return repository


@pytest.fixture(scope="module")
def continuous(checkout: Path) -> Callable[[], Outcome]:
    """Compare the newest commit with the one before, as the documents say; exit status and what is said."""
    (documented,) = re.findall(r"^(asv continuous .*) HEAD~1 HEAD$", (ROOT / "docs/regressions.md").read_text(), re.M)
    options = documented.split()[2:]
    environment = {
        **os.environ,
        # asv keeps its machine file there.
        "HOME": str(checkout.parent),
        "PIP_NO_INDEX": "1",
        "ASV_PYTHONPATH": str(checkout.parent / "packages"),
    }

    def run() -> Outcome:
        selection = r"time_iteration\('ebflow-(dsm|ssm)', 784, 2\)"
        ended = subprocess.run(
            [sys.executable, "-m", "asv", "continuous", *options, "--bench", selection, "HEAD~1", "HEAD"],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stdout + ended.stderr

    return run


def git(repository: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=repository, check=True)


def test_an_equal_commit_is_no_regression(checkout: Path, continuous: Callable[[], Outcome]) -> None:
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "nothing")
    status, said = continuous()
    assert status == 0, said
    assert "BENCHMARKS NOT SIGNIFICANTLY CHANGED" in said


def test_a_loss_that_became_twice_as_slow_is_named(checkout: Path, continuous: Callable[[], Outcome]) -> None:
    path = checkout / "ebflow" / "objectives.py"
    score = "        score = flow.score(x + self.sigma * noise)\n"
    before = path.read_text()
    assert before.count(score) == 1
    twice = "        score = (flow.score(x + self.sigma * noise) + flow.score(x + self.sigma * noise)) / 2\n"
    path.write_text(before.replace(score, twice))
    git(checkout, "commit", "--quiet", "--all", "--message", "slow")
    status, said = continuous()
    assert status == 1, said
    changed = [line for line in said.splitlines() if line.startswith(("| +", "| -"))]
    assert len(changed) == 1, said
    assert "time_iteration('ebflow-dsm', 784, 2)" in changed[0]
