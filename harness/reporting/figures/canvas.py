"""What all figures share: colours, sizes in CSS pixels, and the way to SVG text. matplotlib is imported in calls only.

The background is transparent, so every colour of text and lines has to be read on white and on GitHub's dark page.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

WIDTH = 864  # pixels: GitHub's column is a little wider
PAGES = ("#ffffff", "#0d1117")
TEXT = "#7d8590"
LINE = "#7d8590"
UP_COLOUR, DOWN_COLOUR = "#0077bb", "#d55e00"  # as blue and vermilion of Okabe and Ito, 3:1 on both pages
SMALL, NORMAL, LARGE = 10.0, 11.5, 13.0  # pixels
ROW = 17.0

# Okabe and Ito's palette; an expert's variants (a lower-case letter) are a tint of its own colour.
OWNERS: Mapping[str, str] = MappingProxyType(
    {
        "L": "#0072b2",
        "M": "#e69f00",
        "T": "#009e73",
        "B": "#b8bdc4",
        "*": "#cc79a7",
        "l": "#7fc4ea",
        "m": "#f6d98d",
    }
)
OTHER_OWNER = "#f0e442"

_STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "axes.edgecolor": LINE,
        "axes.facecolor": "none",
        "axes.labelcolor": TEXT,
        "axes.linewidth": 0.6,
        "axes.unicode_minus": False,
        "figure.facecolor": "none",
        "font.family": ["sans-serif"],
        # Measured in the font that comes with matplotlib, and shown in one that is as wide or narrower.
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "pytest-layerswap",
        "text.color": TEXT,
        "text.parse_math": False,
        "text.usetex": False,
        "xtick.color": LINE,
        "xtick.labelcolor": TEXT,
        "ytick.color": LINE,
        "ytick.labelcolor": TEXT,
    }
)


def svg(height: float, paint: Callable[[Any], None]) -> str:
    """A figure of :data:`WIDTH` times ``height`` pixels as SVG text: the same bytes for the same paint.

    ``paint`` gets an empty ``matplotlib.figure.Figure``. The user's own matplotlib settings have no say.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A backend among the defaults would be switched to, which is the global state that a report has no business with.
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context({**defaults, **_STYLE}), warnings.catch_warnings():
        # Text stays text: a browser has glyphs that the measuring font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(WIDTH / 96, height / 96))
        paint(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _slim(text.getvalue())


def _slim(text: str) -> str:
    """The same picture in half the bytes: fonts named once, no comments, no turning by nothing, no spaces at ends."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r' transform="rotate\(-0 [^"()<>]*\)"', "", text)
    family = re.search(r"(?<=; )font-family: [^;\"<>]*(?=; )", text)
    if family:
        text = text.replace(f"{family[0]}; ", "").replace("</style>", f"text{{{family[0]}}}</style>", 1)
    return re.sub(r"[^\S\n]+$", "", text, flags=re.M)


def sheet(figure: Any) -> Any:
    """Axes over the whole figure whose data are pixels, (0, 0) at the top left."""
    width, height = figure.get_size_inches() * 96
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def panel(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place given in pixels from the top left."""
    w, h = figure.get_size_inches() * 96
    axes = figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
    axes.tick_params(length=3, width=0.6, labelsize=points(SMALL), pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def points(pixels: float) -> float:
    """A font size: matplotlib counts in 72nds of an inch."""
    return pixels * 0.75


def write(axes: Any, x: float, y: float, text: str, size: float = NORMAL, room: float = math.inf, **style: Any) -> None:
    """Text at data coordinates, centred on ``y``, cut to ``room`` pixels; what XML cannot hold becomes spaces."""
    text = printable(text)
    if room < math.inf and width_of(text, size, "weight" in style) > room:
        cuts = range(len(text))
        fit = bisect_right(cuts, room, key=lambda n: width_of(f"{text[:n]}…", size, "weight" in style))
        text = f"{text[: max(fit - 1, 0)]}…"
    axes.text(x, y, text, fontsize=points(size), **{"ha": "left", "va": "center", **style})


def printable(text: str) -> str:
    """``text`` without line ends and control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def width_of(text: str, size: float = NORMAL, bold: bool = False) -> float:
    """The width of a line of text in pixels."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=points(size), weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        # text_to_path measures in points at 72 dots an inch.
        return float(text_to_path.get_text_width_height_descent(printable(text), font, False)[0]) / 0.75


def cells(
    axes: Any, places: Sequence[tuple[float, float]], colours: Sequence[str], width: float, height: float
) -> None:
    """Filled rectangles on a :func:`sheet`, by their top left corners, with a pixel between neighbours."""
    from matplotlib.collections import PolyCollection

    shapes = [
        [(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1)] for x, y in places
    ]  # fmt: skip
    axes.add_collection(
        PolyCollection(shapes, facecolors=list(colours), edgecolors="none", clip_on=False), autolim=False
    )


def colour_of(share: float, scale: str) -> str:
    """The colour at ``share`` (0 to 1) of a named matplotlib scale, as ``#rrggbb``."""
    import matplotlib
    from matplotlib.colors import to_hex

    return str(to_hex(matplotlib.colormaps[scale](min(1.0, max(0.0, share)))))


def scale_bar(axes: Any, x: float, y: float, scale: str, low: str, high: str, title: str) -> None:
    """A colour scale on one line of a :func:`sheet`: title, low, colours, high."""
    x += width_of(title, SMALL) + 10
    write(axes, x - 10, y, title, SMALL, ha="right")
    x += width_of(low, SMALL)
    write(axes, x, y, low, SMALL, ha="right")
    steps, step = 40, 3.0
    # Overlapping, since a browser shows the seam between rectangles that only touch.
    cells(
        axes,
        [(x + 5 + i * step, y - 5) for i in range(steps)],
        [colour_of(i / (steps - 1), scale) for i in range(steps)],
        step + 1.5,
        11,
    )
    write(axes, x + 10 + steps * step, y, high, SMALL)


def ink(colour: str) -> str:
    """Black or white, whichever is read better on ``colour``."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, colour))


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two ``#rrggbb`` colours, 1 to 21, after WCAG 2.2."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
