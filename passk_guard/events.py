"""What the guard has to tell beside its looks: facts, which reporting turns into words."""

from __future__ import annotations

from dataclasses import dataclass

from passk_guard.detection.named_states import NamedState
from passk_guard.look import Failure, Look, Probe
from passk_guard.remedies.remedy import RemedyChange
from passk_guard.runtime.schedule import FirstLook, Forecast
from passk_guard.runtime.stored import TakenUp


@dataclass(frozen=True)
class Raised:
    """An alarm."""

    look: Look


@dataclass(frozen=True)
class Cleared:
    """The conflict has ended."""

    step: int


@dataclass(frozen=True)
class Lost:
    """A look failed; ``count`` of them so far."""

    failure: Failure
    count: int


@dataclass(frozen=True)
class StateBegan:
    """A named state begins with this probe."""

    state: NamedState
    probe: Probe


@dataclass(frozen=True)
class RemedyChanged:
    """A remedy sets in, or lets go."""

    step: int
    change: RemedyChange


@dataclass(frozen=True)
class Sketched:
    """Gradients would take ``needed`` bytes, over ``limit``, and are compared by sketches."""

    needed: int
    limit: float


@dataclass(frozen=True)
class Waits:
    """A look is due, but nothing is trainable yet."""


@dataclass(frozen=True)
class RanOut:
    """Memory ran out in a pass, and so many tokens at once are the most from now on."""

    tokens: float


@dataclass(frozen=True)
class Foreseen:
    """The reference's gradients oppose pass@1, under weights that need not be the update's."""

    probe: Probe


@dataclass(frozen=True)
class Resumed:
    """A state was taken up, as far as it fits."""

    taken: TakenUp


@dataclass(frozen=True)
class Planned:
    """Costs and precision are known: what to expect of this run."""

    forecast: Forecast
    visible_loss: float | None
    gradients: str


@dataclass(frozen=True)
class FewProbes:
    """The whole run will see so few probes.

    Attributes:
        probes: in the whole run.
        times: the whole run's budget that is spent already; ``None`` where there is no budget.
    """

    probes: int
    times: float | None


@dataclass(frozen=True)
class ShortRun:
    """The first look alone costs more than the budget of the whole run of ``total_steps``."""

    look: FirstLook
    total_steps: int


@dataclass(frozen=True)
class Blind:
    """Nothing could be compared for so many looks in a row.

    Attributes:
        probe: the last one.
        looks: in a row.
        threshold: score from which a rollout is right, where known.
    """

    probe: Probe
    looks: int
    threshold: float | None


Event = (
    Raised
    | Cleared
    | Lost
    | StateBegan
    | RemedyChanged
    | Foreseen
    | Sketched
    | RanOut
    | Resumed
    | Planned
    | FewProbes
    | ShortRun
    | Blind
    | Waits
)
