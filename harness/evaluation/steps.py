"""Steps of greedy decoding that a CUDA graph can repeat.

A graph repeats kernels at the addresses that they were captured with. So keys and values lie in buffers with room for
what is to come, and all that differs between steps (ids, positions, the mask, the column to write at) lies in tensors
that a step changes for the next one. No weight may move between a capture and its last replay: within one call of
:func:`harness.evaluation.decoding.greedy` none does. Without a CUDA device the same steps run plainly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.evaluation.kernels import grouped

if TYPE_CHECKING:
    from torch import Tensor


class Steps:
    """Greedy steps of a batch, in tensors that stay where they are until :meth:`resize`.

    ``mask`` is of the columns that ``past`` has; there will be ``columns``. What ``past`` holds is taken from it.
    """

    def __init__(
        self, model: Any, past: Any, ids: Tensor, mask: Tensor, positions: Tensor, columns: int, side: Any = None
    ) -> None:
        import torch

        self._model = model
        self._least = torch.finfo(model.dtype).min
        self._ids, self._positions = ids.clone(), positions.clone()
        self._mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device)
        self._mask = self._mask.masked_fill_(mask == 0, self._least)[:, None, None]
        self._place = torch.tensor([mask.shape[1]], device=mask.device)
        self._buffers = _fixed(self._place)
        self.filled = mask.shape[1]
        self._cuda = mask.device.type == "cuda"
        self.side: Any = side or (torch.cuda.Stream() if self._cuda else None)  # type: ignore[no-untyped-call]
        self._graph: Any = None
        self._warm = False
        self._buffers.pairs = [_taken(layer) for layer in past.layers]
        self.resize(columns)

    @property
    def full(self) -> bool:
        """Whether there is no column for another step."""
        return self.filled == int(self._mask.shape[3])

    @property
    def replays(self) -> bool:
        return self._graph is not None

    @property
    def can_capture(self) -> bool:
        """On a CUDA device, once a step of this shape has been plain: that one loads what a capture must find."""
        return self._cuda and self._warm

    def resize(self, columns: int, kept: Sequence[int] | None = None) -> None:
        """Buffers of so many columns, with the rows that are ``kept``, all by default; a layer at a time."""
        import torch

        self.forget()
        ids, filled = self._ids, self.filled
        rows = torch.tensor(range(len(ids)) if kept is None else kept, device=ids.device)
        for pair in self._buffers.pairs:
            for i, old in enumerate(pair):
                # Zeros: what no token has been written to is weighted with 0, which makes no number of a NaN.
                new = old.new_zeros((len(rows), old.shape[1], columns, old.shape[3]))
                new[:, :, :filled] = old[:, :, :filled] if kept is None else old[rows, :, :filled]
                pair[i] = new
        mask = self._mask.new_full((len(rows), 1, 1, columns), self._least)
        mask[..., :filled] = self._mask[rows][..., :filled]
        self._mask, self._ids, self._positions = mask, ids[rows], self._positions[rows]

    def forget(self) -> None:
        """Gives up the graph; its memory is free for the next capture, or when memory runs short."""
        if self._graph is not None:
            self._graph.reset()
        self._graph, self._warm = None, False

    def forward(self) -> Tensor:
        """One step, as it is captured: the last tokens' logits [rows, vocabulary]; what they choose comes next."""
        self._mask.index_fill_(3, self._place, 0.0)
        with grouped():
            output = self._model(
                input_ids=self._ids,
                attention_mask=self._mask,
                position_ids=self._positions,
                past_key_values=self._buffers,
                use_cache=True,
            )
        logits: Tensor = output.logits[:, -1]
        self._ids.copy_(logits.argmax(-1, keepdim=True))
        self._positions.add_(1)
        self._place.add_(1)
        return logits

    def plain(self) -> list[int]:
        """A step without a graph. On a CUDA device RuntimeError if the host waits for it midway: no graph can."""
        if self._cuda:
            import torch

            current = torch.cuda.current_stream()
            self.side.wait_stream(current)
            try:
                with torch.cuda.stream(self.side), _without_waiting():
                    self.forward()
            finally:
                current.wait_stream(self.side)
        else:
            self.forward()
        self._warm = True
        return self._chosen()

    def capture(self) -> None:
        """Makes the graph of a step, without taking one."""
        import torch

        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self.side, capture_error_mode="thread_local"):
                self.forward()
        except BaseException:
            # Before torch 2.12 the allocator takes a capture that was broken off for one that goes on, and frees
            # nothing any more (pytorch/pytorch#180395); where it does not, the first call says so.
            with suppress(Exception):
                torch._C._cuda_endAllocateToPool(current.device_index, pool)
                torch._C._cuda_releasePool(current.device_index, pool)
            raise
        finally:
            torch.cuda.set_stream(current)  # which a capture that is broken off does not do
        self._graph = graph

    def replay(self) -> list[int]:
        """A step by the graph."""
        self._graph.replay()
        return self._chosen()

    def _chosen(self) -> list[int]:
        self.filled += 1
        chosen: list[int] = self._ids[:, 0].tolist()
        return chosen


def is_plain(past: Any) -> bool:
    """Whether a cache holds every layer's keys and values whole, [rows, heads, columns, width], and nothing else."""
    layers = getattr(past, "layers", None) or ()
    return bool(layers) and all(type(layer).__name__ == "DynamicLayer" for layer in layers)


def _taken(layer: Any) -> list[Tensor]:
    pair = [layer.keys, layer.values]
    layer.keys = layer.values = None
    return pair


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Has torch raise RuntimeError where the host would wait for the device."""
    import torch

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says each time that not all waiting is found; what is left fails later
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _fixed(place: Tensor) -> Any:
    return _fixed_class()(place)


@cache
def _fixed_class() -> Any:
    from transformers import Cache

    class Fixed(Cache):  # type: ignore[misc]  # here, since the base class is transformers'
        """Keys and values in buffers: new ones go where ``place`` says, and all columns are read.

        What is asked for as a number cannot be right in a graph, and is the same at every step without one too.
        """

        is_compileable = True

        def __init__(self, place: Tensor) -> None:
            super().__init__(layers=[])
            self.place = place
            self.pairs: list[list[Tensor]] = []

        def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            keys, values = self.pairs[layer_idx]
            return keys.index_copy_(2, self.place, key), values.index_copy_(2, self.place, value)

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return int(self.pairs[layer_idx][0].shape[2]) - 1

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            return int(self.pairs[layer_idx][0].shape[2]), 0

    return Fixed
