from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harness.errors import LayerswapError
from harness.tuning.records import Text, read_data
from harness.tuning.spec import TrainingSpec, fields_of
from tests.hub import Hub, serving

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Chatting:
    """A tokenizer as far as records ask for one, with transformers' own templates."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        from transformers.utils.chat_template_utils import render_jinja_template

        (text,), _ = render_jinja_template(
            conversations=[messages], chat_template=self.chat_template, add_generation_prompt=add_generation_prompt
        )
        return text


@pytest.fixture
def read(tmp_path):
    """What is read of a file with these lines."""

    def read(*rows: object, template: str | None = CHATML, **values: object):
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        spec = TrainingSpec(**{"data": "data.jsonl", "held_out": 0, **values})
        return read_data(spec, tmp_path, Chatting(template))

    return read


def test_the_three_kinds_of_records_and_what_is_learnt_of_each(read):
    messages = [
        {"role": "user", "content": "habari"},
        {"role": "assistant", "content": "nzuri"},
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4"},
    ]
    rows = [{"text": "Asha ana kitabu."}, {"prompt": "Q: 1\u2028+1\nA: ", "completion": "2"}, {"messages": messages}]
    found = {text.text: text for text in read(*rows, "", prompt_format="Hi. {prompt}").train}
    assert found["Asha ana kitabu."].learnt == ((0, 16),)
    question = found["Hi. Q: 1\u2028+1\nA: 2"]
    assert [question.text[a:b] for a, b in question.learnt] == ["2"]
    (chat,) = (text for text in found.values() if text.chat)
    assert chat.text == "<|user|>habari<|end|><|assistant|>nzuri<|end|><|user|>2+2<|end|><|assistant|>4<|end|>"
    assert [chat.text[a:b] for a, b in chat.learnt] == ["nzuri<|end|>", "4<|end|>"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json", r"data.jsonl, line 2: not JSON .*expected an object such as"),
        ([1], r"data.jsonl, line 2: expected an object"),
        (
            {"prompts": "a", "completion": "b"},
            r"line 2: has the fields prompts, completion: expected text, or prompt and completion, or messages "
            r"\(did you mean 'prompt'\?\)",
        ),
        ({}, r"line 2: has the fields \(none\)"),
        ({"text": "a", "prompt": "b", "completion": "c"}, r"line 2: has completion, prompt, text: .*and not both"),
        ({"text": ""}, r"line 2: text is \"\": expected a text that is not empty"),
        ({"text": None}, r"line 2: text is null: expected a text"),
        ({"prompt": "a", "completion": 4}, r"line 2: completion is 4: expected a text"),
        ({"messages": []}, r"line 2: messages: expected a list of objects with role and content"),
        ({"messages": [{"role": "user"}]}, r"line 2: messages: expected a list"),
        ({"messages": [{"role": "user", "content": "a"}]}, r"line 2: messages: no assistant says anything"),
    ],
)
def test_a_line_that_will_not_do_is_named_with_its_number(read, row, message):
    with pytest.raises(LayerswapError, match=message) as caught:
        read({"text": "well"}, row)
    assert "\n" not in str(caught.value)


def test_templates_that_are_missing_or_write_the_past_otherwise_are_refused(read):
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(LayerswapError, match=r"line 1: has messages, but .* no chat template"):
        read(chat, template=None)
    with pytest.raises(LayerswapError, match="line 1: the chat template writes a conversation otherwise"):
        read(chat, template="{{ messages | length }}" + CHATML)
    with pytest.raises(LayerswapError, match="line 1: the chat template refuses these messages: no system"):
        read(chat, template="{{ raise_exception('no system') }}")


def test_missing_and_empty_data_are_one_sentence(read, tmp_path):
    with pytest.raises(LayerswapError, match=r"'data\.jsonl' is empty: expected a record a line"):
        read("", "  ")
    for data, message in (
        ("", r"there is no training data: give a file"),
        ("<a file>", r"no training data but the placeholder <a file>"),
        ("nowhere.jsonl", r"there is no training data '.*nowhere.jsonl'"),
    ):
        with pytest.raises(LayerswapError, match=message):
            read_data(TrainingSpec(data=data), tmp_path, None)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LayerswapError, match="cannot be read as UTF-8 text"):
        read_data(TrainingSpec(data="binary.jsonl"), tmp_path, None)


def test_samples_and_held_out_records_are_drawn_by_the_seed_and_kept_apart(read):
    rows = [{"text": f"text {n % 40}"} for n in range(80)]  # each comes twice
    data = read(*rows, samples=60, held_out=0.1)
    assert data.available == 80
    assert len(data.held_out) == 6
    assert not set(data.held_out) & set(data.train)
    assert read(*rows, samples=60, held_out=0.1) == data
    assert read(*rows, samples=60, held_out=0.1, seed=1).train != data.train
    with pytest.raises(LayerswapError, match="nothing is left beside the 1 held-out records"):
        read({"text": "same"}, {"text": "same"}, held_out=0.1)


def test_fields_may_have_other_names(read):
    data = read({"question": "1+1=", "answer": "2"}, fields={"prompt": "question", "completion": "answer"})
    assert data.train == (Text("1+1=2", ((4, 5),)),)
    assert fields_of(["prompt=question"]) == {"prompt": "question"}
    with pytest.raises(LayerswapError, match="--field is 'prompt': expected a pair such as prompt=question"):
        fields_of(["prompt"])


def test_a_data_set_on_the_hub_is_asked_for_by_its_revision(monkeypatch, tmp_path):
    import datasets

    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        return datasets.Dataset.from_list([{"text": "one"}, {"text": "two"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    data = read_data(TrainingSpec(data="org/set@v1", config="sw", split="test", held_out=0), tmp_path, None)
    assert asked == [("org/set", "sw", "test", "v1")]
    assert {text.text for text in data.train} == {"one", "two"}

    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr("datasets.load_dataset", refused)
    with pytest.raises(LayerswapError, match=r"'org/set' is no local file, and .* \(ConnectionError: no network\)$"):
        read_data(TrainingSpec(data="org/set"), tmp_path, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": "quick"}, "--learning-rate: .*number"),
        ({"method": "qlora"}, "--method: .*'full' or 'lora'"),
        ({"batch_size": "6", "micro_batch": "4"}, "batch_size 6 is no multiple of micro_batch 4"),
        ({"prompt_format": "Q:"}, r"'Q:' has no \{prompt\} in it"),
        ({"fields": {"question": "q"}}, "fields names 'question'"),
        ({"lr": "1"}, "--lr: Extra inputs"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_read(values, message):
    assert TrainingSpec().changed({"learning_rate": "1e-4", "packing": "false"}).learning_rate == 1e-4
    with pytest.raises(LayerswapError, match=message):
        TrainingSpec().changed(values)


@pytest.mark.slow
def test_the_hubs_real_client_reads_a_data_set(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n', encoding="utf-8")
    code = (
        "from pathlib import Path; from harness.tuning.records import read_data\n"
        "from harness.tuning.spec import TrainingSpec\n"
        "spec = TrainingSpec(data='org/set', fields={'prompt': 'question', 'completion': 'answer'}, held_out=0)\n"
        "print(read_data(spec, Path(), None).train)"
    )
    settings = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    with serving(Hub({"datasets/org/set": tmp_path / "set"})) as hub:
        settings |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True)
    assert done.stdout == "(Text(text='1+1=2', learnt=((4, 5),), chat=False),)\n", done.stderr
