"""Every message of the protocol, in one append-only table.

Frozen dataclasses, valid by construction when they come from the codec. On the wire a message is
positional: `[tag, header…, field, field…]`; fields are appended with a default, never reordered,
and an older node ignores those it does not know. Golden bytes in the tests freeze this. What no
single field can tell, `fits` of a message checks; the codec asks it.

Client and node: Get, Write, GetMany, WriteMany, TopologyGet, StatsGet, Scan, Clear, Inspect,
SetReplicas, ConvergedGet, AuditGet and their replies. Node and node: the same ones forwarded
(hops = 1), Fetch, Replicate, CompareRoot, Compare, Pull, Nudge, StateGet, SettingsUpdate. Gossip
plane: Ping, Ack, PingReq, Nack, Rumors; Ping and PushPull also travel on the request plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from dcc.limits import BATCH_KEYS_MAX, BATCH_WRITES_MAX, GROUP_COUNT, SLOT_COUNT
from dcc.types import (
    FREE_CLAIM,
    NO_VERSION,
    NOT_HEARD,
    Claim,
    Member,
    Origin,
    Pace,
    Record,
    Settings,
    Version,
)
from dcc.wire import shapes as s
from dcc.wire.auditing import AuditGet as AuditGet
from dcc.wire.auditing import AuditReply as AuditReply
from dcc.wire.telling import StatsGet as StatsGet
from dcc.wire.telling import StatsReply as StatsReply
from dcc.wire.watching import Changes as Changes
from dcc.wire.watching import Watch as Watch
from dcc.wire.watching import Watched as Watched


class Status(IntEnum):
    """How a read ended."""

    HIT = 0
    MISS = 1
    "Authoritative: no holder has the key."
    UNSURE = 2
    "No value found, but not every holder could be asked."
    ELSEWHERE = 3
    "In replies of many only: this node cannot say alone; ask for this key singly."


class Op(IntEnum):
    """What a `Write` does."""

    PUT = 0
    ADD = 1
    REPLACE = 2
    DELETE = 3
    TOUCH = 4
    INCR = 5


class Outcome(IntEnum):
    """How a write ended."""

    DONE = 0
    NOT_DONE = 1
    """Decided at the primary: add found a value, replace, delete and touch found none (at the
    version expected), and so did an incr that makes no counter."""
    MAYBE = 2
    "Stored here, but fewer than w owners acknowledged in time."
    ELSEWHERE = 3
    "In replies of many only: nothing done here; write this key singly."


class Code(IntEnum):
    """Why a request was refused. All but MAYBE are definite: nothing happened."""

    OVERLOADED = 1
    QUORUM_NOT_REACHED = 2
    NOT_A_NUMBER = 3
    VALUE_TOO_LARGE = 4
    INVALID_KEY = 5
    NOT_READY = 6
    WRONG_CLUSTER = 7
    TOO_LATE = 8
    "Read after its `expires_at`; never executed."
    UNSUPPORTED_VERSION = 9
    CLOCK_SKEW = 10
    NOT_OWNER = 11
    "The node does not hold the slot in its own view, and the request was forwarded already."
    MAYBE = 12
    "The node restarted since the request was first sent: nobody knows."
    MALFORMED = 13
    NOT_ALLOWED = 14
    "Where keys are used: the sender's does not allow this."


# ------------------------------------------------------------------ client and node


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """Read one key. Answered by `GetReply` or `ErrorReply`; may be repeated anywhere."""

    SHAPE: ClassVar = (s.KEY, s.BOOL, s.U8, s.BOOL)
    key: bytes
    direct: bool = False
    "Answer as a holder, do not forward: the client found the primary silent or wants any."
    r: int = 1
    "Owners that must answer, this one included; 0 = quorum, 255 = all. The newest version wins."
    aside: bool = False
    "It found the primary silent: the other owners may have what that acknowledged; ask them too."


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReply:
    """Answers `Get`."""

    SHAPE: ClassVar = (s.ENUM(Status), s.VERSION, s.VALUE, s.MS, s.BOOL)
    status: Status
    version: Version
    "NO_VERSION unless a hit."
    value: bytes
    expires_at_ms: int
    "Cluster milliseconds, 0 = never."
    hot: bool = False
    "So many read this key that its owners should be asked in turn; told now and then only."


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Change one key. Answered by `WriteReply` or `ErrorReply`.

    May be repeated to the same boot of the same node with the same request id, which executes it
    once; never to another node once it may have arrived.
    """

    SHAPE: ClassVar = (
        s.ENUM(Op), s.KEY, s.VALUE, s.MS, s.U8, s.BOOL, s.U64, s.VERSION, s.I64, s.I64, s.U64,
        s.BOOL,
    )  # fmt: skip
    op: Op
    key: bytes
    value: bytes = b""
    "PUT, ADD, REPLACE."
    ttl_ms: int = 0
    "0 = never expires. The primary makes it absolute. For INCR: of a counter made anew."
    w: int = 1
    "Owners that must acknowledge, the primary included; 0 = quorum, 255 = all."
    direct: bool = False
    "Coordinate as a holder, do not forward: the client found the primary silent."
    seen: int = 0
    "The largest stamp the client has seen; the new version exceeds it."
    expected: Version = NO_VERSION
    "REPLACE, DELETE: only if present at this version; NO_VERSION = any."
    delta: int = 0
    "INCR: added (negative for decr)."
    initial: int = 0
    "INCR: what an absent key counts as before delta is added."
    boot: int = 0
    "The boot of the node this was first sent to, once it is repeated; 0 = first sending."
    if_present: bool = False
    "INCR: an absent key stays absent, which is NOT_DONE; `initial` and `ttl_ms` say nothing then."


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReply:
    """Answers `Write`."""

    SHAPE: ClassVar = (s.ENUM(Outcome), s.VERSION, s.I64)
    outcome: Outcome
    version: Version
    "The version written; for NOT_DONE the one found, or NO_VERSION."
    number: int = 0
    "INCR: the new number."


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """Answers any request that was refused."""

    SHAPE: ClassVar = (s.ENUM(Code), s.TEXT, s.U64)
    code: Code
    text: str
    stamp: int = 0
    "CLOCK_SKEW: the refuser's stamp, from which a session continues."


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMany:
    """Read many keys that the client believes are this node's. May be repeated."""

    SHAPE: ClassVar = (s.KEYS, s.BOOL)
    keys: tuple[bytes, ...]
    direct: bool = False
    "Give what is held of keys that another node leads, too; of those that are not: ELSEWHERE."


@dataclass(frozen=True, slots=True, kw_only=True)
class GetManyReply:
    """Answers `GetMany` in one or more messages, cut at BATCH_BYTES."""

    SHAPE: ClassVar = (
        s.U32, s.FLAGS, s.tuple_of(s.VALUE, BATCH_KEYS_MAX), s.BOOL, s.STAMPS, s.KEYS,
    )  # fmt: skip
    first: int
    "Index into the request's keys of this message's first status."
    statuses: bytes
    "One `Status` a byte."
    values: tuple[bytes, ...]
    "One for each HIT, in order."
    last: bool
    stamps: tuple[int, ...] = ()
    "The stamp of each hit's version, in order; none from an older node."
    hot: tuple[bytes, ...] = ()
    "Keys among them that are hot, as `GetReply` says it."

    def fits(self) -> bool:
        """Return whether each byte is a status and each hit has its value, and its stamp if any."""
        known = max(self.statuses, default=0) <= max(Status)
        whole = self.statuses.count(Status.HIT) == len(self.values)
        return known and whole and len(self.stamps) in (0, len(self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteMany:
    """PUT or DELETE many keys that the client believes are this node's. Repeated like `Write`."""

    SHAPE: ClassVar = (
        s.ENUM(Op), s.tuple_of(s.ITEM, BATCH_WRITES_MAX), s.MS, s.U8, s.U64, s.U64, s.BOOL,
    )  # fmt: skip
    op: Op
    items: tuple[tuple[bytes, bytes], ...]
    "(key, value); the value is empty for DELETE."
    ttl_ms: int = 0
    w: int = 1
    seen: int = 0
    boot: int = 0
    versions: bool = False
    "The answer is to say each item's stamp."

    def fits(self) -> bool:
        """Return whether the operation is one of the two."""
        return self.op in (Op.PUT, Op.DELETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteManyReply:
    """Answers `WriteMany`."""

    SHAPE: ClassVar = (s.FLAGS, s.U64, s.tuple_of(s.U64, BATCH_KEYS_MAX))
    outcomes: bytes
    "One `Outcome` a byte, in the order of the request's items."
    stamp: int
    "The largest stamp written."
    stamps: tuple[int, ...] = ()
    """Where asked for: each item's, 0 where nothing was written. With the sender and boot of the
    answer's header they are the versions."""

    def fits(self) -> bool:
        """Return whether each byte is an outcome, and none or all of them have a stamp."""
        known = max(self.outcomes, default=0) <= max(Outcome)
        return known and len(self.stamps) in (0, len(self.outcomes))


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyGet:
    """Ask any node for its view. Answered by `Topology`; may be repeated."""

    SHAPE: ClassVar = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Answers `TopologyGet`: what a client needs to place keys itself."""

    SHAPE: ClassVar = (s.SETTINGS, s.MEMBERS, s.BOOL)
    settings: Settings
    members: tuple[Member, ...]
    "Those in the ring first; the dead and the left behind them, newest first, up to a frame."
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """List keys held in some slots. Answered by `ScanReply`; may be repeated."""

    SHAPE: ClassVar = (s.SLOTS, s.PREFIX, s.PREFIX)
    slots: tuple[int, ...]
    prefix: bytes
    after: bytes = b""
    "In the first slot, only keys above this one: the slot did not fit one reply."


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReply:
    """Answers `Scan`: keys of the first `done` slots, and of the next one up to its last key."""

    SHAPE: ClassVar = (s.U32, s.tuple_of(s.KEY, 65_536), s.SLOTS, s.SLOTS, s.SLOTS)
    done: int
    keys: tuple[bytes, ...]
    unsure: tuple[int, ...]
    "Slots among the done ones for which this node cannot speak alone: ask other owners too."
    old: tuple[int, ...] = ()
    "Slots of which others may have deleted keys without this node: ask again in a while."
    lacking: tuple[int, ...] = ()
    "Unsure slots of which this node may lack keys: a holder that lives was not compared with yet."


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Make everything written so far absent, everywhere. Answered by `ClearReply`."""

    SHAPE: ClassVar = (s.U64, s.MS)
    seen: int = 0
    issued_ms: int = 0
    """Cluster ms at which the caller asked, the same to each node asked: what was written more than
    40 ms later is spared. 0 = not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearReply:
    """Answers `Clear` when every live member has taken the stamp or the deadline came."""

    SHAPE: ClassVar = (s.U64, s.BOOL)
    stamp: int
    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Ask one node what it holds of a key, valueless records included. May be repeated."""

    SHAPE: ClassVar = (s.KEY,)
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectReply:
    """Answers `Inspect`."""

    SHAPE: ClassVar = (s.RECORDS, s.BOOL)
    records: tuple[Record, ...]
    "None or one."
    confirmed: bool
    "This node is the key's primary and in sync with every other holder."


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReplicas:
    """Set the number of copies in the whole cluster. Answered by `SettingsReply`; idempotent."""

    SHAPE: ClassVar = (s.COPIES, s.MS)
    replicas: int
    "Copies beyond the primary, 0..REPLICAS_MAX."
    issued_ms: int = 0
    "Cluster ms at which the caller asked: what was set later stays. 0 = not known."


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsReply:
    """Answers `SetReplicas` when every live member has taken it or the deadline came."""

    SHAPE: ClassVar = (s.SETTINGS, s.BOOL)
    settings: Settings
    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergedGet:
    """Has the cluster converged? Answered by `ConvergedReply`; any node asks all the others."""

    SHAPE: ClassVar = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergedReply:
    """Answers `ConvergedGet`: one view, all copies in their places, nobody behind."""

    SHAPE: ClassVar = (s.BOOL, s.U32, s.tuple_of(s.TEXT, 64))
    converged: bool
    under_replicated: int
    "Copies that are missing or not known to be complete, summed over all slots."
    reasons: tuple[str, ...]
    "For people: what is not converged yet; empty if converged."


# ------------------------------------------------------------------ node and node


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A coordinator's question: what do you hold of this key? Never forwarded."""

    SHAPE: ClassVar = (s.KEY, s.VERSION, s.tuple_of(s.ORIGIN, 65_536), s.tuple_of(s.U64, 65_536))
    key: bytes
    version: Version = NO_VERSION
    "Of the value that the asker holds; NO_VERSION if it holds none."
    origins: tuple[Origin, ...] = ()
    "What it has seen of the slot, if it holds a value: origins, and up to which stamp of each."
    stamps: tuple[int, ...] = ()

    def fits(self) -> bool:
        """Return whether there is a stamp for each origin."""
        return len(self.origins) == len(self.stamps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReply:
    """Answers `Fetch`, from what is held."""

    SHAPE: ClassVar = (s.RECORDS, s.BOOL, s.BOOL)
    records: tuple[Record, ...]
    "None or one, possibly without a value."
    sure: bool = True
    "Whether the sender is in sync with every live holder, so that it knows what it once knew."
    gone: bool = False
    """Nothing is held, but the asker's version was seen here, and so was something that the asker
    has not seen and that is forgotten: the value was deleted or replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """Newest records of a coordinator for another holder. Answered by `ReplicateAck`.

    Idempotent: the store keeps the larger version. Repeated until acknowledged or given up, when
    the exchange fills the gap.
    """

    SHAPE: ClassVar = (s.U64, s.RECORDS)
    seq: int
    "Number of the batch on the stream from this boot to that node."
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicateAck:
    """Answers `Replicate`: everything of the batch is merged."""

    SHAPE: ClassVar = (
        s.U64,
        s.tuple_of(s.U32, BATCH_KEYS_MAX),
        s.tuple_of(s.U32, BATCH_KEYS_MAX),
    )
    seq: int
    moved: tuple[int, ...]
    "Indexes of records whose slot the acker neither owns nor stands in for: stored, not counted."
    ignored: tuple[int, ...] = ()
    "Indexes of records that the acker's clock has seen, but that it does not hold: not counted."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One step of an exchange: send me what my clocks lack. Answered by `PullReply`.

    Stateless for the answerer; may be repeated, and lost.
    """

    SHAPE: ClassVar = (
        s.tuple_of(s.ORIGIN, 65_536), s.tuple_of(s.SLOT_ASK, SLOT_COUNT),
        s.tuple_of(s.SLOT_OWED, SLOT_COUNT),
    )  # fmt: skip
    origins: tuple[Origin, ...]
    "The table that clocks index."
    slots: tuple[s.SlotAsk, ...]
    owed: tuple[s.SlotOwed, ...] = ()
    "Of which of them also what the clock covers is asked for."

    def fits(self) -> bool:
        """Return whether every clock and span indexes the table."""
        return s.clocks_fit(self.origins, (slot.clock for slot in self.slots)) and s.spans_fit(
            self.origins, (slot.spans for slot in self.slots)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReply:
    """Answers `Pull` with at most BATCH_BYTES of records (one larger one travels alone).

    Slots that are not mentioned did not fit: ask again.
    """

    SHAPE: ClassVar = (
        s.tuple_of(s.ORIGIN, 65_536), s.tuple_of(s.SLOT_ANSWER, SLOT_COUNT), s.RECORDS, s.BOOL,
        s.tuple_of(s.SLOT_GRAVES, SLOT_COUNT),
    )  # fmt: skip
    origins: tuple[Origin, ...]
    slots: tuple[s.SlotAnswer, ...]
    records: tuple[Record, ...]
    serving: bool = False
    "The sender serves clients as well: do not ask it too often."
    buried: tuple[s.SlotGraves, ...] = ()
    "What the asker never saw of these slots and was forgotten here."

    def fits(self) -> bool:
        """Return whether every clock and span indexes the table, and graves are whole."""
        if any(len(one.graves) % 4 for one in self.buried):
            return False
        return s.clocks_fit(self.origins, (slot.clock for slot in self.slots)) and s.spans_fit(
            self.origins, (slot.spans for slot in self.slots)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Which of these slots do we see differently? Answered by `CompareReply`; may be repeated.

    The first step of an exchange: clocks are swapped by `Pull` for those only that differ.
    """

    SHAPE: ClassVar = (s.SLOTS, s.tuple_of(s.U64, SLOT_COUNT))
    slots: tuple[int, ...]
    digests: tuple[int, ...]
    "One for each slot: a hash of clock, notes and forget mark; 0 = nothing was ever seen."

    def fits(self) -> bool:
        """Return whether each slot has its digest."""
        return len(self.slots) == len(self.digests)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareReply:
    """Answers `Compare`: all that was asked about is equal, save these."""

    SHAPE: ClassVar = (s.SLOTS,)
    differ: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRoot:
    """Have we seen the same of all slots that both own? Answered by `CompareRootReply`."""

    SHAPE: ClassVar = (s.U64,)
    root: int
    "Of the tree over the slots that sender and receiver own; see `dcc/replication/merkle.py`."


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRootReply:
    """Answers `CompareRoot`: nothing if the roots are equal, else the level below."""

    SHAPE: ClassVar = (s.tuple_of(s.U64, GROUP_COUNT),)
    groups: tuple[int, ...]
    "Empty = equal. Else one digest for each group of slots."

    def fits(self) -> bool:
        """Return whether it is no group or all of them."""
        return len(self.groups) in (0, GROUP_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateGet:
    """How far is your share of the cluster? Answered by `State`; may be repeated."""

    SHAPE: ClassVar = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Answers `StateGet`: what one node knows of its own copies."""

    SHAPE: ClassVar = (s.BOOL, s.U32, s.U32, s.U32, s.U64)
    ready: bool
    "Joined, serving, not leaving."
    unsynced: int
    "Slots owned here whose copy is not known to be complete."
    leftovers: int
    "Slots held here that belong to others, who have not all taken them over."
    lag_ms: int
    "Age of the oldest write that a live owner has not acknowledged to this node."
    settings: int
    "Stamp of the number of copies: unequal while a change still spreads."


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """Tell an owner that the sender holds slots which the owner should pull from it. One way."""

    SHAPE: ClassVar = (s.SLOTS,)
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Tell an owner which of its keys the sender has served to readers. One way; may be lost."""

    SHAPE: ClassVar = (s.KEYS,)
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsUpdate:
    """Spread the cluster's settings at once. Answered by `SettingsAck`; idempotent."""

    SHAPE: ClassVar = (s.SETTINGS,)
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsAck:
    """Answers `SettingsUpdate` with the merged settings of the receiver."""

    SHAPE: ClassVar = (s.SETTINGS,)
    settings: Settings


# ------------------------------------------------------------------ membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Are you alive? Answered by `Ack` with the same seq on the plane it came by."""

    SHAPE: ClassVar = (s.U64, s.U64, s.MEMBERS, s.U64, s.CLAIM, s.PACE)
    seq: int
    target: int
    "Node key of whom the sender means; others ignore it."
    rumors: tuple[Member, ...] = ()
    root: int = 0
    "Of the tree over the slots that sender and target own; 0 = not known."
    clock: Claim = FREE_CLAIM
    "Cluster time as the sender sees it, relative to the header's `at`."
    pace: Pace = Pace.UNKNOWN
    "How fast the sender finds the target, by its earlier pings."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Answers `Ping`, or relays such an answer to who asked by `PingReq`."""

    SHAPE: ClassVar = (s.U64, s.MEMBERS, s.U64, s.CLAIM, s.I64)
    seq: int
    rumors: tuple[Member, ...] = ()
    root: int = 0
    "As in `Ping`, of sender and receiver."
    clock: Claim = FREE_CLAIM
    "As in `Ping`."
    heard_ms: int = NOT_HEARD
    "The sender's own clock minus the `at` of the receiver's ping, when that was taken."


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReq:
    """Please ping `target` for me. Answered by `Ack` or, at the end of the time-out, `Nack`."""

    SHAPE: ClassVar = (s.U64, s.U64, s.MEMBERS)
    seq: int
    target: int
    rumors: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """The helper is fine but heard nothing from the target."""

    SHAPE: ClassVar = (s.U64,)
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rumors:
    """Gossip without a question. Not answered, except that a stale claim earns the newer one."""

    SHAPE: ClassVar = (s.MEMBERS, s.SETTINGS)
    rumors: tuple[Member, ...]
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPull:
    """My whole view; send me yours. Also how a node joins. Answered by `PushPullReply`."""

    SHAPE: ClassVar = (s.MEMBERS, s.SETTINGS, s.BOOL)
    members: tuple[Member, ...]
    "The sender first."
    settings: Settings
    joining: bool = False
    "Answer on the connection it came by: the sender has not joined yet, or asks by address."


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPullReply:
    """Answers `PushPull` with the view after merging."""

    SHAPE: ClassVar = (s.MEMBERS, s.SETTINGS, s.CLAIM)
    members: tuple[Member, ...]
    "The sender first."
    settings: Settings
    clock: Claim = FREE_CLAIM
    "As in `Ping`: a node that joins judges the settings by the sender's time."


Message = (
    Get | GetReply | Write | WriteReply | ErrorReply | GetMany | GetManyReply | WriteMany
    | WriteManyReply | TopologyGet | Topology | StatsGet | StatsReply | Scan | ScanReply | Clear
    | ClearReply | Inspect | InspectReply | Fetch | FetchReply | Replicate | ReplicateAck | Pull
    | PullReply | Nudge | SettingsUpdate | SettingsAck | Ping | Ack | PingReq | Nack | Rumors
    | PushPull | PushPullReply | Compare | CompareReply | CompareRoot | CompareRootReply
    | SetReplicas | SettingsReply | ConvergedGet | ConvergedReply | AuditGet | AuditReply
    | StateGet | State | Served | Watch | Watched | Changes
)  # fmt: skip

# Tags are the protocol: append only, never renumber, never reuse.
WIRE: dict[int, type[Any]] = {
    1: Get, 2: GetReply, 3: Write, 4: WriteReply, 5: ErrorReply, 6: GetMany, 7: GetManyReply,
    8: WriteMany, 9: WriteManyReply, 10: TopologyGet, 11: Topology, 12: StatsGet, 13: StatsReply,
    14: Scan, 15: ScanReply, 16: Clear, 17: ClearReply, 18: Inspect, 19: InspectReply,
    20: SetReplicas, 21: SettingsReply, 22: ConvergedGet, 23: ConvergedReply, 24: AuditGet,
    25: AuditReply, 26: Watch, 27: Watched,
    32: Fetch, 33: FetchReply, 34: Replicate, 35: ReplicateAck, 36: Pull, 37: PullReply,
    38: Nudge, 39: SettingsUpdate, 40: SettingsAck,
    41: Compare, 42: CompareReply, 43: CompareRoot, 44: CompareRootReply, 45: StateGet, 46: State,
    47: Served,
    64: Ping, 65: Ack, 66: PingReq, 67: Nack, 68: Rumors, 69: PushPull, 70: PushPullReply,
    71: Changes,
}  # fmt: skip
TAG: dict[type[Any], int] = {cls: tag for tag, cls in WIRE.items()}
assert len(TAG) == len(WIRE), "one tag per message"
