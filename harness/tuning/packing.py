"""Texts as token ids with labels, several in one sequence, and proof that a model keeps them apart."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import LayerswapError
from harness.tuning.records import Text

if TYPE_CHECKING:
    import torch

IGNORED = -100  # a label that no loss is taken of


@dataclass(frozen=True)
class Encoded:
    """A record's token ids, and for each the label: itself if it is learnt, else :data:`IGNORED`."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def encode(texts: Sequence[Text], tokenizer: Any, max_length: int) -> tuple[list[Encoded], int]:
    """Each text's tokens, and how many texts were left out.

    A plain text that is too long becomes several; another one, cut, would end in the middle of an answer, and is left
    out. A token that is learnt in part is learnt.
    """
    found: list[Encoded] = []
    left_out = 0
    for text in texts:
        made = tokenizer(text.text, add_special_tokens=not text.chat, return_offsets_mapping=True)
        ids = list(made["input_ids"])
        learnt = [any(a < stop and start < b for a, b in text.learnt) for start, stop in made["offset_mapping"]]
        if not text.chat and (end := tokenizer.eos_token_id) is not None:
            done = ids[-1:] == [end]  # some tokenizers add it themselves
            ids, learnt = ([*ids[:-1], end], [*learnt[:-1], True]) if done else ([*ids, end], [*learnt, True])
        whole = text.learnt == ((0, len(text.text)),)
        if len(ids) > max_length and not whole:
            left_out += 1
            continue
        for start in range(0, len(ids), max_length):
            part = slice(start, start + max_length)
            # Nothing predicts a sequence's first token, least of all the record before it.
            labels = [IGNORED, *(i if k else IGNORED for i, k in zip(ids[part][1:], learnt[part][1:], strict=True))]
            if any(label != IGNORED for label in labels):
                found.append(Encoded(tuple(ids[part]), tuple(labels)))
    return found, left_out


def pack(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which records share a sequence of at most ``most`` tokens: each goes, longest first, where least room is left."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left, and in which bin; ascending
    for number in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(room, (lengths[number], -1))
        if place == len(room):
            left, bin_ = most, len(bins)
            bins.append([])
        else:
            left, bin_ = room.pop(place)
        bins[bin_].append(number)
        insort(room, (left - lengths[number], bin_))
    return bins


def sequences(records: Sequence[Encoded], max_length: int, packing: bool) -> list[tuple[Encoded, ...]]:
    """The records, packed or one by one."""
    if not packing:
        return [(record,) for record in records]
    return [tuple(records[i] for i in group) for group in pack([len(r.ids) for r in records], max_length)]


@dataclass(frozen=True)
class Collator:
    """Makes a batch of sequences: [sequences, tokens] each of ``input_ids`` and ``labels``.

    Packed ones have ``position_ids`` that begin anew with every record, by which transformers' attention masks keep
    records apart; there must be no attention mask beside them. Padding counts as records of one token.
    """

    pad: int
    packing: bool

    def __call__(self, batch: Iterable[tuple[Encoded, ...]]) -> dict[str, torch.Tensor]:
        import torch

        rows = list(batch)
        width = max(sum(len(r.ids) for r in row) for row in rows)
        ids = torch.full((len(rows), width), self.pad)
        labels = torch.full((len(rows), width), IGNORED)
        positions = torch.zeros((len(rows), width), dtype=torch.long)
        used = torch.zeros((len(rows), width), dtype=torch.long)
        for row, records in enumerate(rows):
            start = 0
            for record in records:
                part = slice(start, start + len(record.ids))
                ids[row, part] = torch.tensor(record.ids)
                labels[row, part] = torch.tensor(record.labels)
                positions[row, part] = torch.arange(len(record.ids))
                used[row, part] = 1
                start += len(record.ids)
        made = {"input_ids": ids, "labels": labels}
        return made | ({"position_ids": positions} if self.packing else {"attention_mask": used})


def check_apart(model: Any, records: Sequence[Encoded]) -> None:
    """Runs two short records packed and alone. Raises :class:`LayerswapError` if the model mixes them.

    So it is for recurrent models, and for those whose attention takes no note of positions.
    """
    import torch

    some = [Encoded(r.ids[:16], r.labels[:16]) for r in (records[0], records[-1])]
    device, training = next(model.parameters()).device, model.training
    model.eval()
    with torch.inference_mode():

        def logits(*row: Encoded) -> torch.Tensor:
            batch = {name: tensor.to(device) for name, tensor in Collator(0, True)([row]).items() if name != "labels"}
            found: torch.Tensor = model(**batch).logits[0].float()
            return found

        try:
            packed, alone = logits(*some), torch.cat([logits(one) for one in some])
        except TypeError as error:  # no position_ids
            raise LayerswapError(f"{type(model).__name__} takes no positions: give --packing false") from error
    model.train(training)
    allowed = (1e-4 if next(model.parameters()).dtype == torch.float32 else 3e-2) * alone.abs().max().item()
    if (packed - alone).abs().max().item() > allowed:
        raise LayerswapError(
            f"{type(model).__name__} does not keep records apart that share a sequence: give --packing false"
        )
