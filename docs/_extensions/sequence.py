"""Pictures of who says what to whom, drawn from lines that can be read without the picture.

    client | A: leads the key | B: has a copy
    client -> A: put k = 2
    A: stamps 2, stores it
    A -x B: copy
    == the network heals
    A ! crashes

The first line names the lanes. After it `->` is a message that arrives, `-x` one that is lost,
`NAME: text` what a lane does, `NAME ! text` its end, and `==` a line across the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Any

LANE_WIDTH = 230
STEP_HEIGHT = 34
HEAD_HEIGHT = 58
LINE = re.compile(
    r"(?P<source>\w+) (?P<arrow>->|-x) (?P<target>\w+): (?P<said>.+)"
    r"|(?P<ends>\w+) ! (?P<why>.+)"
    r"|== (?P<across>.+)"
    r"|(?P<lane>\w+): (?P<does>.+)"
)


@dataclass(frozen=True)
class Picture:
    """Lanes (name -> what stands below the name) and the steps, one line each."""

    lanes: dict[str, str]
    steps: list[dict[str, str]]


def parsed(text: str) -> Picture:
    """Return what the lines say; ValueError names a line that says nothing known."""
    first, *rest = [line.strip() for line in text.splitlines() if line.strip()]
    lanes = {
        name.strip(): below.strip()
        for name, _, below in (lane.partition(":") for lane in first.split("|"))
    }
    steps = []
    for line in rest:
        match = LINE.fullmatch(line)
        if not match:
            raise ValueError(f"not a step: {line!r}")
        step = {key: value for key, value in match.groupdict().items() if value}
        for key in ("source", "target", "ends", "lane"):
            if key in step and step[key] not in lanes:
                raise ValueError(f"no lane {step[key]!r}: {line!r}")
        steps.append(step)
    return Picture(lanes, steps)


def drawn(picture: Picture, words: str) -> str:
    """Return the picture as SVG, with `words` for who cannot see it."""
    width = LANE_WIDTH * len(picture.lanes)
    height = HEAD_HEIGHT + STEP_HEIGHT * len(picture.steps) + 18
    middle = {name: LANE_WIDTH * i + LANE_WIDTH // 2 for i, name in enumerate(picture.lanes)}
    parts = [
        f'<svg class="sequence" viewBox="0 0 {width} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" style="max-width:{width}px">',
        f"<title>{escape(words)}</title>",
        *_lanes(picture, middle, height),
    ]
    for number, step in enumerate(picture.steps):
        parts += _step(step, middle, HEAD_HEIGHT + STEP_HEIGHT * (number + 1), width)
    return "\n".join([*parts, "</svg>"])


def _lanes(picture: Picture, middle: dict[str, int], height: int) -> list[str]:
    """Return the heads, and the lines down to where each lane ends."""
    ends = {
        step["ends"]: HEAD_HEIGHT + STEP_HEIGHT * (number + 1)
        for number, step in enumerate(picture.steps)
        if "ends" in step
    }
    parts = []
    for name, below in picture.lanes.items():
        x, end = middle[name], ends.get(name, height)
        parts += [
            f'<line class="lane" x1="{x}" y1="44" x2="{x}" y2="{end}"/>',
            f'<rect class="head" x="{x - 95}" y="4" width="190" height="40" rx="6"/>',
            _text(x, 21 if below else 29, name, "name"),
        ]
        if below:
            parts.append(_text(x, 37, below, "below"))
    return parts


def _step(step: dict[str, str], middle: dict[str, int], y: int, width: int) -> list[str]:
    if "across" in step:
        return [
            f'<line class="across" x1="0" y1="{y}" x2="{width}" y2="{y}"/>',
            _label(width // 2, y + 4, step["across"], "caption"),
        ]
    if "ends" in step:
        x = middle[step["ends"]]
        return [_cross(x, y), _text(x + 14, y + 5, step["why"], "lost", "start")]
    if "does" in step:
        return [_label(middle[step["lane"]], y + 4, step["does"], "note")]
    start, end = middle[step["source"]], middle[step["target"]]
    way = 1 if end > start else -1
    said = _label((start + end) // 2, y - 6, step["said"], "said")
    if step["arrow"] == "-x":
        stop = start + (end - start) * 3 // 4
        return [
            f'<line class="arrow lost" x1="{start}" y1="{y}" x2="{stop}" y2="{y}"/>',
            _cross(stop, y),
            said,
        ]
    head = f"{end},{y} {end - 9 * way},{y - 4} {end - 9 * way},{y + 4}"
    return [
        f'<line class="arrow" x1="{start}" y1="{y}" x2="{end - 4 * way}" y2="{y}"/>',
        f'<polygon class="point" points="{head}"/>',
        said,
    ]


def _text(x: int, y: int, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _label(x: int, y: int, text: str, kind: str) -> str:
    """Return a text that hides the lane behind it."""
    half = len(text) * 33 // 10 + 5
    box = (
        f'<rect class="behind {kind}" x="{x - half}" y="{y - 13}" width="{2 * half}" height="18"/>'
    )
    return box + _text(x, y, text, kind)


def _cross(x: int, y: int) -> str:
    return (
        f'<path class="cross" d="M{x - 6},{y - 6} L{x + 6},{y + 6} M{x + 6},{y - 6} '
        f'L{x - 6},{y + 6}"/>'
    )


def replace_blocks(app: Any, doctree: Any) -> None:
    """Draw the blocks of one document whose language is `sequence`, for HTML."""
    from docutils import nodes

    if app.builder.format != "html":
        return
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") == "sequence":
            text = block.astext()
            block.replace_self(nodes.raw("", drawn(parsed(text), text), format="html"))


def setup(app: Any) -> dict[str, bool]:
    """Let Sphinx draw."""
    app.connect("doctree-read", replace_blocks)
    return {"parallel_read_safe": True}
