"""What may go wrong in one seed. Each seed draws its own mix; a few have no faults, and must be live all along."""

from random import Random

from msgspec import Struct


class Faults(Struct, frozen=True):
    """Probabilities are of each message, or of each disturbance (one every `disturb_ms` on average)."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 3
    heavy_delay: float = 0.0  # a message that takes up to a second
    sync_ms_max: int = 2
    slow_sync: float = 0.0  # a disk write that takes up to a second
    disturb_ms: int = 0  # 0: never
    crash: float = 0.0
    cut: float = 0.0  # one direction of one link
    partition: float = 0.0
    pause: float = 0.0
    transfer: float = 0.0
    resign: float = 0.0
    membership: float = 0.0
    hint: float = 0.0  # a follower is told, rightly or not, that the connection to the leader broke
    compact: float = 0.0
    drift: float = 0.0  # how much faster or slower a node's ticks may be

    @property
    def is_quiet(self) -> bool:
        """Whether nothing goes wrong at all."""
        return self.disturb_ms == 0 and self.loss == 0 and self.heavy_delay == 0 and self.slow_sync == 0


def draw(random: Random) -> Faults:
    """Return the mix of one seed."""
    if random.random() < 0.04:
        return Faults()

    def sometimes(highest: float) -> float:
        return random.random() * highest if random.random() < 0.6 else 0.0

    return Faults(
        loss=sometimes(0.25),
        duplication=sometimes(0.2),
        delay_ms_max=random.choice([2, 10, 60]),
        heavy_delay=sometimes(0.05),
        sync_ms_max=random.choice([1, 5, 30]),
        slow_sync=sometimes(0.03),
        disturb_ms=random.choice([60, 150, 400]),
        crash=sometimes(1.0),
        cut=sometimes(1.0),
        partition=sometimes(1.0),
        pause=sometimes(0.5),
        transfer=sometimes(0.5),
        resign=sometimes(0.4),
        membership=sometimes(0.6),
        hint=sometimes(0.8),
        compact=sometimes(0.6),
        drift=random.choice([0.0, 0.0, 0.02, 0.05]),
    )
