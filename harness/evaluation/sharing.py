"""Layers computed once for all variants that have them in common.

Two variants whose plans agree from the embeddings up to some layer have the same hidden states there. Variants are
visited in sorted order, so one path of hidden states is all that is held, and what a layer gives is kept only where a
later variant branches off. Nothing is known of the architecture: a variant's own layer list and output head are wrapped
while it runs, and the model's own code does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.evaluation.kernels import reads_parts
from harness.evaluation.trees import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Variant:
    """A model to be built, and what each of its slots holds: equal keys mean equal weights, in the order of slots."""

    identity: str
    slots: tuple[str, ...]
    build: Callable[[], Any]


@dataclass(frozen=True)
class Step:
    """How to visit a variant: skip its first ``skip`` layers, whose result is held; hold what ``keep`` layers give."""

    variant: Variant
    skip: int
    keep: tuple[int, ...]


def itinerary(variants: Sequence[Variant], share: bool = True) -> list[Step]:
    """An order of visits in which every node of the plans' prefix tree is computed once; all of them without ``share``.

    ``skip`` and ``keep`` count layers from the embeddings on.
    """
    ordered = sorted(variants, key=lambda v: v.slots)
    if not share:
        return [Step(variant, 0, ()) for variant in ordered]
    common = [0, *(_common(a, b) for a, b in pairwise(ordered)), 0]
    steps = []
    for i, variant in enumerate(ordered):
        # Later variants branch off this path at the running minima of what neighbours have in common.
        keep, least = set(), len(variant.slots)
        for shared in common[i + 1 :]:
            if shared == 0:
                break
            least = min(least, shared)
            keep.add(least)
        steps.append(Step(variant, common[i], tuple(sorted(keep))))
    return steps


def layer_calls(variants: Sequence[Variant]) -> int:
    """How many layer calls a batch takes: the distinct nodes of the prefix tree, which are not its outer slots."""
    return len({v.slots[: depth + 2] for v in variants for depth in range(len(v.slots) - 3)})


def _common(a: Variant, b: Variant) -> int:
    """How many layers two variants share; none if their embeddings differ."""
    shared = 0
    for x, y in zip(a.slots[:-2], b.slots[:-2], strict=True):
        if x != y:
            break
        shared += 1
    return max(0, shared - 1)


@dataclass
class Held:
    """Hidden states of one batch along the path that was visited last, by number of layers.

    ``made`` counts the layer calls that were computed, ``asked`` those that variants by themselves would have made.
    """

    states: dict[int, Any] = field(default_factory=dict)
    made: int = 0
    asked: int = 0

    def forget(self, keep: Sequence[int]) -> None:
        """Lets go of what no later variant needs."""
        self.states = {depth: state for depth, state in self.states.items() if depth in keep}


class Tensors:
    """A batch as tensors: ids and positions [rows, width], a mask if a causal one will not do, and what is asked for.

    ``picked`` lists (row, node) of every position whose logits are needed.
    """

    def __init__(self, batch: Batch, picked: Sequence[tuple[int, int]], pad: int, device: str) -> None:
        import torch

        rows, width = len(batch.rows), batch.width
        ids = torch.full((rows, width), pad)
        positions = torch.zeros((rows, width), dtype=torch.long)
        parents = torch.full((rows, width), -1)
        for i, row in enumerate(batch.rows):
            ids[i, : len(row)] = torch.tensor(row.tokens)
            positions[i, : len(row)] = torch.tensor(row.depths)
            parents[i, : len(row)] = torch.tensor(row.parents)
        self.ids, self.positions = ids.to(device), positions.to(device)
        self.seen = None if batch.is_causal else _ancestors(parents).to(device)
        self.parts = batch.rows[0].parts if rows == 1 and self.seen is not None else []
        self.rows = torch.tensor([row for row, _ in picked]).to(device)
        self.nodes = torch.tensor([node for _, node in picked]).to(device)

    def masks(self, config: Any, dtype: Any) -> Any:
        """What to give a model as ``attention_mask``: None, or an additive mask [rows, 1, width, width].

        A model whose layers see a window only gets a mask a kind of layer, cut by positions and not by columns. The
        mask of a row by itself has its ``parts`` (:attr:`Row.parts`), each but the first with a mask of what it sees,
        if the model's attention reads them.
        """
        if self.seen is None:
            return None
        full: Any = _additive(self.seen, dtype)
        text = config.get_text_config()
        if reads_parts(text):
            full.parts = [(a, b, _columns(full[:, :, a:b], self.parts[0][1], a, b)) for a, b in self.parts]
        kinds = set(getattr(text, "layer_types", None) or ())
        window = getattr(text, "sliding_window", None)
        if not window or kinds <= {"full_attention"}:
            return full
        near = self.positions[:, :, None] - self.positions[:, None, :] < window
        return {"full_attention": full, "sliding_attention": _additive(self.seen & near, dtype)}


def _columns(mask: Tensor, stem: int, start: int, end: int) -> Tensor | None:
    """Of a mask's columns the first ``stem`` and those of a part; None for the first part, whose mask is causal."""
    import torch

    return torch.cat((mask[..., :stem], mask[..., start:end]), -1) if start else None


def _ancestors(parents: Tensor) -> Tensor:
    """[rows, width, width], true where the column is the row's token itself or one that it comes after."""
    import torch

    rows, width = parents.shape
    seen = torch.zeros((rows, width, width), dtype=torch.bool)
    every = torch.arange(rows)
    for node in range(width):
        parent = parents[:, node]
        seen[:, node] = seen[every, parent.clamp(min=0)] & (parent >= 0)[:, None]
        seen[:, node, node] = True
    return seen


def _additive(seen: Tensor, dtype: Any) -> Tensor:
    import torch

    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def forward(model: Any, prefix: str, batch: Tensors, held: Held, step: Step) -> Tensor:
    """Logits [picked, vocabulary] of one variant on one batch; ``prefix`` is what its layers' names begin with."""
    import torch

    keyword = {} if batch.seen is None else {"position_ids": batch.positions}
    with torch.inference_mode(), _wrapped(model, prefix, batch, held, step):
        logits = model(
            input_ids=batch.ids, attention_mask=batch.masks(model.config, model.dtype), use_cache=False, **keyword
        ).logits
    held.forget(step.keep)
    picked: Tensor = logits[0]
    return picked


@contextmanager
def _wrapped(model: Any, prefix: str, batch: Tensors, held: Held, step: Step) -> Iterator[None]:
    layers = model.get_submodule(prefix.rstrip("."))
    head = model.get_output_embeddings()
    parent, name = _place(model, head)
    own = dict(layers._modules)
    shared = _memo()
    # The last layer's attention is all that reads its other positions, where a layer can be asked for some only.
    places = (batch.rows, batch.nodes)
    narrow = bool(getattr(own[str(len(own) - 1)], "narrows", False))
    try:
        for i, layer in enumerate(own.values()):
            only = {"places": places} if narrow and i == len(own) - 1 else {}
            layers._modules[str(i)] = shared(layer, i, held, step, only)
        if not narrow:
            parent._modules[name] = _picker()(head, places)
        yield
    finally:
        layers._modules.update(own)
        parent._modules[name] = head


def _place(model: Any, module: Any) -> tuple[Any, str]:
    """The module that holds ``module``, and under which name: nearly always the model itself."""
    own = next((name for name, child in model.named_children() if child is module), None)
    if own is not None:
        return model, own
    path = next(name for name, other in model.named_modules(remove_duplicate=False) if other is module)
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


@cache
def _memo() -> Any:
    from torch import nn

    class Memo(nn.Module):  # here, since the base class is torch's
        """A decoder layer that is computed once for all variants that have it, and all that is below it, in common."""

        def __init__(self, layer: nn.Module, index: int, held: Held, step: Step, more: Mapping[str, Any]) -> None:
            super().__init__()
            self.__dict__.update(layer=layer, index=index, held=held, step=step, more=more)

        def __getattr__(self, name: str) -> Any:  # models ask their layers what kind they are
            return getattr(self.__dict__["layer"], name)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.held.asked += 1
            depth = self.index + 1
            if depth <= self.step.skip:  # ahead of time too: what a layer returns may be a tuple
                return self.held.states[self.step.skip]
            result = self.layer(*args, **kwargs, **self.more)
            self.held.made += 1
            if depth in self.step.keep:
                self.held.states[depth] = result
            return result

    return Memo


@cache
def _picker() -> Any:
    from torch import nn

    class Picker(nn.Module):
        """An output head that sees the positions that a score needs, and no others."""

        def __init__(self, head: nn.Module, places: tuple[Tensor, Tensor]) -> None:
            super().__init__()
            self.__dict__.update(head=head, places=places)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["head"], name)

        def forward(self, hidden: Tensor) -> Any:
            return self.head(hidden[self.places][None])

    return Picker


def has_other_windows(config: Any) -> bool:
    """Whether layers see a part of the text only, in a way that :meth:`Tensors.masks` does not know."""
    text = config.get_text_config()
    if not set(getattr(text, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}:
        return True
    known = ("sliding_window", "use_sliding_window", "max_window_layers")
    found = {key: value for key, value in text.to_dict().items() if "window" in key or "chunk" in key}
    return any(type(v) is int and v > 0 and k not in known and "pattern" not in k for k, v in found.items())
