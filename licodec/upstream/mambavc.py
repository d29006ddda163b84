"""MambaVC's layout: TCM's names for the entropy model, VMamba's for the blocks."""

from __future__ import annotations

import itertools
import re

from licodec.upstream.layouts import TCM_RENAMES, Layout, State, bias_table, slices


def _depths(state: State, transform: str) -> list[int]:
    """Blocks between the convolutions of a transform."""
    layers = {int(match[1]) for name in state if (match := re.match(rf"{transform}\.(\d+)\.", name))}
    convolutions = sorted(i for i in layers if f"{transform}.{i}.weight" in state)
    return [after - before - 1 for before, after in itertools.pairwise(convolutions)]


def _config(state: State) -> dict[str, object]:
    down, up = _depths(state, "g_a"), _depths(state, "g_s")
    return {
        "N": state["g_a.0.weight"].shape[0] // 2,
        "M": state["h_a.0.weight"].shape[1],
        "slices": slices(state),
        "depths": down + _depths(state, "h_a"),
        "up_depths": up,
    }


LAYOUTS = (
    Layout(
        "mambavc",
        (r"^g_a\.1\.op\.A_logs$", r"atten_mean\.0\.0\."),
        _config,
        (*TCM_RENAMES, (r"\.op\.", ".scan.")),
        reshape={r"\.bias_table$": bias_table},
    ),
)
