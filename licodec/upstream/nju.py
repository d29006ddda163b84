"""TinyLIC's layout (Ming Lu, Nanjing University)."""

from __future__ import annotations

from licodec.upstream.layouts import PRIOR, Layout, State, count
from licodec.upstream.shiftlic import MASKS, MULTISTAGE

BLOCKS = (
    (r"^([gh]_[as])(\d)\.", r"\1.\2."),
    (r"\.residual_group\.blocks\.", ".blocks."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def _config(state: State) -> dict[str, object]:
    depths = [count(state, rf"g_a\.{i}\.blocks\.(\d+)\.") for i in (1, 3, 5, 7)]
    return {"N": state["g_a.0.weight"].shape[0], "M": state["g_a.6.weight"].shape[0], "depths": depths}


LAYOUTS = (
    Layout(
        "tinylic",
        (r"^g_a1\.residual_group\.blocks\.0\.attn\.rpb$", r"^sc_transform_1\."),
        _config,
        (*PRIOR, *MULTISTAGE, *BLOCKS),
        dropped=MASKS,
    ),
)
