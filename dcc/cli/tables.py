"""Output for people and for programs: tables of plain text, sizes and spans, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from dcc.figures import Figure

WIDTH = 80


def table(rows: Sequence[Sequence[str]], *, left: int = 1, width: int = WIDTH) -> str:
    """Return `rows` in aligned columns, the first `left` ones to the left, the others right.

    The first column is cut in its middle where the line would be wider than `width`; columns
    that are empty but for their heading are left out.

    >>> print(table([("NAME", "OWNS", "ZONE"), ("a", "5%", ""), ("bcd", "12%", "")]))
    NAME  OWNS
    a       5%
    bcd    12%
    """
    keep = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    cells = [[row[i] for i in keep] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(keep))]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = max(4, min(widths[0], width - rest))
    lines = []
    for row in cells:
        parts = [
            (cut(text, wide) if i == 0 else text).ljust(wide)
            if keep[i] < left
            else text.rjust(wide)
            for i, (text, wide) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def cut(text: str, width: int) -> str:
    """Return `text` in at most `width` characters: the end of an address tells it apart.

    >>> cut("cache-7.example.internal:6740", 14)
    'cache…nal:6740'
    """
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 5
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def amount(number: float) -> str:
    """Return a count in four characters or so.

    >>> [amount(n) for n in (0, 950, 12_345, 3_200_000)]
    ['0', '950', '12.3k', '3.2M']
    """
    return _scaled(number, 1000, ("", "k", "M", "G", "T"))


def size(count_bytes: float) -> str:
    """Return a size in powers of 1024.

    >>> size(268_435_456)
    '256M'
    """
    return _scaled(count_bytes, 1024, ("B", "K", "M", "G", "T"))


def span(seconds: float) -> str:
    """Return a duration in its one or two leading units.

    >>> [span(s) for s in (0.0004, 0.25, 7, 200, 7_300, 200_000)]
    ['0.4ms', '250ms', '7s', '3m', '2h', '2d']
    """
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:.0f}s"


def share(ratio: float) -> str:
    """Return a ratio as a percentage.

    >>> share(0.3333)
    '33.3%'
    """
    return f"{ratio:.1%}" if ratio < 0.9995 else "100%"


def figure(what: Figure, value: float) -> str:
    """Return a figure with its name, in the form that its unit asks for.

    >>> from dcc.figures import BY_PATH
    >>> figure(BY_PATH["memory_limit_bytes"], 268_435_456)
    'memory limit 256M'
    """
    form = {"bytes": size, "seconds": span, "ratio": share}.get(what.unit, str)
    name = what.name.removesuffix("_bytes").removesuffix("_seconds").removeprefix("bytes_")
    return f"{name.replace('_', ' ')} {form(value)}"


def show(text: str) -> None:
    """Print for people."""
    sys.stdout.write(text + "\n")


def show_json(value: object) -> None:
    """Print for programs: one object, keys in their order."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while number >= base and power < len(units) - 1:
        number /= base
        power += 1
    text = f"{number:.1f}" if number < 100 else f"{number:.0f}"
    return text.removesuffix(".0") + units[power]
