"""The one exception that a user's mistake raises."""

from __future__ import annotations


class LayerswapError(Exception):
    """A request that cannot be carried out, in one sentence for the person who made it.

    The message names the thing, says what was expected and what to do. Command line and plugin print it
    without a traceback.
    """
