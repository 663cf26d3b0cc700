"""When steps of decoding are replayed as CUDA graphs: they then cost what the GPU computes, not what asking takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import one_line, out_of_memory
from harness.evaluation.steps import Steps, is_plain

if TYPE_CHECKING:
    from torch import Tensor

ALIGNED = 16  # attention's kernels take a mask as it is if its columns are a multiple of this


class Writing(Protocol):
    """An answer that is being written."""

    ended: bool

    @property
    def left(self) -> int:
        """Tokens that may still come."""

    def add(self, token: int) -> bool:
        """Goes on with ``token`` unless it has ended; whether there is more to come."""


@dataclass
class Graphs:
    """When steps are captured, and how often that was done. One for each engine: its models have one architecture.

    A change of shape costs a plain step and a capture, about two of the steps that graphs do away with. So there is
    ``room`` for that many tokens at a time, though attention reads unused columns too; batches with fewer than
    ``least`` tokens to come are left to plain decoding; and rows that have ended stay until half of the batch has, and
    their number times the steps that may follow is ``worth`` it (a row takes some 10 to 40 µs of a step at 1 to 8
    billion weights, and a change about 100 ms). ``failed`` says why no more graphs are made.
    """

    room: int = 256
    least: int = 8
    worth: int = 8192
    captured: int = 0
    replayed: int = 0
    plain: int = 0
    failed: str = ""
    side: Any = field(default=None, repr=False)  # the stream of captures: each that is used keeps memory of cuBLAS

    def take(self, past: Any, answers: Sequence[Writing]) -> bool:
        """Whether :meth:`finish` goes on with these answers, whose keys and values ``past`` holds."""
        return not self.failed and _left(answers) >= self.least and is_plain(past)

    def finish(self, model: Any, past: Any, ids: Tensor, mask: Tensor, positions: Tensor, answers: list[Any]) -> None:
        """Extends answers until each has ended, or until their steps prove not to be fit for it: ``failed`` says so.

        ``ids`` and ``positions`` [rows, 1] are the tokens that were chosen last, ``mask`` [rows, columns] is true where
        ``past`` holds a token of the row. Empties ``past``. Raises what says that memory has run out.
        """
        active: list[Writing] = answers
        filled = mask.shape[1]
        with _device_of(model):
            columns = _columns(filled, min(_left(active), self.room))
            steps = Steps(model, past, ids, mask, positions, columns, self.side)
            self.side = steps.side
            try:
                while True:
                    left = _left(active)
                    if steps.full:
                        steps.resize(_columns(steps.filled, min(left, self.room)))
                    chosen = self._step(steps, left)
                    if chosen is None:
                        return
                    going = [i for i, (a, token) in enumerate(zip(active, chosen, strict=True)) if a.add(token)]
                    if not going:
                        return
                    leaving = len(active) - len(going)
                    if leaving >= len(going) and leaving * _left(active) >= self.worth:
                        active = [active[i] for i in going]
                        steps.resize(_columns(steps.filled, min(_left(active), self.room)), going)
            finally:
                steps.forget()

    def _step(self, steps: Steps, left: int) -> list[int] | None:
        """The next token of every row, or None if the model cannot be asked in this way."""
        replays = steps.replays
        capture = not replays and steps.can_capture and left >= self.least
        try:
            if capture:
                steps.capture()
            chosen = steps.replay() if replays or capture else steps.plain()
        except Exception as error:  # whatever a model's own code raises: it was not written for this
            if short := _shortage(error):
                raise short from None
            self.failed = f"{type(error).__name__}: {one_line(str(error))}"
            return None
        self.captured += capture
        self.replayed += replays or capture
        self.plain += not (replays or capture)
        return chosen


def _left(answers: Sequence[Writing]) -> int:
    return max((answer.left for answer in answers if not answer.ended), default=0)


def _columns(filled: int, more: int) -> int:
    return -(-(filled + more) // ALIGNED) * ALIGNED


def _shortage(error: BaseException) -> BaseException | None:
    """What says that memory has run out: ``error``, or what was raised before it, as when a capture was broken off."""
    found: BaseException | None = error
    while found is not None and not out_of_memory(found):
        found = found.__context__
    return found


@contextmanager
def _device_of(model: Any) -> Iterator[None]:
    """Makes the model's CUDA device, if it is on one, that of new streams and graphs."""
    if model.device.type != "cuda":
        yield
        return
    import torch

    with torch.cuda.device(model.device):
        yield
