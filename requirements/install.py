"""What tox installs with: first all that has a hash, by its hash; then torch by its version, and the project.

The wheel of torch is another one on every platform, with CUDA and without, so it has no place among the hashes.
"""

import subprocess
import sys
from pathlib import Path


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=True)


_pip("--no-deps", "--require-hashes", "-r", str(Path(__file__).with_name("ci.txt")))
_pip(*sys.argv[1:])
