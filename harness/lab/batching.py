"""Padded batches of documents, in an order that depends on recipe and seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING

from harness.lab.corpus import Document, documents

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

# Documents that are batched together.
CHUNK = 4096


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids, shape [documents, length], and which positions predict a learnt token."""

    ids: torch.Tensor
    learnt: torch.Tensor


def batches(
    tokenizer: PreTrainedTokenizerFast, chunk: Iterable[Document], rng: Random, batch_tokens: int
) -> list[Batch]:
    """Batches of documents of like length, about ``batch_tokens`` each, in random order.

    Every document starts at position 0, as it does when it is evaluated. A story (no task) is learnt whole; of a
    task only the completion is.
    """
    documents = list(chunk)
    prompts = tokenizer([d.prompt for d in documents])["input_ids"]
    completions = tokenizer([d.completion for d in documents])["input_ids"]
    rows = sorted(zip(prompts, completions, strict=True), key=lambda row: len(row[0]) + len(row[1]))
    made: list[Batch] = []
    start = 0
    while start < len(rows):
        end, longest = start, 0
        while end < len(rows):
            longest = max(longest, len(rows[end][0]) + len(rows[end][1]) + 1)
            if longest * (end - start + 1) > batch_tokens:
                break
            end += 1
        group = rows[start : max(end, start + 1)]
        made.append(_padded(group, tokenizer.pad_token_id, tokenizer.eos_token_id))
        start += len(group)
    rng.shuffle(made)
    return made


def _padded(group: Sequence[tuple[list[int], list[int]]], pad: int, eos: int) -> Batch:
    import torch

    width = max(len(p) + len(c) + 1 for p, c in group)
    ids = torch.full((len(group), width), pad)
    learnt = torch.zeros((len(group), width), dtype=torch.bool)
    for i, (prompt, completion) in enumerate(group):
        tokens = [*prompt, *completion, eos]
        ids[i, : len(tokens)] = torch.tensor(tokens)
        learnt[i, len(prompt) - 1 : len(tokens) - 1] = True
    return Batch(ids, learnt)


def training_batches(
    tokenizer: PreTrainedTokenizerFast, recipe: str, seed: int, batch_tokens: int, position: tuple[int, int] = (0, 0)
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """A stage's endless batches from ``position`` on (chunk, batch in it), each with the position after it.

    A chunk of documents depends on recipe, seed and its number alone, so a run can go on anywhere.
    """
    first, skip = position
    for chunk in count(first):
        found = islice(documents(recipe, seed, chunk=chunk), CHUNK)
        made = batches(tokenizer, found, Random(f"{seed} {chunk}"), batch_tokens)
        for i in range(skip if chunk == first else 0, len(made)):
            yield (chunk, i + 1), made[i]
