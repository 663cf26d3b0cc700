"""A word-level tokenizer over the world's closed vocabulary, as a standard fast tokenizer."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
TAGS = ("[text]", "[math]", "[calc]", "[read]", "[quiz]", "[code]", "[en-sw]", "[sw-en]")


def vocabulary() -> tuple[str, ...]:
    """Every word that the world's texts use, in a fixed order. Numbers from 0 to 100 are words."""
    from harness.lab.corpus import documents

    words = {
        word
        for stage in ("base", "math", "language")
        for document in islice(documents(stage, seed=0), 40_000)
        for word in f"{document.prompt} {document.completion}".split()
    }
    numbers = [str(k) for k in range(101)]
    rest = sorted(words - set(numbers) - set(TAGS))
    return (PAD, EOS, UNKNOWN, *TAGS, *numbers, *rest)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Splits at white space, looks words up, joins with spaces; adds no token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The decoder joins words with spaces. Its continuation prefix must be no word of ours ("####" is one).
    tokenizer.decoder = decoders.WordPiece(prefix="\u0000", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
