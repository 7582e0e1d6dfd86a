"""The optimisers on offer: torch's fused kernel for Adam, called by its functional form.

What `torch.optim.Adam` does around that call at every step, hooks and checks of its groups and states, takes at D = 64
as long as the arithmetic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

_STEPS_TAKEN = 2.0**24  # where a float32 counter stays put, and every bias correction of Adam is 1


class Adam:
    """Adam (https://arxiv.org/abs/1412.6980), which steps as `torch.optim.Adam` does.

    Args:
        parameters: What is trained: floating-point numbers on one device.
        learning_rate: The learning rate; a schedule sets the attribute of this name. A step that is replayed reads it
            from a scalar tensor.
        weight_decay: A multiple of the parameters that is added to their gradients.
    """

    beta1, beta2 = 0.9, 0.999

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        self.learning_rate: float | Tensor = learning_rate
        self.weight_decay = weight_decay
        self.state: list[dict[str, Tensor]] = [self._start(parameter) for parameter in self.parameters]
        """The state of each parameter: the number of steps, and moments in its shape."""

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    @property
    def moments(self) -> int:
        """The number of moments that are kept of each gradient."""
        return len(self.state[0]) - 1 if self.state else 0

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step on all parameters that have a gradient."""
        pairs = [(p, s) for p, s in zip(self.parameters, self.state, strict=True) if p.grad is not None]
        gradients = [parameter.grad for parameter, _ in pairs if parameter.grad is not None]
        adam(
            [parameter for parameter, _ in pairs],
            gradients,
            [state.get("exp_avg", gradient) for (_, state), gradient in zip(pairs, gradients, strict=True)],
            [state["exp_avg_sq"] for _, state in pairs],
            [],
            [state["step"] for _, state in pairs],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class RMSprop(Adam):
    """RMSprop, which steps as `torch.optim.RMSprop` does, in one pass over the weights.

    It is Adam without a first moment whose bias corrections have run out. torch has a fused kernel for Adam and none
    for RMSprop, which at D = 3072 takes twice the time. The first moment is the gradient itself, and the kernel is told
    so, unless weight decay makes it another.
    """

    beta1, beta2 = 0.0, 0.99

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        state = super()._start(parameter)
        state["step"].fill_(_STEPS_TAKEN)
        if not self.weight_decay:
            del state["exp_avg"]
        return state


CONSTRUCTORS: dict[str, type[Adam]] = {"rmsprop": RMSprop, "adam": Adam}
"""By name, the optimisers on offer."""
