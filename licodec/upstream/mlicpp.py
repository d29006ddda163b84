"""MLIC++'s layout: lists by kind of network become lists by slice. The weights of 2023 have deeper LRP networks."""

from __future__ import annotations

from licodec.upstream.layouts import PRIOR, Layout, State, count

KINDS = {
    "local_context": "local",
    "channel_context": "channel",
    "global_inter_context": "inter",
    "global_intra_context": "intra",
    "entropy_parameters_anchor": "anchor_parameters",
    "entropy_parameters_nonanchor": "rest_parameters",
    "lrp_anchor": "anchor_lrp",
    "lrp_nonanchor": "rest_lrp",
}
RENAMES = (
    *PRIOR,
    (r"^(g_a\.analysis_transform|g_s\.synthesis_transform|h_a\.reduction|h_s\.increase)\.", lambda m: m[1][:4]),
    (rf"^({'|'.join(KINDS)})\.(\d+)\.", lambda m: f"slices.{m[2]}.{KINDS[m[1]]}."),
    (r"\.(fushion|lrp_transform)\.", "."),
    (r"_parameters\.fusion\.", "_parameters."),
    (r"\.relative_position_table$", ".bias_table"),
    (r"\.qkv_proj\.", ".qkv."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def _config(state: State) -> dict[str, object]:
    return {
        "N": state["g_a.0.conv1.weight"].shape[0],
        "M": state["g_a.6.weight"].shape[0],
        "slices": count(state, r"slices\.(\d+)\."),
        "edition": 2023 if "slices.0.anchor_lrp.6.weight" in state else 2024,
    }


LAYOUTS = (Layout("mlicpp", (r"^global_intra_context\.1\.", r"^lrp_nonanchor\.0\."), _config, RENAMES),)
