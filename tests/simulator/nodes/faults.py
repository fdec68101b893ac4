"""What may go wrong with whole nodes in one seed. Each seed draws its own mix; a few have no faults at all."""

from random import Random

from msgspec import Struct


class Faults(Struct, frozen=True):
    """Probabilities are of each frame, each sync, or each disturbance (one every `disturb_seconds` on average)."""

    latency_seconds_max: float = 0.003
    heavy_delay: float = 0.0  # a frame, and all behind it, that takes up to half a second
    sync_seconds_max: float = 0.004
    slow_sync: float = 0.0  # one that takes up to half a second
    hanging_sync: float = 0.0  # one that takes up to four
    failed_sync: float = 0.0
    drift: float = 0.0  # how much faster or slower a node's clock may be
    write_share: float = 0.5
    client_pause_seconds: float = 0.04
    flush_seconds: float = 0.3
    trailing_entries: int = 50
    disturb_seconds: float = 0.0  # 0: never
    crash: float = 0.0
    freeze: float = 0.0
    partition: float = 0.0
    cut: float = 0.0  # one direction between two machines
    slow: float = 0.0  # a way that takes up to a fifth of a second more
    breaks: float = 0.0  # all connections between two machines break once
    depose: float = 0.0  # the leader is cut off from all others
    transfer: float = 0.0
    seal: float = 0.0
    jump: float = 0.0  # a clock that goes forward by seconds
    date: float = 0.0  # a date that changes by days
    add: float = 0.0
    remove: float = 0.0
    vote: float = 0.0  # a member loses its vote, or is given one
    replace: float = 0.0  # a member's disk is lost; it is removed, and joins again under a new id

    @property
    def is_quiet(self) -> bool:
        """Whether nothing goes wrong at all."""
        return self.disturb_seconds == 0


def draw(random: Random) -> Faults:
    """Return the mix of one seed."""
    if random.random() < 0.06:
        return Faults()

    def sometimes(highest: float) -> float:
        return random.random() * highest if random.random() < 0.6 else 0.0

    return Faults(
        latency_seconds_max=random.choice([0.002, 0.01, 0.04]),
        heavy_delay=sometimes(0.02),
        sync_seconds_max=random.choice([0.002, 0.005, 0.03]),
        slow_sync=sometimes(0.05),
        hanging_sync=sometimes(0.004),
        failed_sync=sometimes(0.003),
        drift=random.choice([0.0, 0.02, 0.045]),
        write_share=random.choice([0.5, 0.5, 0.1]),
        client_pause_seconds=random.choice([0.02, 0.04, 0.08]),
        flush_seconds=random.choice([0.1, 0.5, 2.0]),
        trailing_entries=random.choice([2, 10, 50, 10_000]),
        disturb_seconds=random.choice([0.15, 0.3, 0.8]),
        crash=sometimes(1.0),
        freeze=sometimes(0.6),
        partition=sometimes(0.6),
        cut=sometimes(0.6),
        slow=sometimes(0.5),
        breaks=sometimes(0.5),
        depose=sometimes(0.6),
        transfer=sometimes(0.4),
        seal=sometimes(0.3),
        jump=sometimes(0.3),
        date=sometimes(0.2),
        add=sometimes(0.5),
        remove=sometimes(0.4),
        vote=sometimes(0.4),
        replace=sometimes(0.4),
    )
