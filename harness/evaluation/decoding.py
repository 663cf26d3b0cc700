"""Greedy decoding in batches that shrink as answers end, with lm-eval's rules for where an answer ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.evaluation.graphs import ALIGNED, Graphs
from harness.evaluation.requests import Stop
from harness.evaluation.sharing import has_other_windows

if TYPE_CHECKING:
    from torch import Tensor

SHRINK = 0.75  # finished rows leave a batch once no more than this share of it goes on
WORTH_SHARING = 16  # tokens that all prompts of a call must begin with before they are prefilled once


class Ending:
    """Decides whether an answer has ended, and what of it counts. Made for one tokenizer and one :class:`Stop`."""

    def __init__(self, tokenizer: Any, stop: Stop) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._texts = tuple(text for text in stop.texts if text)
        last = {text[-1] for text in self._texts}
        # A token that shows the last character of no stop text completes none; outside ASCII one token may show half.
        self._last = None if any((c.isspace() and c != "\n") or not c.isascii() for c in last) else last
        self._may_end: dict[int, bool] = {}
        self._waiting: set[tuple[int, ...]] = set()  # answers that hold a stop text, and may yet hold an earlier one
        self._shown: dict[tuple[int, ...], str] = {}  # variants often give one answer

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether ``tokens``, the answer so far, end it with the last of them."""
        if len(tokens) >= self._stop.most or (tokens and tokens[-1] in self._stop.tokens):
            return True
        if not tokens or not self._texts:
            return False
        if not self._may(tokens[-1]) and not (self._waiting and tuple(tokens[:-1]) in self._waiting):
            return False
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        cut = min((text.find(stop) for stop in self._texts if stop in text), default=-1)
        # A stop that began before this one may still be completed, and then lm-eval may cut there.
        if cut >= 0 and any(_begins(text, stop, cut) for stop in self._texts):
            self._waiting.add(tuple(tokens))
            return False
        return cut >= 0

    def _may(self, token: int) -> bool:
        if self._last is None:
            return True
        if token not in self._may_end:
            shown = self._tokenizer.decode([token], skip_special_tokens=False)
            self._may_end[token] = any(c in shown for c in self._last)
        return self._may_end[token]

    def text(self, tokens: Sequence[int]) -> str:
        """The answer as lm-eval gives it to a task's filters: decoded, and cut at the stop texts."""
        key = tuple(tokens)
        if key not in self._shown:
            from lm_eval.models.utils import postprocess_generated_text

            decoded = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            self._shown[key] = str(postprocess_generated_text(decoded, list(self._texts), None))
        return self._shown[key]


def _begins(text: str, stop: str, before: int) -> bool:
    """Whether ``text`` ends in a part of ``stop`` that begins ahead of the index ``before``."""
    starts = range(max(0, len(text) - len(stop) + 1), before)
    return any(stop.startswith(text[start:]) for start in starts)


@dataclass(frozen=True)
class Limits:
    """Size of a decoding batch: rows, and tokens of keys and values that it may hold at its end."""

    rows: int
    tokens: int


@dataclass
class _Answer:
    number: int
    prompt: tuple[int, ...]
    tokens: list[int]
    ending: Ending
    ended: bool = False

    def add(self, token: int) -> bool:
        """Goes on with ``token`` unless it has ended, and may still be in its batch; whether there is more to come."""
        if not self.ended:
            self.tokens.append(token)
            self.ended = self.ending.ended(self.tokens)
        return not self.ended

    @property
    def left(self) -> int:
        """Tokens that may still come, if it has not ended."""
        return self.ending._stop.most - len(self.tokens)

    @property
    def given(self) -> tuple[int, ...]:
        return (*self.prompt, *self.tokens)


@dataclass
class _Prefix:
    """Tokens that all prompts begin with, and their keys and values once they have been computed."""

    tokens: tuple[int, ...] = ()
    cache: Any = field(default=None, repr=False)


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    begun: Sequence[Sequence[int]],
    endings: Sequence[Ending],
    pad: int,
    limits: Limits,
    done: Callable[[dict[int, list[int]]], None],
    graphs: Graphs | None = None,
) -> None:
    """Answers every prompt; ``begun`` are answers' first tokens where they are known (not ended, maybe empty).

    ``done`` is given the answers of a batch, by number of the prompt, as token ids with the one that ended them. With
    ``graphs``, for models that can be asked so (see :func:`harness.evaluation.trials.can_step`), steps are replayed.
    """
    answers = [
        _Answer(i, tuple(p), list(b), e) for i, (p, b, e) in enumerate(zip(prompts, begun, endings, strict=True))
    ]
    prefix = _Prefix(_beginning([answer.given for answer in answers]) if sees_all(model) else ())
    for batch in _batches(answers, limits, ALIGNED if graphs else 1):
        _decode(model, batch, prefix, pad, graphs)
        if left := [answer for answer in batch if not answer.ended]:  # graphs have failed
            _decode(model, left, prefix, pad, None)
        done({answer.number: answer.tokens for answer in batch})


def _batches(answers: Sequence[_Answer], limits: Limits, multiple: int) -> Iterator[list[_Answer]]:
    """``multiple``: what a row's tokens are rounded up to, where they are counted."""
    ordered = sorted(answers, key=lambda answer: len(answer.given), reverse=True)
    while ordered:
        longest = -(-(len(ordered[0].given) + ordered[0].ending._stop.most) // multiple) * multiple
        count = max(1, min(limits.rows, limits.tokens // longest))
        yield ordered[:count]
        ordered = ordered[count:]


def _beginning(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all rows begin with, short of their last token, if it is long enough to be computed apart."""
    if len(rows) < 2:
        return ()
    first, last = min(rows), max(rows)
    most = min(len(row) for row in rows) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return first[:shared] if shared >= WORTH_SHARING else ()


def sees_all(model: Any) -> bool:
    """Whether every layer sees the whole text: padding after a shared beginning would shift a window's columns."""
    if has_other_windows(model.config):
        return False
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    return kinds <= {"full_attention"} if kinds else not getattr(text, "sliding_window", None)


def _decode(model: Any, answers: list[_Answer], prefix: _Prefix, pad: int, graphs: Graphs | None) -> None:
    """Extends the answers of one batch until each has ended. Rows are padded between shared beginning and the rest.

    If ``graphs`` fail answers are left that have not ended.
    """
    import torch

    start = len(prefix.tokens)
    rows = [answer.given[start:] for answer in answers]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), start + width), dtype=torch.long)
    mask[:, :start] = 1
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, start + width - len(row) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode():
        cache = _prefilled(model, prefix, len(rows))
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, start:]
        active = list(answers)
        taken = inspect.signature(model.forward).parameters
        while True:
            optional = {"position_ids": positions, "logits_to_keep": 1}
            output = model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **{name: value for name, value in optional.items() if name in taken},
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(-1)
            going = [i for i, (a, token) in enumerate(zip(active, chosen.tolist(), strict=True)) if a.add(token)]
            if not going:
                return
            ids, mask, positions = chosen[:, None], _one_more(mask), positions[:, -1:] + 1
            if len(going) <= SHRINK * len(active):
                kept = torch.tensor(going, device=ids.device)
                cache.batch_select_indices(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                active = [active[i] for i in going]
            if graphs and graphs.take(cache, active):
                del output  # whose logits are not needed, and are large
                graphs.finish(model, cache, ids, mask[:, :-1], positions, active)
                return
            graphs = None


def _one_more(mask: Tensor) -> Tensor:
    import torch

    return torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)


def _prefilled(model: Any, prefix: _Prefix, rows: int) -> Any:
    """Keys and values of the shared beginning for ``rows`` rows, or None."""
    import copy

    import torch

    if not prefix.tokens:
        return None
    if prefix.cache is None:
        ids = torch.tensor([prefix.tokens], device=model.device)
        prefix.cache = model(input_ids=ids, use_cache=True).past_key_values
    cache = copy.deepcopy(prefix.cache)
    cache.batch_repeat_interleave(rows)
    return cache
