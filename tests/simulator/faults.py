"""What may go wrong in one seed. Each seed draws its own mix; a few have no faults, and must be live all along."""

from random import Random
from typing import Final

from msgspec import Struct


class Faults(Struct, frozen=True):
    """Probabilities are of each message, each sync, or each disturbance (one every `disturb_ms` on average)."""

    client_pause_ms: int = 25  # between two operations of the clients, on average
    write_share: float = 0.5  # of the operations; who was cut off for a moment can win only if nothing was written
    loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 3
    heavy_delay: float = 0.0  # a message that takes up to a second
    sync_ms_max: int = 2
    slow_sync: float = 0.0  # a disk write that takes up to a second
    hanging_sync: float = 0.0  # one that takes up to five
    failed_sync: float = 0.0
    crash_in_write: float = 0.0  # of each disk write
    freeze: float = 0.0  # a read that stops for up to a second between looking at the lease and at the state
    drift: float = 0.0  # how much faster or slower a node's clock and ticks may be
    disturb_ms: int = 0  # 0: never
    crash: float = 0.0
    lose_disk: float = 0.0  # for good; the node is replaced under a new id
    bit_rot: float = 0.0  # a bit of the log flips; once that is noticed, the same
    full_disk: float = 0.0  # for some seconds
    cut: float = 0.0  # one direction of one link
    partition: float = 0.0
    clog: float = 0.0  # several nodes unreachable, one after the other
    depose: float = 0.0  # a leader cut off from all, a little after it was cut off from one
    pause: float = 0.0
    transfer: float = 0.0
    resign: float = 0.0
    membership: float = 0.0
    hint: float = 0.0  # a follower is told, rightly or not, that the connection to the leader broke
    compact: float = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing goes wrong at all."""
        return self == Faults()


_LEASES: Final = Faults(
    client_pause_ms=8,
    write_share=0.05,
    delay_ms_max=2,
    disturb_ms=60,
    crash=0.1,
    depose=1.0,
    transfer=0.3,
    resign=0.3,
    hint=1.0,
)
"""Many reads, few writes, and leaders cut off at the worst moments: what it takes to catch a lease that is too long."""


def draw(random: Random) -> Faults:
    """Return the mix of one seed."""
    kind = random.random()
    if kind < 0.04:
        return Faults()
    if kind < 0.14:
        return _LEASES

    def sometimes(highest: float) -> float:
        return random.random() * highest if random.random() < 0.6 else 0.0

    return Faults(
        client_pause_ms=random.choice([8, 25, 25]),
        write_share=random.choice([0.5, 0.5, 0.05]),
        loss=sometimes(0.25),
        duplication=sometimes(0.2),
        delay_ms_max=random.choice([2, 10, 60]),
        heavy_delay=sometimes(random.choice([0.05, 0.05, 0.05, 0.4])),
        sync_ms_max=random.choice([1, 5, 30]),
        slow_sync=sometimes(0.03),
        hanging_sync=sometimes(0.002),
        failed_sync=sometimes(0.015),
        crash_in_write=sometimes(0.006),
        freeze=sometimes(0.2),
        drift=random.choice([0.0, 0.0, 0.02, 0.05]),
        disturb_ms=random.choice([60, 150, 400]),
        crash=sometimes(1.0),
        lose_disk=sometimes(0.2),
        bit_rot=sometimes(0.6),
        full_disk=sometimes(0.3),
        cut=sometimes(1.0),
        partition=sometimes(1.0),
        clog=sometimes(0.3),
        depose=sometimes(0.6),
        pause=sometimes(0.5),
        transfer=sometimes(0.5),
        resign=sometimes(0.4),
        membership=sometimes(0.8),
        hint=sometimes(0.8),
        compact=sometimes(0.6),
    )
