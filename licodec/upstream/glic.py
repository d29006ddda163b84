"""GLIC's layout: a subclass of CompressAI's ELIC, with the transforms and the wavelet branch in one module each."""

from __future__ import annotations

import re

from licodec.upstream.layouts import PRIOR, Layout, State, count, haar

STAGES = {"down": 0, "up": 0, "g": -1}  # down0, g1, down1, g2, ... in a row


def _stage(match: re.Match[str]) -> str:
    return f"{match[1]}.{2 * int(match[3]) + STAGES[match[2]]}."


RENAMES = (
    (r"^latent_codec\.hyper\.", ""),
    *PRIOR,
    (r"^g_[as]\.AuxT_", "AuxT_"),
    (r"^(g_[as])\.(down|up|g)(\d)\.", _stage),
    (r"\.residual_group\.blocks\.(\d)\.", r".layers.\1."),
    (r"(layers\.\d)\.mlp\.project_in\.", r"\1.mlp.enter."),
    (r"(layers\.\d)\.mlp\.project_out\.", r"\1.mlp.leave."),
    (r"(layers\.\d)\.mlp\.conv\.", r"\1.mlp.depthwise."),
    (r"\.grapher\.proj_group\.", ".attention.query."),
    (r"\.grapher\.proj_sample\.", ".attention.key_value."),
    (r"\.grapher\.cpb_mlp\.", ".attention.bias.mlp."),
    (r"\.grapher\.", ".attention."),
    (
        r"^latent_codec\.y\.channel_context\.y(\d)\.(\d)\.",
        lambda m: f"channel_context.{int(m[1]) - 1}.{int(m[2]) // 2}.",
    ),
    (r"^latent_codec\.y\.latent_codec\.y(\d)\.context_prediction\.", r"spatial_context.\1."),
    (
        r"^latent_codec\.y\.latent_codec\.y(\d)\.entropy_parameters\.(\d)\.",
        lambda m: f"parameter_networks.{m[1]}.{int(m[2]) // 2}.",
    ),
    (r"(?<!layers\.\d)\.norm2\.", ".gated.norm."),
    (r"\.mlp\.project_in\.", ".gated.enter."),
    (r"\.mlp\.project_out\.", ".gated.leave."),
    (r"\.mixer\.conv1\.0\.", ".conv1."),
    (r"\.mixer\.depth_conv\.", ".depthwise."),
    (r"\.mixer\.conv2\.", ".conv2."),
    (r"\.mixer\.adaptor\.", ".skip."),
    (r"\.mixer\.", ".conv."),
)
DROPPED = (
    r"latent_codec\..*\.gaussian_conditional\..*",
    r"latent_codec\.hyper\.entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|.*bound)",
    # what the mask hides meets zeros: the rest is coded when only the anchors are known
    r"latent_codec\..*\.context_prediction\.mask",
    r".*\.relative_coords_table",
)


def _config(state: State) -> dict[str, object]:
    groups = range(count(state, r"spatial_context\.(\d+)\."))
    return {
        "N": state["h_a.0.weight"].shape[0],
        "dims": [state[f"g_a.{i}.weight"].shape[0] for i in (0, 2, 4)],
        "heads": state["g_a.3.layers.0.attention.logit_scale"].shape[0],
        "depth": count(state, r"g_a\.3\.layers\.(\d)\."),
        "groups": [state[f"spatial_context.{k}.weight"].shape[1] for k in groups],
    }


LAYOUTS = (
    Layout(
        "glic",
        (r"^g_a\.g2\.residual_group\.", r"^latent_codec\.y\.latent_codec\.y0\.entropy_parameters\."),
        _config,
        RENAMES,
        dropped=DROPPED,
        reshape={r"\.scaling_factors$": lambda t: t.view(1, -1, 1, 1)},
        gather=haar,
    ),
)
