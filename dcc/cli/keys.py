"""Commands about one key: get, put, delete, entry."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from typing import TYPE_CHECKING, Any

from dcc import output
from dcc.cli import tables
from dcc.client.results import Entry

if TYPE_CHECKING:
    from dcc import Client

OK, NOT_FOUND = 0, 1


def get(client: Client, options: argparse.Namespace) -> int:
    """Print the value's bytes as they are; exit code 1 if there is none."""
    found = client.lookup(options.key, r=options.r)
    if options.json:
        tables.show_json(
            {"key": options.key, "status": found.status, "version": _text(found.version)}
            | value_fields(found.value)
        )
    elif found.value is not None:
        sys.stdout.buffer.write(found.value)
    else:
        unsure = " (unsure: not every holder could be asked)" if found.status == "unsure" else ""
        output.complain(f"dcc: no such key{unsure}")
    return NOT_FOUND if found.value is None else OK


def put(client: Client, options: argparse.Namespace) -> int:
    """Store the argument, or all of standard input; print the version."""
    value = sys.stdin.buffer.read() if options.value == "-" else os.fsencode(options.value)
    version = client.put(options.key, value, ttl=options.ttl, w=options.w)
    if options.json:
        tables.show_json({"key": options.key, "version": str(version)})
    else:
        tables.show(f"stored, version {version}")
    return OK


def delete(client: Client, options: argparse.Namespace) -> int:
    """Delete the key; exit code 1 if it was not there."""
    deleted = client.delete(options.key)
    if options.json:
        tables.show_json({"key": options.key, "deleted": deleted})
    else:
        tables.show("deleted" if deleted else "no such key")
    return OK if deleted else NOT_FOUND


def entry(client: Client, options: argparse.Namespace) -> int:
    """Print what every owner holds; exit code 1 unless all hold the same value."""
    held = client.inspect(options.key)
    owners = client.topology().owners(options.key)
    names = [*owners, *sorted(set(held) - set(owners))]
    answers = {name: held.get(name, "no answer") for name in names}
    if options.json:
        tables.show_json(
            {"key": options.key, "owners": owners}
            | {"held": {name: _entry_fields(answer) for name, answer in answers.items()}}
        )
    else:
        tables.show(_side_by_side(answers))
    versions = {
        answer.version if isinstance(answer, Entry) else None for answer in answers.values()
    }
    agree = len(versions) == 1 and None not in versions
    if not agree and not options.json:
        found = any(isinstance(answer, Entry) for answer in answers.values())
        tables.show("the owners do not agree (yet)" if found else "no such key")
    return OK if agree else NOT_FOUND


def _side_by_side(answers: dict[str, Any]) -> str:
    rows = [("OWNER", "VERSION", "AGE", "EXPIRES", "SIZE", "VALUE")]
    for name, answer in answers.items():
        if isinstance(answer, Entry):
            left = "never"
            if answer.expires_at is not None:
                left = "in " + tables.span(max(0.0, answer.expires_at - _written_at(answer)))
            rows.append(
                (name, str(answer.version), tables.span(answer.age), left,
                 tables.size(len(answer.value)), _preview(answer.value))
            )  # fmt: skip
        else:
            rows.append((name, answer or "nothing", "", "", "", ""))
    return tables.table(rows, left=2, width=120)


def _written_at(one: Entry) -> float:
    """Return now by the cluster's clock: when it was written, and how long ago that was."""
    return (one.version.stamp >> 16) / 1000 + one.age


def _preview(value: bytes) -> str:
    text = value[:17].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "·" for c in text[:16]) + "…" * (len(value) > 16)


def _entry_fields(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, Entry):
        return {"state": answer or "nothing"}
    return {
        "state": "value",
        "version": str(answer.version),
        "expires_at": answer.expires_at,
        "age": answer.age,
        "confirmed": answer.confirmed,
    } | value_fields(answer.value)


def value_fields(value: bytes | None) -> dict[str, str | None]:
    """Return how JSON shows a value: as `value` where it is text, else as `value_base64`."""
    if value is None:
        return {"value": None}
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}


def _text(version: object) -> str | None:
    return None if version is None else str(version)
