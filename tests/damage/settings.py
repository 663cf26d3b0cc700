"""Damaged configs, tokenizers and adapters of checkpoints."""

from __future__ import annotations

from tests.damage.case import (
    ANALYZE,
    DOCTOR,
    MATH,
    MERGE,
    Case,
    content,
    cut,
    edited,
    linked,
    several,
    updated,
    without,
)

CONFIG = f"{MATH}/config.json"
NAMED = r"models/math.*config|config in 'models/math'|math differs from base"
TOKENIZER = f"{MATH}/tokenizer.json"
ADAPTER = "adapter/adapter_config.json"
ADAPTED = "merge 'expert(\"math\")' --base models/base --expert math=adapter --out out"
EVERY = ("base", "math", "language")


def _all(**values: object):  # type: ignore[no-untyped-def]
    """The same in the config of every expert, so that they agree with each other."""
    return several(*(updated(f"models/{name}/config.json", **values) for name in EVERY))


CONFIGS = (
    Case("config is missing", without(CONFIG), r"models/math.*config\.json"),
    Case("config is missing, examined", without(CONFIG), r"math.*config\.json", DOCTOR),
    Case("config is empty", content(CONFIG, ""), NAMED),
    Case("config is cut off", cut(CONFIG, 0.5), NAMED),
    Case("config of the base is cut off", cut("models/base/config.json", 0.5), r"models/base.*config"),
    Case("config is a list", content(CONFIG, "[]"), NAMED),
    Case("config is a text", content(CONFIG, '"llama"'), NAMED),
    Case("config in UTF-16", content(CONFIG, "{}".encode("utf-16")), NAMED),
    Case("config nested deep", content(CONFIG, '{"a":' * 100_000), NAMED),
    Case("config leads out by a link", linked(CONFIG, "elsewhere/config.json"), r"math/config\.json.*leads out of"),
    Case("no model_type", edited(CONFIG, lambda d: d.pop("model_type") and d), NAMED),
    Case("unknown model_type", updated(CONFIG, model_type="llama9"), "models/math.*llama9"),
    Case("model_type is a number", updated(CONFIG, model_type=3), NAMED),
    Case("another model_type", updated(CONFIG, model_type="mistral"), "math differs from base"),
    Case("an encoder-decoder", _all(model_type="t5", architectures=["T5ForConditionalGeneration"]), "T5|models/"),
    Case("too deep", updated(CONFIG, num_hidden_layers=8), r"math/config\.json.*num_hidden_layers gives 8"),
    Case("too shallow", updated(CONFIG, num_hidden_layers=4), r"math/config\.json.*num_hidden_layers gives 4"),
    Case("all too deep", _all(num_hidden_layers=8), r"models/\w+.*layers"),
    Case("all too shallow", _all(num_hidden_layers=4), r"models/\w+.*layers"),
    Case("all too deep, analyzed", _all(num_hidden_layers=8), r"models/\w+.*layers", ANALYZE),
    Case("no depth", edited(CONFIG, lambda d: d.pop("num_hidden_layers") and d), NAMED),
    Case("depth 0", _all(num_hidden_layers=0), "models/.*num_hidden_layers|layers"),
    Case("depth below 0", _all(num_hidden_layers=-6), "models/.*num_hidden_layers|layers"),
    Case("depth is a text", _all(num_hidden_layers="six"), "models/.*num_hidden_layers"),
    Case("depth is null", _all(num_hidden_layers=None), "models/.*num_hidden_layers"),
    Case("depth is a fraction", _all(num_hidden_layers=6.5), "models/.*num_hidden_layers"),
    Case("a billion layers", _all(num_hidden_layers=10**9), "layers"),
    Case("a billion layers of another architecture", _all(model_type="olmo2", num_hidden_layers=10**9), "num_hidden"),
    Case("says that it is tied", updated(CONFIG, tie_word_embeddings=True), r"math/config\.json.*tie_word_embeddings"),
    Case("all say that they are tied", _all(tie_word_embeddings=True), "models/.*tie_word_embeddings"),
    Case("tied is a text", updated(CONFIG, tie_word_embeddings="perhaps"), NAMED),
    Case("another vocabulary", updated(CONFIG, vocab_size=64), r"math/config\.json.*vocab_size.*64"),
    Case("all of another vocabulary", _all(vocab_size=64), "models/.*vocab_size"),
    Case("another width", updated(CONFIG, hidden_size=64), r"math/config\.json.*hidden_size.*64"),
    Case("all of another width", _all(hidden_size=64), "models/.*hidden_size|embed_tokens"),
    Case("another epsilon", updated(CONFIG, rms_norm_eps=0.1), "rms_norm_eps"),
    Case(
        "quantised",
        updated(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}),
        "math.*quantization_config",
    ),
    Case("unknown dtype", _all(dtype="float12"), "models/.*float12", f"{MERGE} --dtype auto"),
)

TOKENIZERS = (
    Case("tokenizer is empty", content(TOKENIZER, ""), r"math/tokenizer\.json"),
    Case("tokenizer is cut off", cut(TOKENIZER, 0.5), r"math/tokenizer\.json"),
    Case("tokenizer is a list", content(TOKENIZER, "[]"), r"math/tokenizer\.json"),
    Case("tokenizer in UTF-16", content(TOKENIZER, "{}".encode("utf-16")), r"math/tokenizer\.json"),
    Case("tokenizer nested deep", content(TOKENIZER, "[" * 100_000), r"math/tokenizer\.json"),
    Case("tokenizer without model", edited(TOKENIZER, lambda d: d.pop("model") and d), "tokenizer"),
    Case("model is a text", updated(TOKENIZER, model="bpe"), "tokenizer"),
    Case(
        "another vocabulary",
        edited(TOKENIZER, lambda d: d["model"]["vocab"].update(w1=7)),
        r"math differs from base in tokenizer \(model\)",
    ),
    Case(
        "another vocabulary, examined",
        edited(TOKENIZER, lambda d: d["model"]["vocab"].update(w1=7)),
        r"math differs from base in tokenizer",
        DOCTOR,
    ),
    Case(
        "other added tokens",
        updated(TOKENIZER, added_tokens=[{"id": 1, "content": "x"}]),
        r"tokenizer \(added_tokens\)",
    ),
    Case("another normaliser", updated(TOKENIZER, normalizer={"type": "NFC"}), r"tokenizer \(normalizer\)"),
    Case(
        "all are cut off",
        several(*(cut(f"models/{name}/tokenizer.json", 0.5) for name in EVERY)),
        r"models/\w+/tokenizer\.json",
    ),
    Case(
        "leads out by a link",
        linked("models/base/tokenizer_config.json", "elsewhere/id_rsa"),
        r"base/tokenizer_config\.json.*leads out of",
        "merge 'expert(\"base\")' --base models/base --expert math=models/math --out out",
    ),
)

ADAPTERS = (
    Case("config is no JSON", content(ADAPTER, "{"), r"adapter/adapter_config\.json|adapter.*cannot", ADAPTED),
    Case("config is a list", content(ADAPTER, "[]"), "adapter", ADAPTED),
    Case("config of another method", updated(ADAPTER, peft_type="MAGIC"), "adapter.*MAGIC|adapter", ADAPTED),
    Case("modules that the base lacks", updated(ADAPTER, target_modules=["nowhere"]), "adapter", ADAPTED),
    Case("rank of another size", updated(ADAPTER, r=3), "adapter", ADAPTED),
    Case("rank is a text", updated(ADAPTER, r="two"), "adapter", ADAPTED),
    Case("rank 0", updated(ADAPTER, r=0), "adapter", ADAPTED),
    Case("weights are cut off", cut("adapter/adapter_model.safetensors", 0.5), "adapter", ADAPTED),
    Case("weights are missing", without("adapter/adapter_model.safetensors"), "adapter.*safetensors", ADAPTED),
    Case(
        "weights are a pickle",
        lambda at: (at / "adapter/adapter_model.safetensors").rename(at / "adapter/adapter_model.bin"),
        "adapter.*safetensors",
        ADAPTED,
    ),
    Case("no base", lambda at: None, "adapter", "merge 'expert(\"math\")' --expert math=adapter --out out"),
    Case("base of another width", updated("models/base/config.json", hidden_size=64), "base|adapter", ADAPTED),
)
