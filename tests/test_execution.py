from __future__ import annotations

import pytest

from harness.errors import LayerswapError
from harness.execution import parse_arguments


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("a=1, b=0.5", (("a", 1), ("b", 0.5))),
        ("b=x/y,a=True", (("a", True), ("b", "x/y"))),
    ],
)
def test_arguments_of_a_model_class(text, found):
    assert parse_arguments(text) == found


@pytest.mark.parametrize("text", ["a", "1=2", "a=1,b", "=3"])
def test_what_are_no_arguments(text):
    with pytest.raises(LayerswapError, match="--ablation-backend-args is"):
        parse_arguments(text)
