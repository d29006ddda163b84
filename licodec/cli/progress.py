"""A bar that stays away from what is soon over."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from rich.console import RenderableType
from rich.progress import Progress


class LateProgress(Progress):
    """Shows nothing in the first seconds after its start."""

    begin = math.inf  # of what is seen, on the clock of time.monotonic

    def start_in(self, seconds: float) -> None:
        self.begin = time.monotonic() + seconds
        self.start()

    def get_renderables(self) -> Iterable[RenderableType]:
        if time.monotonic() >= self.begin:
            yield from super().get_renderables()
