"""The model card beside tuned weights: from what, on what, how, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SHOWN = (
    "method",
    "rank",
    "learning_rate",
    "epochs",
    "steps",
    "batch_size",
    "max_length",
    "packing",
    "precision",
    "seed",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def card(title: str, record: Mapping[str, Any]) -> str:
    """``README.md`` as the hub reads it, from the record of a run."""
    recipe: Mapping[str, Any] = record["recipe"]
    lora = recipe["method"] == "lora"
    base = str(record["base"]).partition("@")[0]
    named = f"base_model: {base}\n" if _HUB_ID.fullmatch(base) else ""
    data = str(record["data"]).partition("@")[0]
    named += f"datasets:\n- {data}\n" if _HUB_ID.fullmatch(data) else ""
    rows = [(name, recipe[name]) for name in _SHOWN if recipe[name] is not None and (lora or name != "rank")]
    table = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in rows)
    losses = (record["held_out_loss_before"], record["held_out_loss_after"])
    came = (
        f"Loss on {record['held_out']:,} held-out records (mean over sequences): {losses[0]:.4f} before, "
        f"{losses[1]:.4f} after.\n"
        if losses[0] is not None and losses[1] is not None
        else "Nothing was held out, so no loss was measured.\n"
    )
    return (
        f"---\nlibrary_name: {'peft' if lora else 'transformers'}\n{named}tags:\n- layer-swapping\n"
        f"- {'lora' if lora else 'fine-tuned'}\n---\n\n# {title}\n\n"
        f"The {record['expert']} expert of a layer swap: `{record['base']}` "
        f"{'with a LoRA adapter' if lora else 'with all weights'} tuned on `{record['data']}` by pytest-layerswap. "
        "The licences of base and data apply.\n\n"
        f"{record['records']:,} records of {record['tokens']:,} tokens ({record['learnt_tokens']:,} learnt), "
        f"{record['steps']:,} steps. {came}\n"
        f"| recipe | |\n|---|---|\n{table}\n\n"
        f"| SHA-256 | |\n|---|---|\n| base | `{record['base_digest'][:16]}` |\n"
        f"| records | `{record['data_digest'][:16]}` |\n"
        f"| these weights | `{record['digest'][:16]}` |\n"
    )
