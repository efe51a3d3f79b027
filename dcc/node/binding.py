"""What is settled once, before a node runs: which addresses it binds, and its seeds.

This is the only place where a node waits for names, and it does not wait for long.
"""

from __future__ import annotations

import errno
import socket as net
from collections.abc import Iterable, Sequence

import zmq

from dcc import descriptors
from dcc.errors import ConfigError
from dcc.node.options import Address
from dcc.resolve import is_numeric, look_up_all

RESOLVE_TIMEOUT_S = 2.0
"Bound of all look-ups of seeds at start; those that are late are asked by name."
BIND_TIMEOUT_S = 10.0
"Bound of the look-up of a name to bind, without which there is no node."
SKIPPED = (errno.EADDRNOTAVAIL, errno.ENODEV, errno.EAFNOSUPPORT)
"Why an address of a name may be left out: it is another machine's, or of a family not had here."


def bind(
    socket: zmq.Socket[bytes], address: Address, option: str
) -> tuple[Address, list[net.socket]]:
    """Bind every address of this machine that `address` means; return it with the port in use.

    The list has the listening sockets, which libzmq accepts from as well. `localhost` may mean ::1
    and 127.0.0.1, and a peer that connects to either means this node.

    Raises:
        ConfigError: none of them could be bound, or one is in use.
    """
    listeners: list[net.socket] = []
    port, reason = address.port, "no address of that name is known"
    for host in _hosts(address):
        try:
            listeners.append(_listen(socket, host, port))
        except OSError as error:  # A ZMQError is one, too.
            reason = _reason(error)
            if error.errno not in SKIPPED:
                break
        else:
            port, reason = listeners[-1].getsockname()[1], ""
    if reason and (not listeners or "in use" in reason):
        for listener in listeners:
            listener.close()
        raise ConfigError(f"--{option}: cannot bind {address}: {reason}")
    return Address(address.host, port), listeners


def _listen(socket: zmq.Socket[bytes], host: str, port: int) -> net.socket:
    """Let libzmq accept from a socket of our own making, whose descriptor we keep."""
    family = net.AF_INET6 if ":" in host else net.AF_INET
    with net.socket(family, net.SOCK_STREAM) as made:
        made.setblocking(False)
        made.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
        if family == net.AF_INET6:
            made.setsockopt(net.IPPROTO_IPV6, net.IPV6_V6ONLY, int(host != "::"))
        made.bind(("0.0.0.0" if host == "*" else host, port))
        made.listen(descriptors.backlog())
        kept = made.dup()
        try:
            _accept_from(socket, made)
        except zmq.ZMQError:
            kept.close()
            raise
        return kept


def _accept_from(socket: zmq.Socket[bytes], listener: net.socket) -> None:
    """Give libzmq a listening socket, which it closes one day."""
    socket.setsockopt(zmq.USE_FD, listener.fileno())
    try:
        # libzmq goes by the socket.
        socket.bind(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        socket.setsockopt(zmq.USE_FD, -1)
    listener.detach()


def rebind(socket: zmq.Socket[bytes], listeners: Sequence[net.socket]) -> None:
    """End all connections that came in by `listeners`, and go on accepting from them.

    Peers that may come back do so by themselves.
    """
    for listener in listeners:
        host, port = listener.getsockname()[:2]
        try:
            socket.unbind(f"tcp://{Address(host, port)}")
        except zmq.ZMQError:  # It was not bound any more.
            pass
        _accept_from(socket, listener.dup())


def _hosts(address: Address) -> list[str]:
    """Return the numeric hosts to bind: libzmq binds no names."""
    if address.wildcard or is_numeric(str(address)):
        return [address.host]
    found = look_up_all([str(address)], BIND_TIMEOUT_S)[str(address)]
    return [Address.parse(one).host for one in found]


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address in use"
    return (error.strerror or str(error)).lower()


def expand_seeds(seeds: Iterable[Address], own: Sequence[str]) -> tuple[str, ...]:
    """Return the seeds for the core: numeric addresses first, then the names themselves.

    The numeric ones let the core see whether it is a seed itself: any of `own` is spelled like
    the first of them. The names stay, since the DNS may know more nodes by the next attempt.
    """
    names = [str(seed) for seed in seeds]
    looked_up = look_up_all([name for name in names if not is_numeric(name)], RESOLVE_TIMEOUT_S)
    mine = set(own)
    for address in own:
        found = looked_up.get(address, ())
        if len(found) == 1:  # A name with several addresses means other nodes, too.
            mine.update(found)
    expanded: list[str] = []
    for name in names:
        expanded += looked_up.get(name, [name])
    expanded = [own[0] if address in mine else address for address in expanded]
    return tuple(dict.fromkeys(expanded + [name for name in looked_up if name not in mine]))
