"""Requests as lm-eval makes them, tokenizers to encode them with, and what its own wrapper answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from harness.evaluation.requests import Encoder, Request
from harness.evaluation.responses import Store

TEXT = [
    "asha ana vitabu vitatu . Asha has three books .",
    "def f ( x ) :\n    return x + 1\n\n",
    "ndiyo — hapana ; café naïve 你好 世界 ?",
    "#### 12\nQuestion : what is it ?\nAnswer : END stop",
]


@cache
def words() -> Any:
    """A word for each of a tiny model's 61 tokens; the third ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {"<pad>": 0, "w1": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 61)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<pad>", pad_token="<pad>", eos_token="</s>")


@cache
def byte_level() -> Any:
    """Byte-level BPE: tokens hold their spaces, and a character outside ASCII may take several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["</s>"], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


@cache
def metaspace() -> Any:
    """Pieces with a mark for a space, which the first of a text loses, as in SentencePiece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def instance(kind: str, number: int, *arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("task", number, 1))


def questions(prompts: Sequence[str], **arguments: Any) -> list[Any]:
    """Requests for greedy answers."""
    return [
        instance("generate_until", i, prompt, {"do_sample": False, **arguments}) for i, prompt in enumerate(prompts)
    ]


def choices(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    """Requests for log-likelihoods."""
    return [instance("loglikelihood", i, *pair) for i, pair in enumerate(pairs)]


def stock(model: Any, batch: int = 4, tokenizer: Any = None) -> Any:
    """lm-eval's own wrapper."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = tokenizer or words()
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, add_bos_token=False, softmax_dtype="float32")


def answered(model: Any, instances: Sequence[Any], batch: int = 4) -> list[Any]:
    """What lm-eval's wrapper answers, in the order of ``instances``."""
    lm = stock(model, batch)
    found: list[Any] = [None] * len(instances)
    for kind in {i.request_type for i in instances}:
        numbers = [n for n, i in enumerate(instances) if i.request_type == kind]
        for number, answer in zip(
            numbers, getattr(lm, kind)([instances[n] for n in numbers], disable_tqdm=True), strict=True
        ):
            found[number] = answer
    return found


def encoded(model: Any, instances: Sequence[Any]) -> list[Request]:
    encoder = Encoder(model, words())
    assert encoder.can(instances)
    return encoder.encode(instances)


class Counting(Store):
    """A store that counts the answers that are added to it, by variant."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.added: dict[str, int] = {}

    def add_responses(self, variant: str, answers: Any) -> None:
        self.added[variant] = self.added.get(variant, 0) + len(answers)
        super().add_responses(variant, answers)
