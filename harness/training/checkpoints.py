"""Files of tensors that are whole at any moment and hold no code: a trained model, and the state of a training."""

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.results.seal import BLANK, KEY, check_seal, seal
from harness.results.whole_file import leftovers, put

_INTERVAL = 60.0  # seconds that a kill costs at most; the largest state, 0.4 GB at D = 3072, is written in seconds
_FORMAT = "4"  # of the training state; a file of another format is not read


class TrainingCheckpoint:
    """The file that one training is resumed from: tensors and, as JSON, numbers, in the safetensors format.

    A file counts only if its seal (`harness.results.seal`) is whole and it was made from the same things. Any other
    file is named in a line on standard error and renamed, so that training starts anew.

    Args:
        path: The file. Its folder is created with the first write.
        made_from: Things by name, such as the cell and the code, that must be the same where the file is read.
        follows: Whether this process only reads the file, because another process of the same training writes it.
    """

    def __init__(self, path: Path, made_from: Mapping[str, str | None], follows: bool = False) -> None:
        self.path = path
        self.made_from = dict(made_from)
        self.follows = follows
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether the last write, or the start, is long enough ago; never in a process that only reads."""
        return not self.follows and time.monotonic() - self._last >= _INTERVAL

    def write(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> bool:
        """Replace the file and return whether that went well. If not, a line says so, and the old file stays.

        Args:
            tensors: Tensors by name.
            numbers: Values that JSON can hold, by name; floats come back to the bit.
        """
        if self.follows:
            return True  # the process that writes says whether that went well
        text = json.dumps({"made_from": self.made_from, "numbers": numbers})
        try:
            write_tensors(self.path, tensors, {"format": _FORMAT, "state": text})
        except (OSError, SafetensorError) as error:
            line = f"the state of the training could not be saved in {self.path} ({error}); it goes on unsaved"
            print(line, file=sys.stderr)
            return False
        finally:
            self._last = time.monotonic()
        return True

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and numbers of the last write; None if there is no file to go on from."""
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read_tensors(self.path)
        except (OSError, ValueError) as error:
            self.set_aside(f"it cannot be read: {error}")
            return None
        if metadata.get("format") != _FORMAT:
            self.set_aside("it is no training state of this version")
            return None
        state = json.loads(metadata["state"])
        for name, value in self.made_from.items():
            if (other := state["made_from"].get(name)) != value:
                self.set_aside(f"its {name} is {other}, that of this training is {value}")
                return None
        return tensors, state["numbers"]

    def set_aside(self, reason: str) -> None:
        """Rename the file, and say why in a line on standard error; in a process that only reads, do nothing."""
        if self.follows:
            return
        aside = self.path.with_name(f"{self.path.name}.aside")
        line = f"{self.path} is no state to go on from ({reason}); it is now {aside.name}, and training starts anew"
        print(line, file=sys.stderr)
        with suppress(OSError):  # if it stays, the next write replaces it
            self.path.replace(aside)

    def discard(self) -> None:
        """Delete the file, and the parts of it that a kill in the middle of a write has left."""
        with suppress(OSError):
            for path in (self.path, *leftovers(self.path)):
                path.unlink(missing_ok=True)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of tensors with their names, types and shapes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file, or raise OSError, or ValueError if it is damaged."""
    check_seal(path.read_bytes())
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()  # a list, and the file is no mapping
            return {name: file.get_tensor(name) for name in names}, file.metadata()
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts in the safetensors format, which holds no code; the file is whole at any moment."""
    # Clones, because tied weights share memory, for which the format has no place.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    put(path, seal(save(copies, {**metadata, KEY: BLANK})))
