"""What a run shows while it goes on, and the mark that a checkpoint was written as a whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

WHOLE = "whole"  # a file in each checkpoint that can be gone on from


def watchers(say: Callable[[str], None]) -> list[TrainerCallback]:
    """Callbacks of the Trainer: a line for every evaluation, a bar on a terminal, and the mark."""
    from transformers import ProgressCallback, TrainerCallback

    class Lines(TrainerCallback):  # type: ignore[misc]
        loss: float | None = None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            logs = logs or {}
            self.loss = logs.get("loss", self.loss)
            if "eval_loss" in logs or ("loss" in logs and args.eval_strategy == "no"):
                shown = [f"loss {self.loss:.4f}"] if self.loss is not None else []
                shown += [f"held-out loss {logs['eval_loss']:.4f}"] if "eval_loss" in logs else []
                say(f"step {state.global_step}/{state.max_steps}: {', '.join(shown)}")

    class Mark(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()

    class Bar(ProgressCallback):  # type: ignore[misc]
        """As transformers' own, without its dictionaries between the lines."""

        def on_log(self, *_: Any, **__: Any) -> None:
            pass

    return [Lines(), Mark(), *([Bar()] if sys.stderr.isatty() else [])]
