"""The Muon optimizer in float32: about 1.4 times fewer steps than AdamW here, for a tenth more time a step.

``torch.optim.Muon`` orthogonalises in bfloat16, which takes longer than all the rest of a step on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

# Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024): quintic Newton-Schulz iteration.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """About the nearest semi-orthogonal matrix to each of ``matrices``, shape [count, rows, columns]."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT.contiguous()
    x = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    result: torch.Tensor = x if wide is matrices else x.mT
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for the weight matrices of hidden layers (embeddings and norms need AdamW).

    The update's root mean square is 0.2 of the rate, like AdamW's (arXiv 2502.16982), so one rate serves both.
    """

    def __init__(
        self, parameters: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; matrices of one shape are done together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                updates = []
                for parameter in parameters:
                    assert parameter.grad is not None
                    state = self.state[parameter]
                    average = state.setdefault("momentum", torch.zeros_like(parameter))
                    average.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(average, group["momentum"]))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for parameter, update in zip(parameters, orthogonalised(torch.stack(updates)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)
