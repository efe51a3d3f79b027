"""What the demonstration shows while it runs: a few lines that refresh, or one line a second.

On a terminal the last lines are drawn over; what happened scrolls away above them. When output is
piped, or the terminal is too simple, each second gives one plain line.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from dcc.demo.tally import Tally, quantile

PLAIN_SECONDS = 1.0
LIVE_SECONDS = 0.25
CLEAR_BELOW = "\x1b[J"
BAR_WIDTH = 24


@dataclass(slots=True)
class Picture:
    """What is to be seen at one moment."""

    seconds: float
    "Since the start."
    phase: str
    recent: Tally
    "Of about the last second."
    recent_seconds: float
    total: Tally
    members: Mapping[str, str] = field(default_factory=dict)
    "Name -> standing."
    whole_share: float | None = None
    "Share of the pages whose copies are complete; None while nobody looks."


class Screen:
    """Draws pictures and announces events on a text stream."""

    def __init__(self, out: IO[str], *, terminal: bool) -> None:
        self._out, self._terminal = out, terminal
        self._drawn = 0
        "Lines of the picture that stand at the bottom now."
        self._due = 0.0

    def announce(self, seconds: float, text: str) -> None:
        """Write what happened as a line that stays."""
        self.write(f"{seconds:5.1f} s  {text}\n")
        self._due = 0.0

    def write(self, text: str) -> None:
        """Write lines that stay, as they are."""
        self._out.write(self._wiped() + text)
        self._out.flush()

    def show(self, picture: Picture) -> None:
        """Draw the picture, unless the last one is still fresh."""
        if picture.seconds < self._due:
            return
        if self._terminal:
            self._due = picture.seconds + LIVE_SECONDS
            self._draw(block(picture))
        else:
            self._due = picture.seconds + PLAIN_SECONDS
            self.write(line(picture) + "\n")

    def _draw(self, lines: Sequence[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        # In one piece, so that nobody sees the lines gone.
        self.write("".join(f"{one[:width]}\n" for one in lines))
        self._drawn = len(lines)

    def _wiped(self) -> str:
        """Return what clears the picture at the bottom and puts the cursor where it began."""
        if not self._drawn:
            return ""
        up, self._drawn = f"\x1b[{self._drawn}A", 0
        return f"{up}{CLEAR_BELOW}"


def block(picture: Picture) -> list[str]:
    """Return the lines of the refreshing picture."""
    now, total = picture.recent, picture.total
    lines = [
        "",
        f"  {picture.seconds:5.1f} s   {picture.phase}",
        f"  requests    {rate(picture):6.0f}/s     hits {now.hit_ratio:6.1%}     "
        f"served {total.served}   failed {total.failed}   wrong {total.wrong}",
        f"  from cache  p50 {ms(quantile(now.hit_us, 0.5))}   p99 {ms(quantile(now.hit_us, 0.99))}",
        f"  rendered    p50 {ms(quantile(now.render_us, 0.5))}   "
        f"p99 {ms(quantile(now.render_us, 0.99))}   {now.misses} pages",
        f"  members     {standings(picture.members)}",
    ]
    if picture.whole_share is not None:
        lines.append(f"  copies      {bar(picture.whole_share)} of the pages are whole")
    return lines


def line(picture: Picture) -> str:
    """Return the picture as one line."""
    now, total = picture.recent, picture.total
    copies = "" if picture.whole_share is None else f"  copies {picture.whole_share:.0%}"
    return (
        f"{picture.seconds:5.1f} s  {rate(picture):5.0f}/s  hits {now.hit_ratio:6.1%}  "
        f"cache p50 {ms(quantile(now.hit_us, 0.5))} p99 {ms(quantile(now.hit_us, 0.99))}  "
        f"render p50 {ms(quantile(now.render_us, 0.5))}  "
        f"failed {total.failed}  wrong {total.wrong}  {standings(picture.members)}{copies}"
    )


def rate(picture: Picture) -> float:
    """Return requests per second of late."""
    return (picture.recent.served + picture.recent.failed) / max(0.1, picture.recent_seconds)


def standings(members: Mapping[str, str]) -> str:
    """Return the members and how they stand.

    >>> standings({"node-2": "alive", "node-1": "dead"})
    'node-1 DEAD, node-2 alive'
    """
    return ", ".join(
        f"{name} {standing if standing == 'alive' else standing.upper()}"
        for name, standing in sorted(members.items())
    )


def ms(microseconds: int) -> str:
    """Return microseconds as milliseconds of fixed width; 0 stands for no measurement.

    >>> ms(1234), ms(0)
    ('   1.23 ms', '         -')
    """
    return f"{microseconds / 1000:7.2f} ms" if microseconds else f"{'-':>10}"


def bar(share: float) -> str:
    """Return a share between 0 and 1 as a bar with its percentage.

    >>> bar(0.5)
    '[############............]  50%'
    """
    full = int(share * BAR_WIDTH)
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {share:4.0%}"
