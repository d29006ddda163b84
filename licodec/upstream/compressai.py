"""The layout in which CompressAI holds WACNN, STF, TCM, CCA, DCAE and SAAF, back to the authors' names.

There the entropy model lies under `latent_codec.*`, one codec per slice, each
with its own copy of the Gaussian's buffers; attention and NAF blocks have other
names; and DCAE and SAAF see the means before the scales. Source: the model
definitions and `examples/convert_*_checkpoint.py` of CompressAI's repository.
"""

from __future__ import annotations

import re

import torch

State = dict[str, torch.Tensor]

DROPPED = (r"latent_codec\.y\.latent_codec\.y\d+\.gaussian_conditional\..*", r"aux_entropy_model\..*")
SLICE = r"^latent_codec\.y\.channel_context\.y(\d+)\."
COMMON = (
    (r"^latent_codec\.z\.entropy_bottleneck\.", "entropy_bottleneck."),
    (r"^latent_codec\.h_a\.", "h_a."),
    (r"^latent_codec\.y\.latent_codec\.y(\d+)\.lrp_transform\.", r"lrp_transforms.\1."),
    (r"\.attn\.attn\.", ".attn."),
)
PLAIN = (
    (r"^latent_codec\.h_s\.h_(mean|scale)_s\.", r"h_\1_s."),
    (SLICE + r"(mean|scale)_cc\.", r"cc_\2_transforms.\1."),
)
TCM = (
    (SLICE + r"(mean|scale)_support_transform\.", r"atten_\2.\1.0."),
    (r"\.msa\.attn\.qkv\.", ".msa.embedding_layer."),
    (r"\.msa\.output_proj\.", ".msa.linear."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)
CCA = (
    (r"^latent_codec\.h_s\.h_(mean|scale)_s\.", r"h_\1_s."),
    (SLICE + r"(mean|scale)_cc\.", r"\2_cc_transforms.\1."),
    (SLICE + r"(mean|scale)_support_transform\.", r"\2_NAF_transforms.\1."),
    (r"\.pointwise_depthwise\.", ".dwconv."),
    (r"\.channel_attention\.", ".sca."),
    (r"\.feed_forward\.", ".FFN."),
    (r"\.project\.", ".conv1."),
    (r"\.input_projection\.", ".in_conv."),
    (r"\.output_projection\.", ".out_conv."),
)
DICTIONARY = (
    (r"^shared_dictionary\.dt$", "dt"),
    (r"^latent_codec\.h_s\.h_scale_s\.", "h_z_s1."),
    (r"^latent_codec\.h_s\.h_mean_s\.", "h_z_s2."),
    (SLICE + r"(mean|scale)_cc\.", r"cc_\2_transforms.\1."),
    (SLICE + r"cross_attention\.", r"dt_cross_attention.\1."),
)
# what sees the hyper synthesis' outputs first, and so their order
SEES_HYPER = (
    r"(cc_mean_transforms|cc_scale_transforms|lrp_transforms)\.\d+\.0\.weight|dt_cross_attention\.\d+\.x_trans\.weight"
)


def is_compressai(state: State) -> bool:
    """Whether a state dict is of this layout; GLIC, which builds on other classes of it, is not."""
    return any(name.startswith("latent_codec.z.") for name in state)


def to_authors(state: State) -> State:
    """The same tensors under the authors' names. Raises KeyError if one that is needed is missing."""
    state = {name: t for name, t in state.items() if not any(re.fullmatch(p, name) for p in DROPPED)}
    if "shared_dictionary.dt" in state:
        return _scales_first(_rename(state, COMMON + DICTIONARY))
    if any(".pointwise_depthwise." in name for name in state):
        return _rename(state, COMMON + CCA)
    if any(".msa.output_proj." in name for name in state):
        return _rename(_fold_projections(state), COMMON + PLAIN + TCM)
    return _rename(state, COMMON + PLAIN)


def _rename(state: State, rules: tuple[tuple[str, str], ...]) -> State:
    out = {}
    for name, tensor in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        out[name] = tensor
    return out


def _scales_first(state: State) -> State:
    """DCAE and SAAF: the first M input channels, means here, change places with the M scales."""
    m = state["h_a.0.conv.weight"].shape[1]
    return {
        name: torch.cat([t[:, m : 2 * m], t[:, :m], t[:, 2 * m :]], 1) if re.fullmatch(SEES_HYPER, name) else t
        for name, t in state.items()
    }


def _fold_projections(state: State) -> State:
    """TCM: attention has two projections here, the inner one an identity; and its bias another shape."""
    out = {}
    for name, tensor in state.items():
        if name.endswith(".msa.attn.relative_position_bias_table"):
            side = round(len(tensor) ** 0.5)
            name = name.replace(".attn.relative_position_bias_table", ".relative_position_params")
            tensor = tensor.view(side, side, -1).permute(2, 0, 1)
        elif ".msa.attn.proj." in name:
            continue
        elif name.endswith(".msa.output_proj.weight"):
            inner = state[name.replace(".output_proj.", ".attn.proj.")]
            tensor = (tensor.double() @ inner.double()).float()
        elif name.endswith(".msa.output_proj.bias"):
            weight = state[name.replace(".bias", ".weight")].double()
            inner = state[name.replace(".output_proj.", ".attn.proj.")]
            tensor = (weight @ inner.double() + tensor.double()).float()
        out[name] = tensor
    return out
