"""The histories of all client processes, read into the entries that the checkers know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dcc.types import NO_VERSION, Version
from dcc.units import SECOND
from dcc.wire.messages import Status
from simulations.answers import Answer
from simulations.chaos.load import TIMEOUT_SECONDS
from simulations.history import End, Entry, History

VERBS = {
    "lookup": "get", "entry": "get", "get": "get", "get_many": "get", "put_ttl": "put",
    "put_many": "put", "delete_many": "delete", "get_or_put": "put",
}  # fmt: skip
"What the checkers call a client's call; others have the same name."
W = {"quorum": 0}
SEVERAL = ("scan", "get_or_put")
"Calls that make several of them, so that the time-out is not theirs."
FAR_NS = 3_600 * SECOND


def read_histories(folder: Path) -> History:
    """Return every call of every client in `folder`."""
    found: History = []
    for file in sorted(folder.glob("*.jsonl")):
        life = int(file.stem.rpartition("-")[2])
        found += _read(file, life)
    return _with_versions(found)


def _read(file: Path, life: int) -> Iterator[Entry]:
    begun: dict[int, dict[str, Any]] = {}
    with file.open() as lines:
        for text in lines:
            line = _parsed(text)
            if line is None:
                continue  # Cut off as its process was killed.
            if "begin" in line:
                begun[line["begin"]] = line
            else:
                yield from _entries(begun.pop(line["end"]), line, life)
    for line in begun.values():
        yield from _entries(line, {"at": 0, "error": "ClientDied", "definite": False}, life)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return line


def _entries(began: dict[str, Any], ended: dict[str, Any], life: int) -> Iterator[Entry]:
    """Return one entry for each key of a call."""
    verb = began["verb"]
    allowed_ns = FAR_NS if verb in SEVERAL else int(TIMEOUT_SECONDS * SECOND)
    blank = Entry(
        client=began["client"], life=life, verb=VERBS.get(verb, verb), key=b"",
        w=W.get(began["w"], began["w"]), ttl_ms=int((began["ttl"] or 0) * 1_000),
        invoked_ns=began["at"], deadline_ns=began["at"] + allowed_ns,
        # Who was killed ended at that moment, or a little later.
        ended_ns=ended["at"] or began["at"] + 1,
        error=ended.get("error", ""), number=ended.get("number", 0),
    )  # fmt: skip
    for index, key in enumerate(began["keys"]):
        value = began["values"][index].encode() if began["values"] else b""
        yield _ended(replace(blank, key=key.encode(), value=value), verb, ended, index)


def _ended(entry: Entry, verb: str, ended: dict[str, Any], index: int) -> Entry:
    """Return an entry with how it ended.

    What was done without a word of its version may have been done at any: such a call is unknown.
    """
    if entry.error:
        harmless = entry.verb in ("get", "scan")
        entry.end = End.FAILED if harmless or ended["definite"] else End.UNKNOWN
    elif verb == "scan":
        entry.end, entry.status = End.OK, "listed"
        entry.listed = tuple(key.encode() for key in ended["listed"])
    elif verb == "get_or_put" and ended["found"][0] == entry.value.decode():
        entry.end = End.UNKNOWN
    elif "found" in ended:
        _found(entry, ended, index)
    elif verb == "put_many":
        entry.end = End.UNKNOWN
        entry.error = "InPart" if entry.key.decode() in ended["failed"] else ""
    elif ended["status"] == "not done":
        entry.end, entry.status = End.OK, "not done"
    else:
        entry.status, entry.version = "done", parse_version(ended.get("version", ""))
        entry.end = End.OK if entry.version != NO_VERSION else End.UNKNOWN
    return entry


def _found(entry: Entry, ended: dict[str, Any], index: int) -> None:
    entry.verb, entry.value, entry.end = "get", b"", End.OK
    value = ended["found"][index]
    entry.found = value.encode() if value is not None else None
    entry.status = ended.get("status", "unsure" if value is None else "hit")
    entry.version = parse_version(ended.get("version", ""))
    if entry.version != NO_VERSION:
        entry.answer = answer(entry, ended.get("node", ""), leads=ended.get("confirmed", True))


def answer(entry: Entry, node: str, *, leads: bool) -> Answer:
    """Return who gave the answer of a hit, as far as it can be seen from outside."""
    return Answer(node, entry.ended_ns, entry.key, Status.HIT, entry.version, leads)


def parse_version(text: str) -> Version:
    """Return the version of a text; NO_VERSION for none."""
    return Version.parse(text) if text else NO_VERSION


def versions_of(history: Iterable[Entry]) -> dict[bytes, list[Version]]:
    """Return under which versions each value was seen; keys that are touched are left out."""
    found: dict[bytes, list[Version]] = {}
    for entry in history:
        value = entry.value if entry.verb == "put" else entry.found
        if value and entry.version != NO_VERSION and entry.key[:1] != b"t":
            versions = found.setdefault(value, [])
            if entry.version not in versions:
                versions.append(entry.version)
    return found


def _with_versions(history: History) -> History:
    """Give calls that were told no version the one under which their value was read later."""
    known = versions_of(history)
    for entry in history:
        versions = known.get(entry.found or entry.value, ())
        if entry.version != NO_VERSION or len(versions) != 1:
            continue
        if entry.found is not None or (entry.end is End.UNKNOWN and not entry.error):
            entry.version, entry.end = versions[0], End.OK
            entry.status = entry.status or "done"
    return history
