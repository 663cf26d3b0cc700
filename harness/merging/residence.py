"""Experts' weights on an accelerator: those that variants need, as many as fit."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError, one_line, out_of_memory
from harness.experts import slots_of
from harness.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

Unit = tuple[str, str]  # an expert and one of its slots
STAGE = 1 << 26  # bytes of each of two pinned buffers, through which weights go to a CUDA device


class NoRoomError(LayerswapError, MemoryError):
    """A device is full, and nothing on it can be let go: whoever computes there may do with less."""


class Residence:
    """Puts slots of experts on ``device``, at most ``budget`` bytes of them; in main memory they stay as they are.

    A device that is full before has all go that is not needed, and the budget is what it then held.

    Tensors change place in place: every model that holds an expert's modules sees it. Slots that no variant has needed
    for longest make room. Not thread-safe.
    """

    def __init__(self, device: str, budget: int | None = None) -> None:
        self._device, self._budget = device, budget
        self._tensors: dict[Unit, list[Tensor]] = {}
        self._hosts: dict[int, Tensor] = {}  # where a tensor lies in main memory, by its id
        self._sent: set[int] = set()  # ids of those on the device
        self._held: dict[Unit, None] = {}  # the one needed last at the end
        self.held_bytes = 0
        self.sent_bytes = 0  # since the beginning, over and over
        self._stage: _Stage | None = None

    def add(self, name: str, model: Any) -> None:
        """Makes an expert known; what of it is in no slot (tables of rotary positions) goes to the device at once."""
        slots, state = slots_of(model), model.state_dict(keep_vars=True)
        for slot, names in slots.items():
            self._tensors[name, slot] = list({id(state[n]): state[n] for n in names}.values())
        self._hosts |= {id(tensor): tensor.data for tensor in state.values()}
        for tensor in model.buffers():
            if id(tensor) not in self._hosts:
                tensor.data = self._copy(tensor.data)

    def hold(self, units: Iterable[Unit]) -> None:
        """Has ``units`` on the device when it returns. :class:`NoRoomError` if there is no room for all of them."""
        units = list(units)
        for unit in units:
            if unit in self._held:
                self._held[unit] = self._held.pop(unit)
        for unit in units:
            if unit not in self._held:
                self._make_room(self._missing(unit), self._budget, units)
                try:
                    self._send(unit)
                    continue
                except NoRoomError:
                    self._make_room(self._missing(unit), 0, units)
                free_memory(self._device)  # here, since the exception holds what was being sent
                self._send(unit)
                self._budget = self.held_bytes

    def _missing(self, unit: Unit) -> int:
        return sum(t.numel() * t.element_size() for t in self._tensors[unit] if id(t) not in self._sent)

    def _make_room(self, size: int, budget: int | None, needed: list[Unit]) -> None:
        """Lets go of slots that are not ``needed`` until ``size`` more bytes are within the budget."""
        if budget is None:
            return
        for unit in [unit for unit in self._held if unit not in needed]:
            if self.held_bytes + size <= budget:
                return
            self._drop(unit)

    def _send(self, unit: Unit) -> None:
        self._held[unit] = None
        try:
            for tensor in self._tensors[unit]:
                if id(tensor) not in self._sent:  # else another slot, which is tied to this one, has brought it
                    tensor.data = self._copy(tensor.data)
                    self._sent.add(id(tensor))
                    size = tensor.numel() * tensor.element_size()
                    self.held_bytes += size
                    self.sent_bytes += size
        except BaseException:
            self._drop(unit)
            raise

    def _drop(self, unit: Unit) -> None:
        del self._held[unit]
        tied = {id(tensor) for other in self._held for tensor in self._tensors[other]}
        for tensor in self._tensors[unit]:
            if id(tensor) in self._sent - tied:
                tensor.data = self._hosts[id(tensor)]
                self._sent.remove(id(tensor))
                self.held_bytes -= tensor.numel() * tensor.element_size()

    def _copy(self, host: Tensor) -> Tensor:
        try:
            if not self._device.startswith("cuda"):
                return host.to(self._device, copy=True)
            self._stage = self._stage or _Stage()
            return self._stage.copy(host, self._device)
        except (RuntimeError, AssertionError) as error:  # unknown, not there, not built in, or full
            kind = NoRoomError if out_of_memory(error) else LayerswapError
            reason = one_line(str(error).partition("\n")[0])
            raise kind(f"device {self._device!r} cannot hold the experts: {reason}") from error


class _Stage:
    """Copies tensors to a CUDA device through two pinned buffers, one of which is filled while the other is sent.

    On an H200 that was 36 GB/s of mapped weights, and 8 without the buffers.
    """

    def __init__(self, size: int = STAGE) -> None:
        import torch

        pinned = torch.cuda.is_available()
        self._size = size
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self._sent = [torch.cuda.Event() if pinned else None for _ in range(2)]  # type: ignore[no-untyped-call]

    def copy(self, host: Tensor, device: str) -> Tensor:
        """A copy of ``host`` on ``device``, which what is computed there from now on waits for."""
        import torch

        result = torch.empty_like(host, device=device, memory_format=torch.contiguous_format)
        source, target = (t.reshape(-1).view(torch.uint8) for t in (host.contiguous(), result))
        for i, begin in enumerate(range(0, len(source), self._size)):
            buffer, sent = self._buffers[i % 2], self._sent[i % 2]
            part = source[begin : begin + self._size]
            if sent is not None:
                sent.synchronize()
            buffer[: len(part)].copy_(part)
            target[begin : begin + len(part)].copy_(buffer[: len(part)], non_blocking=True)
            if sent is not None:
                sent.record(torch.cuda.current_stream(device))
        return result


def free_memory(device: str) -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def copied(plan: Plan) -> list[Unit]:
    """What a variant takes from experts as it is: the rest is computed for it."""
    return [(mix.sources[0][0], slot) for slot, mix in plan.mixes if mix.is_copy]
