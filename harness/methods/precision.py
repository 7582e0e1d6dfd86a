"""What a problem's dtype stands for: the type of parameters and batches, and the arithmetic of a training step.

Parameters and batches of ``tf32`` and ``bf16`` are float32; the products of the training step are computed in TF32, or
in bfloat16 by torch's autocast. Likelihoods are always evaluated in the type of the parameters.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stored(dtype: str) -> torch.dtype:
    """Return the type of parameters and batches, given one of `harness.methods.DTYPES`."""
    return torch.float64 if dtype == "float64" else torch.float32


def lowered(dtype: str) -> torch.dtype:
    """Return the type that products are computed in: bfloat16 for bf16, the parameters' type for all others."""
    return torch.bfloat16 if dtype == "bf16" else stored(dtype)


def allow_tf32(allowed: bool) -> None:
    """Switch TF32 on or off in the whole process; torch itself switches it on for convolutions."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def tf32_where_declared(dtype: str) -> Iterator[None]:
    """Allow TF32 in products and convolutions if the dtype is tf32, and forbid it for any other."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    allow_tf32(dtype == "tf32")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def bf16_where_declared(dtype: str, device: torch.device) -> torch.autocast:
    """Return a context in which products are computed in bfloat16 if the dtype is bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")
