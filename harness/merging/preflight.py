"""Preflight: do these checkpoints fit together? Everything that differs is named in one error, before any merge."""

from __future__ import annotations

import filecmp
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cache import Cache
from harness.errors import LayerswapError
from harness.experts import LoadedExpert, canonical_names
from harness.files import inside, read_object, shortened
from harness.identity import relevant_config
from harness.merging.claims import check_claims
from harness.merging.headers import kinds, read_folder
from harness.merging.layout import is_tied, raw_config
from harness.merging.storage import Source, read_config

_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
# Reported under names of their own.
_NAMED_KEYS = frozenset({"num_hidden_layers", "n_layer", "num_layers", "vocab_size"})
# Stored by some versions and ignored on loading: tables that are computed anew, and heads that are tied anyway.
_UNUSED = ("rotary_emb.inv_freq", ".masked_bias")
_HEADS = ("lm_head.weight", "embed_out.weight")
_SHOWN = 5


@dataclass(frozen=True)
class Description:
    """What must agree between checkpoints: sizes and shapes, and the tokenizer part by part (empty if there is none).

    ``tensors`` gives dtype and shape by name.
    """

    architecture: str
    layers: int
    vocabulary: int
    tied: bool
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    tokenizer: Mapping[str, str]


def preflight(experts: Mapping[str, Source], cache: Cache | None = None) -> None:
    """Raises :class:`LayerswapError` naming every difference of an expert from the base (or else from the first).

    Compares architecture, depth, vocabulary, tying, the rest of the config that matters, shapes, dtypes, and the
    tokenizers of those that have one. ``experts`` are folders, whose weights are not read, or loaded experts.
    ``cache`` keeps which tokenizers were found sound.
    """
    if _plainly_fit(experts.values(), cache):
        return
    described = {name: describe(source) for name, source in experts.items()}
    if len(described) < 2:
        return
    reference = "base" if "base" in described else next(iter(described))
    problems = [
        f"{name} differs from {reference} in {'; '.join(found)}"
        for name, description in described.items()
        if name != reference and (found := differences(described[reference], description))
    ]
    if not problems:  # what differs says more
        for source in experts.values():
            if not isinstance(source, LoadedExpert):
                check_claims(Path(source), read_folder(Path(source)))
    if problems:
        raise LayerswapError(f"these checkpoints cannot be merged: {'. '.join(problems)}")


def _plainly_fit(sources: Iterable[Source], cache: Cache | None) -> bool:
    """Whether all are folders of one known architecture whose files say the same: transformers need not be asked."""
    first: tuple[Any, ...] | None = None
    start = Path()
    for source in sources:
        if isinstance(source, LoadedExpert) or (config := raw_config(Path(source))) is None:
            return False
        folder = Path(source)
        ranges = read_folder(folder)
        check_claims(folder, ranges, first is None, cache)  # of others the tokenizer must be the same file
        tensors = {name: kind for name, kind in kinds(ranges).items() if not name.endswith(_UNUSED)}
        found = (config.get("architectures"), is_tied(config), relevant_config(config), tensors)
        if first is None:
            first, start = found, folder
        elif found != first or not _same_tokenizer(start, folder):
            return False
    return first is not None


def _same_tokenizer(one: Path, other: Path) -> bool:
    return all(
        (one / name).is_file() == (other / name).is_file()
        and (not (one / name).is_file() or filecmp.cmp(one / name, other / name, shallow=False))
        for name in ("tokenizer.json", *_TOKENIZER_FILES)
    )


def differences(reference: Description, other: Description) -> list[str]:
    """What differs, one short phrase each, ``reference``'s value first; empty if the two can be merged."""
    found = [
        f"{label} ({ours} against {theirs})"
        for label, ours, theirs in (
            ("architecture", reference.architecture, other.architecture),
            ("depth", reference.layers, other.layers),
            ("vocabulary", reference.vocabulary, other.vocabulary),
            ("tied embeddings", reference.tied, other.tied),
        )
        if ours != theirs
    ]
    if reference.architecture == other.architecture:
        keys = sorted({*reference.config, *other.config} - _NAMED_KEYS)
        pairs = [(key, reference.config.get(key), other.config.get(key)) for key in keys]
        found += [f"config {key} ({ours} against {theirs})" for key, ours, theirs in pairs if ours != theirs]
    ours_only, theirs_only = (
        [name for name in a.tensors if name not in b.tensors] for a, b in ((reference, other), (other, reference))
    )
    shared = [name for name in reference.tensors if name in other.tensors]
    for label, index in (("dtype", 0), ("shape", 1)):
        values = [(name, reference.tensors[name][index], other.tensors[name][index]) for name in shared]
        changed = [
            f"{name}: {_plain(ours)} against {_plain(theirs)}" for name, ours, theirs in values if ours != theirs
        ]
        if changed:
            found.append(f"{label} of {_some(changed)}")
    if ours_only:
        found.append(f"tensors that it lacks: {_some(ours_only)}")
    if theirs_only:
        found.append(f"tensors that only it has: {_some(theirs_only)}")
    if reference.tokenizer and other.tokenizer:
        parts = sorted({*reference.tokenizer, *other.tokenizer})
        changed = [part for part in parts if reference.tokenizer.get(part) != other.tokenizer.get(part)]
        if changed:
            found.append(f"tokenizer ({', '.join(changed)})")
    return found


def describe(source: Source) -> Description:
    """What has to agree, read from a folder's headers and configs or from a loaded expert; no weight is read."""
    if isinstance(source, LoadedExpert):
        canonical = canonical_names(source.model)
        state = {name: t for name, t in source.model.state_dict().items() if canonical[name] == name}
        tensors = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in state.items()}
        config, architecture, folder = source.model.config, type(source.model).__name__, source.path
    else:
        folder = Path(source)
        config = read_config(folder)
        ranges = read_folder(folder)
        tensors = kinds(ranges)
        architecture = next(iter(config.architectures or ()), config.model_type)
    text = config.get_text_config()
    tied = bool(text.tie_word_embeddings)
    unused = (*_UNUSED, *(_HEADS if tied else ()))
    return Description(
        architecture,
        text.num_hidden_layers,
        text.vocab_size,
        tied,
        relevant_config(config.to_diff_dict()),
        {name: kind for name, kind in tensors.items() if not name.endswith(unused)},
        describe_tokenizer(folder) if folder.is_dir() else {},
    )


def describe_tokenizer(folder: Path) -> dict[str, str]:
    """A digest for each part of a folder's tokenizer; how an input is cut or padded is left out."""
    fast = folder / "tokenizer.json"
    if not fast.is_file():
        files = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    parts = read_object(inside(folder, fast.name))
    model = parts.get("model")
    if not isinstance(model, dict):
        raise LayerswapError(f"{str(fast)!r}: model is {shortened(model)}: expected a tokenizer's model")
    if isinstance(model.get("merges"), list):  # "a b" and ["a", "b"] are the same merge in two versions of the format
        model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    kept = {key: value for key, value in parts.items() if key not in ("version", "truncation", "padding")}
    return {key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() for key, value in kept.items()}


def _plain(value: str | tuple[int, ...]) -> str:
    return value if isinstance(value, str) else str(list(value))


def _some(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
