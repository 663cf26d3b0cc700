"""Training data: JSON lines or a data set on the hub, as texts and the parts of them that are learnt.

A record has ``text``; or ``prompt`` and ``completion``, of which the completion is learnt; or chat ``messages``, of
which what the assistant says is.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import LayerswapError
from harness.places import is_hub_id, is_placeholder
from harness.tuning.spec import TrainingSpec

Row = tuple[str, Mapping[str, Any]]  # where it stands, for errors; and its fields


@dataclass(frozen=True)
class Text:
    """One record: its text, and the spans of characters in it that are learnt. ``chat``: a template made it, with all
    special tokens; otherwise the tokenizer adds its own, and an end."""

    text: str
    learnt: tuple[tuple[int, int], ...]
    chat: bool = False


@dataclass(frozen=True)
class Data:
    """What was read: ``name`` and ``digest`` (SHA-256, hex, of the records taken) are for the record of the run."""

    name: str
    digest: str
    train: tuple[Text, ...]
    held_out: tuple[Text, ...]
    available: int


def read_data(spec: TrainingSpec, folder: Path, tokenizer: Any) -> Data:
    """The records of a recipe; relative files start at ``folder``.

    ``samples`` and ``held_out`` are drawn by the seed; what equals a held-out record is not trained on. Raises
    :class:`LayerswapError` naming the file and line for anything that is not as it should be.
    """
    local = data_file(spec, folder)
    rows = _from_file(local) if local else _from_hub(spec)
    texts = tuple(_text(row, where, spec, tokenizer) for where, row in rows)
    if not texts:
        raise LayerswapError(f"training data {spec.data!r} is empty: expected a record a line")
    order = list(range(len(texts)))
    Random(f"records {spec.seed}").shuffle(order)
    chosen = [texts[i] for i in order[: spec.samples]]
    held = chosen[: max(1, round(spec.held_out * len(chosen)))] if spec.held_out and len(chosen) > 1 else []
    apart = set(held)
    train = [text for text in chosen[len(held) :] if text not in apart]
    if not train:
        raise LayerswapError(f"training data {spec.data!r}: nothing is left beside the {len(held)} held-out records")
    digest = hashlib.sha256(json.dumps([[t.text, t.learnt] for t in chosen]).encode()).hexdigest()
    name = local.name if local else spec.data
    return Data(name, digest, tuple(train), tuple(held), len(texts))


def data_file(spec: TrainingSpec, folder: Path) -> Path | None:
    """The local file with a recipe's data; None if it is on the hub, :class:`LayerswapError` if it is neither."""
    if not spec.data or is_placeholder(spec.data):
        raise LayerswapError(
            f"there is no training data{f' but the placeholder {spec.data}' if spec.data else ''}: "
            "give a file of JSON lines, --data FILE.jsonl, or a data set on the hub"
        )
    local = folder / Path(spec.data).expanduser()
    if is_hub_id(spec.data, folder):
        return None
    if not local.is_file():
        raise LayerswapError(f"there is no training data {str(local)!r}: expected a file of JSON lines")
    return local


def _from_file(path: Path) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise LayerswapError(f"training data {str(path)!r} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LayerswapError(f"{where}: not JSON ({error}): expected an object such as {_EXAMPLE}") from error
        if not isinstance(row, dict):
            raise LayerswapError(f"{where}: expected an object such as {_EXAMPLE}")
        yield where, row


_EXAMPLE = '{"prompt": "…", "completion": "…"}'


def _from_hub(spec: TrainingSpec) -> Iterator[Row]:
    import datasets

    name, _, revision = spec.data.partition("@")
    load_dataset: Any = datasets.load_dataset
    try:
        found = load_dataset(name, spec.config, split=spec.split, revision=revision or None)
    except Exception as error:  # whatever the hub or the format's reader raises
        reason = (str(error).splitlines() or [""])[0]
        raise LayerswapError(
            f"training data {spec.data!r} is no local file, and cannot be had from the hub "
            f"({type(error).__name__}: {reason})"
        ) from error
    for number, row in enumerate(found, 1):
        yield f"{name}, record {number}", row


def _text(row: Mapping[str, Any], where: str, spec: TrainingSpec, tokenizer: Any) -> Text:
    named = {name: spec.fields.get(name, name) for name in ("text", "prompt", "completion", "messages")}
    has = {name for name, field in named.items() if field in row}
    if has == {"text"}:
        text = _string(row, named["text"], where)
        return Text(text, ((0, len(text)),))
    if has == {"prompt", "completion"}:
        prompt = spec.prompt_format.replace("{prompt}", _string(row, named["prompt"], where))
        text = prompt + _string(row, named["completion"], where)
        return Text(text, ((len(prompt), len(text)),))
    if has == {"messages"}:
        return _conversation(row[named["messages"]], where, tokenizer)
    if len(has) > 1:
        raise LayerswapError(f"{where}: has {', '.join(sorted(has))}: expected {_expected(named)}, and not both")
    near = [close for field in row for close in difflib.get_close_matches(field, list(named.values()), n=1)]
    hint = f" (did you mean {near[0]!r}?)" if near and near[0] not in row else ""
    raise LayerswapError(f"{where}: has the fields {', '.join(row) or '(none)'}: expected {_expected(named)}{hint}")


def _expected(named: Mapping[str, str]) -> str:
    return f"{named['text']}, or {named['prompt']} and {named['completion']}, or {named['messages']}"


def _string(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row[field]
    if not isinstance(value, str) or not value:
        raise LayerswapError(f"{where}: {field} is {json.dumps(value)[:40]}: expected a text that is not empty")
    return value


def _conversation(messages: Any, where: str, tokenizer: Any) -> Text:
    if not tokenizer.chat_template:
        raise LayerswapError(
            f"{where}: has messages, but the base's tokenizer has no chat template: give prompt and completion instead"
        )
    if not (isinstance(messages, Sequence) and messages and all(map(_is_message, messages))):
        raise LayerswapError(f"{where}: messages: expected a list of objects with role and content, both texts")
    render = _renderer(tokenizer, where)
    whole, spans = render(messages, False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = render(messages[:i], True), render(messages[: i + 1], False)
            if not (after.startswith(before) and whole.startswith(after)):
                raise LayerswapError(
                    f"{where}: the chat template writes a conversation otherwise once it goes on, so what the "
                    "assistant says cannot be told apart: give prompt and completion instead"
                )
            spans.append((len(before), len(after)))
    if not spans:
        raise LayerswapError(f"{where}: messages: no assistant says anything, so there is nothing to learn")
    return Text(whole, tuple(spans), chat=True)


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _renderer(tokenizer: Any, where: str) -> Callable[[Sequence[Any], bool], str]:
    def render(messages: Sequence[Any], prompt: bool) -> str:
        try:
            return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
        except Exception as error:  # templates raise what they like
            raise LayerswapError(f"{where}: the chat template refuses these messages: {error}") from error

    return render
