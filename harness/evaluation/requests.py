"""What a benchmark asks of a model, as token ids: encoded once for all variants, by lm-eval's own rules.

A request is known by a digest of all that its answer depends on beside the weights, so an answer can be kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import LayerswapError

# Generation arguments that lm-eval's wrapper reads itself or that plain greedy decoding honours.
_GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "max_new_tokens", "max_tokens", "max_completion_tokens"}
# What a checkpoint's generation config may ask for beside greedy decoding, and the value that asks for nothing.
_PLAIN: dict[str, tuple[object, ...]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0.0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "dola_layers": (None,),
    "max_new_tokens": (None,),  # it would win over what a task asks for
    "max_time": (None,),
    "stop_strings": (None, []),
    "watermarking_config": (None,),
    "force_words_ids": (None,),
    "constraints": (None,),
}


@dataclass(frozen=True)
class Stop:
    """When an answer ends: at one of these texts, at one of these tokens, or after so many tokens."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    most: int


@dataclass(frozen=True)
class Request:
    """One question: the tokens before, and either the continuation to score or when to stop."""

    context: tuple[int, ...]
    continuation: tuple[int, ...] = ()
    stop: Stop | None = None

    @property
    def scored(self) -> tuple[int, ...]:
        """What a model reads to score the continuation: everything but its last token."""
        return (*self.context, *self.continuation)[:-1]

    def digest(self, engine: str) -> str:
        """SHA-256 (hex, 32 digits) of the request and of what answers it."""
        stop = None if self.stop is None else [self.stop.texts, self.stop.tokens, self.stop.most]
        text = json.dumps([engine, self.context, self.continuation, stop])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Encoder:
    """lm-eval's own encoding of requests for a model: its special tokens, split points, truncation and stops.

    ``model`` lends its config and its generation config; nothing is run.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from lm_eval.models.huggingface import HFLM

        class Recording(HFLM):  # type: ignore[misc]
            """Its log-likelihoods are the requests themselves, encoded."""

            def _loglikelihood_tokens(self, requests: Any, *_: Any, **__: Any) -> Any:
                return requests

        self._lm = Recording(pretrained=model, tokenizer=tokenizer, batch_size=1, add_bos_token=False)
        self.tokenizer = tokenizer
        self._generation = getattr(model, "generation_config", None)

    @cached_property
    def plain(self) -> bool:
        """Whether the model's own generation config asks for nothing beside greedy decoding."""
        config = self._generation
        return config is None or all(getattr(config, k, None) in plain for k, plain in _PLAIN.items())

    def can(self, instances: Iterable[Any]) -> bool:
        """Whether all these are log-likelihoods and greedy generations, which the shared engine answers."""
        return all(
            i.request_type == "loglikelihood"
            or (i.request_type == "generate_until" and self.plain and _is_greedy(i.args[1]))
            for i in instances
        )

    def encode(self, instances: Sequence[Any]) -> list[Request]:
        """A request for every instance, in their order."""
        scored = [i for i in instances if i.request_type == "loglikelihood"]
        encoded = iter(self._lm.loglikelihood(scored, disable_tqdm=True) if scored else ())
        return [
            self._scored(next(encoded)) if i.request_type == "loglikelihood" else self._generated(i) for i in instances
        ]

    def _scored(self, encoded: Any) -> Request:
        _, context, continuation = encoded
        if len(continuation) > self._lm.max_length:
            raise LayerswapError(
                f"a choice of {len(continuation)} tokens does not fit the model, which reads {self._lm.max_length}: "
                f"{self.tokenizer.decode(continuation[:12])!r}..."
            )
        both = (*context, *continuation)[-(self._lm.max_length + 1) :]
        return Request(both[: len(both) - len(continuation)], tuple(continuation))

    def _generated(self, instance: Any) -> Request:
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

        context, arguments = instance.args
        kwargs = normalize_gen_kwargs(arguments, self._lm.max_gen_toks)
        eos = self._lm.tok_decode(self._lm.eot_token_id, skip_special_tokens=False)
        texts = handle_stop_sequences(kwargs.pop("until", None), eos=eos)
        if (most := kwargs["max_gen_toks"]) >= self._lm.max_length:
            raise LayerswapError(
                f"an answer of up to {most} tokens leaves no room for its prompt: the model reads "
                f"{self._lm.max_length}; lower the task's max_gen_toks"
            )
        ids, _ = self._lm.tok_batch_encode([context])
        ends = getattr(self._generation, "eos_token_id", None)
        tokens = tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),)
        return Request(tuple(ids[0].tolist()[-(self._lm.max_length - most) :]), (), Stop(tuple(texts), tokens, most))


def _is_greedy(arguments: dict[str, Any]) -> bool:
    sampled = bool(arguments.get("do_sample")) or float(arguments.get("temperature") or 0.0) > 0
    return not sampled and set(arguments) <= _GREEDY
