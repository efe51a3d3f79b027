"""Key files: what is written is read, what is wrong is refused, and the text says which file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dcc.cli.main import main
from dcc.errors import ConfigError
from dcc.keys import (
    FILE_BYTES_MAX,
    KEYS_MAX,
    Directory,
    Keyring,
    Public,
    checked_name,
    make_pair,
    read_pair,
    read_public,
    write_pair,
    write_public,
)
from dcc.types import Identity, Role, node_key

BOTH = (Role.CLIENT, Role.ADMIN)
PREFIXES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=4)


def keys(directory: Path, *words: str) -> int:
    return main(["keys", *words, "--keys", str(directory)])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "keys"
    assert keys(directory, "new", "n1", "--role", "node") == 0
    assert keys(directory, "new", "app", "--role", "client", "--prefix", "a:") == 0
    return directory


@given(prefixes=PREFIXES, read_only=st.booleans())
@example(prefixes=['\x7f\x00"\\'], read_only=True)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, prefixes: list[str], *, read_only: bool
) -> None:
    file = tmp_path_factory.mktemp("public") / "x.pub"
    public = Public((make_pair().public.decode(),), read_only, tuple(prefixes))
    write_public(file, public)
    assert read_public(file) == public


def test_who_is_allowed_is_what_the_files_say(made: Path) -> None:
    allowed = Directory(made).allowed()
    assert set(allowed.values()) == {
        Identity(Role.NODE, "n1", node_key("n1")),
        Identity(Role.CLIENT, "app", prefixes=(b"a:",)),
    }
    public = read_public(made / "nodes/n1.pub").keys[0]
    assert allowed[public].role is Role.NODE


def test_private_files_are_the_owners_alone(made: Path) -> None:
    for file in (made / "server.secret", made / "secrets/app.secret"):
        assert file.stat().st_mode & 0o777 == 0o600
        for mode in (0o640, 0o604, 0o610):
            file.chmod(mode)
            with pytest.raises(ConfigError, match="chmod 600"):
                read_pair(file)


def test_what_everybody_may_write_lets_nobody_in(made: Path) -> None:
    (made / "clients/app.pub").chmod(0o646)
    with pytest.raises(ConfigError, match="everybody may write"):
        Directory(made).allowed()
    (made / "clients/app.pub").chmod(0o644)
    (made / "clients").chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write"):
        Directory(made).allowed()


def test_a_directory_that_everybody_may_write_is_refused_by_clients_too(made: Path) -> None:
    made.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write"):
        Keyring(made, "app", (Role.CLIENT,))
    with pytest.raises(ConfigError, match="everybody may write"):
        Directory(made).allowed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_as_kubernetes_mounts_it_is_read_and_a_strangers_directory_in_it_is_not(
    made: Path, tmp_path: Path
) -> None:
    """All is a link into a directory that is replaced as a whole; the mount has mode 1777."""
    mount = tmp_path / "mount"
    mount.mkdir()
    made.rename(mount / "..2026_01_01")
    (mount / "..data").symlink_to("..2026_01_01")
    for name in ("server.secret", "secrets", "servers", "nodes", "clients"):
        (mount / name).symlink_to(f"..data/{name}")
    mount.chmod(0o1777)
    assert Keyring(mount, "app", (Role.CLIENT,)).name == "app"
    before = Directory(mount).glance()
    (mount / "..2026_01_02").mkdir()
    for name in ("secrets", "servers", "nodes"):
        (mount / "..2026_01_01" / name).rename(mount / "..2026_01_02" / name)
    (mount / "..2026_01_01/server.secret").rename(mount / "..2026_01_02/server.secret")
    (mount / "..next").symlink_to("..2026_01_02")
    (mount / "..next").rename(mount / "..data")
    assert Directory(mount).glance() != before
    assert {who.name for who in Directory(mount).allowed().values()} == {"n1"}
    (mount / "admins").mkdir()
    os.chown(mount / "admins", 12_345, 12_345)
    with pytest.raises(ConfigError, match="everybody may write"):
        Directory(mount).allowed()


@pytest.mark.parametrize(
    "text",
    [
        "", "public = 5", "public = []", 'public = ["short"]', "public = [", 'x = "\xff"',
        'public = ["{key}"]\nread_only = 1', 'public = ["{key}"]\nprefixes = []',
        'public = ["{key}"]\nprefixes = [""]', 'public = ["{key}"]\nreadonly = true',
        'public = ["{key}", ' + '"{key}",' * KEYS_MAX + "]", "#" * (FILE_BYTES_MAX + 9),
    ],
)  # fmt: skip
def test_a_public_file_that_is_none_is_refused_by_name(made: Path, text: str) -> None:
    file = made / "clients/app.pub"
    file.write_text(text.replace("{key}", make_pair().public.decode()), "latin-1")
    with pytest.raises(ConfigError, match=r"clients/app\.pub"):
        Directory(made).allowed()


def test_one_key_is_not_two_peoples(made: Path) -> None:
    (made / "admins").mkdir()
    (made / "admins/eve.pub").write_bytes((made / "clients/app.pub").read_bytes())
    with pytest.raises(ConfigError, match=r"(app|eve)'s already"):
        Directory(made).allowed()


def test_a_pair_that_is_none_is_refused(made: Path) -> None:
    file = made / "secrets/app.secret"
    pair = make_pair()
    write_pair(file, pair._replace(public=make_pair().public), Role.CLIENT)
    with pytest.raises(ConfigError, match="no pair"):
        read_pair(file)
    file.write_text(file.read_text().replace('"client"', '"king"').replace("secret =", "secret ="))
    write_pair(file, pair, Role.CLIENT)
    file.write_text(file.read_text().replace('"client"', '"king"'))
    with pytest.raises(ConfigError, match="king"):
        read_pair(file)


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "x" * 129, "\n", "ä"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError):
        checked_name(name)


@pytest.mark.parametrize("name", ["a", "10.0.0.1:6740", "[::1]:6740", "cache-1.example:6740"])
def test_an_address_may_be_a_name(name: str) -> None:
    assert checked_name(name) == name


def test_whose_key_is_meant_must_be_clear(made: Path) -> None:
    assert Keyring(made, "", BOTH).name == "app"
    assert Keyring(made, "", (Role.NODE,)).name == "n1"
    with pytest.raises(ConfigError, match="for a node"):
        Keyring(made, "n1", BOTH)
    assert keys(made, "new", "olga", "--role", "admin") == 0
    with pytest.raises(ConfigError, match="2 private keys"):
        Keyring(made, "", BOTH)
    assert Keyring(made, "olga", BOTH).name == "olga"
    with pytest.raises(ConfigError, match=r"secrets/nobody\.secret"):
        Keyring(made, "nobody", BOTH)


def test_a_change_has_its_order(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(made, "use", "app") == 64
    assert keys(made, "rotate", "app") == 0
    assert keys(made, "rotate", "app") == 64, "the next key waits to be used"
    before = Keyring(made, "app", BOTH).credentials().own
    held = read_public(made / "clients/app.pub")
    assert len(held.keys) == 2
    assert keys(made, "use", "app") == 0
    assert Keyring(made, "app", BOTH).credentials().own != before
    assert keys(made, "retire", "app") == 0
    after = read_public(made / "clients/app.pub")
    assert after.keys == held.keys[1:]
    assert after.prefixes == ("a:",), "rights stay"
    assert keys(made, "new", "app", "--role", "client") == 64, "there is one"
    assert keys(made, "revoke", "app") == 0
    assert keys(made, "revoke", "app") == 64
    assert keys(made, "revoke", "server") == 64
    assert "dcc:" in capsys.readouterr().err


def test_a_name_has_one_role_and_loses_every_one(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.remove(made / "secrets/app.secret")  # It went to the application's machine.
    assert keys(made, "new", "app", "--role", "admin") == 64
    assert "clients/app.pub" in capsys.readouterr().err
    write_public(made / "admins/app.pub", Public((make_pair().public.decode(),)))
    assert keys(made, "revoke", "app") == 0
    assert {who.name for who in Directory(made).allowed().values()} == {"n1"}


def test_a_name_that_was_revoked_can_be_made_anew(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(made, "rotate", "app") == 0
    assert keys(made, "revoke", "app") == 0
    for left in ("secrets/app.secret", "secrets/app.next"):
        assert keys(made, "new", "app", "--role", "client") == 64
        assert f"{left} is there already" in capsys.readouterr().err
        os.remove(made / left)
    assert keys(made, "new", "app", "--role", "client") == 0


@pytest.mark.parametrize("name", ["server", "app"])
def test_steps_in_another_order_lock_nobody_out(made: Path, name: str) -> None:
    own = "server" if name == "server" else f"secrets/{name}"
    public = made / ("servers/server.pub" if name == "server" else f"clients/{name}.pub")

    def is_valid() -> bool:
        return read_pair(made / f"{own}.secret")[0].public.decode() in read_public(public).keys

    assert keys(made, "rotate", name) == 0
    assert keys(made, "retire", name) == 64, "the next key would go"
    assert keys(made, "use", name) == 0
    assert is_valid()
    assert keys(made, "retire", name) == 0
    assert keys(made, "rotate", name) == 0
    write_public(public, Public(read_public(public).keys[:1]))
    assert keys(made, "use", name) == 64, "nobody would accept it"
    assert is_valid()


def test_a_keyring_follows_its_files_and_bears_half_a_change(made: Path) -> None:
    ring = Keyring(made, "app", BOTH)
    before = ring.credentials()
    assert keys(made, "rotate", "app") == 0
    assert keys(made, "use", "app") == 0
    ring._looked_at = 0
    assert ring.credentials().own != before.own
    os.remove(made / "secrets/app.secret")
    ring._looked_at = 0
    assert ring.credentials().own != before.own


def test_an_export_has_what_is_needed_and_nothing_else(made: Path, tmp_path: Path) -> None:
    for name, files in (
        ("app", {"servers/server.pub", "secrets/app.secret"}),
        ("n1", {"servers/server.pub", "secrets/n1.secret", "server.secret", "nodes/n1.pub",
                "clients/app.pub"}),
    ):  # fmt: skip
        to = tmp_path / name
        assert keys(made, "export", name, str(to)) == 0
        found = {str(one.relative_to(to)) for one in to.rglob("*") if one.is_file()}
        assert found == files
    assert keys(made, "export", "app", str(tmp_path / "app")) == 64
    assert keys(made, "export", "server", str(tmp_path / "server")) == 64
