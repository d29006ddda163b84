"""TIC's and TinyLIC's layouts (Ming Lu and others, Nanjing University)."""

from __future__ import annotations

import functools

from licodec.upstream.layouts import PRIOR, Layout, State, count
from licodec.upstream.shiftlic import MASKS, MULTISTAGE

BLOCKS = (
    (r"^([gh]_[as])(\d)\.", r"\1.\2."),
    (r"\.residual_group\.blocks\.", ".blocks."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def _config(state: State, groups: tuple[int, ...]) -> dict[str, object]:
    """`groups` are the layers of g_a that hold blocks."""
    depths = [count(state, rf"g_a\.{i}\.blocks\.(\d+)\.") for i in groups]
    return {"N": state["g_a.0.weight"].shape[0], "M": state["g_a.6.weight"].shape[0], "depths": depths}


LAYOUTS = (
    Layout(
        "tic",
        (r"^g_a1\.residual_group\.blocks\.0\.attn\.qkv\.weight$", r"^context_prediction\.qkv\."),
        functools.partial(_config, groups=(1, 3, 5)),
        (*PRIOR, *BLOCKS, (r"\.relative_position_bias_table$", ".bias_table")),
    ),
    Layout(
        "tinylic",
        (r"^g_a1\.residual_group\.blocks\.0\.attn\.rpb$", r"^sc_transform_1\."),
        functools.partial(_config, groups=(1, 3, 5, 7)),
        (*PRIOR, *MULTISTAGE, *BLOCKS),
        dropped=MASKS,
    ),
)
