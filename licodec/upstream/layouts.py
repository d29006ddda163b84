"""The authors' layouts: how to tell them, what to drop, what to rename, which sizes they imply.

One `Layout` a model, in the order in which they are tried. Renames are regular
expressions, applied in order to each name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

State = dict[str, torch.Tensor]

# Buffers that are no weights: entropy tables (frozen anew), bounds of GDN and of the priors, window indexes.
BUFFERS = (
    r"gaussian_conditional\.(_offset|_quantized_cdf|_cdf_length|scale_table|scale_bound)",
    r"gaussian_conditional\.lower_bound_scale\.bound|gaussian_conditional\.likelihood_lower_bound\.bound",
    r"(z_)?entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|likelihood_lower_bound\.bound)",
    r".*\.(beta|gamma)_reparam\.(pedestal|lower_bound\.bound)",
    r".*\.relative_position_index",
    r".*\.attn_mask",
)
PRIOR = (
    (r"^(z_)?entropy_bottleneck\.", "z_prior."),
    (r"^z_prior\._matrix(\d)$", r"z_prior.matrices.\1"),
    (r"^z_prior\._bias(\d)$", r"z_prior.biases.\1"),
    (r"^z_prior\._factor(\d)$", r"z_prior.factors.\1"),
)
HEADS = (
    (r"^cc_mean_transforms\.", "mean_heads."),
    (r"^cc_scale_transforms\.", "scale_heads."),
    (r"^lrp_transforms\.", "lrp_heads."),
)
SWIN = (
    (r"\.relative_position_bias_table$", ".bias_table"),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


@dataclass(frozen=True)
class Layout:
    """How an author's tensors become ours.

    Attributes:
        marks: regular expressions; each must match some name of the checkpoint.
        never: regular expressions; none may match any.
        config: the model's configuration, read off the renamed tensors.
        dropped: names besides `BUFFERS` that are left out.
        reshape: by regular expression on the new name, what to do with a tensor.
        gather: makes one tensor of several, before anything is renamed.
        fits: whether a checkpoint whose names match can be of this model by its shapes.
    """

    model: str
    marks: tuple[str, ...]
    config: Callable[[State], dict[str, object]]
    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    never: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    reshape: dict[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    gather: Callable[[State], State] = dict
    fits: Callable[[State], bool] = lambda state: True

    def matches(self, names: list[str]) -> bool:
        """Whether a checkpoint with these names can be of this model."""

        def some(pattern: str) -> bool:
            return any(re.search(pattern, name) for name in names)

        return all(map(some, self.marks)) and not any(map(some, self.never))

    def suits(self, state: State) -> bool:
        """Whether a checkpoint can be of this model; what is missing is found later, and named then."""
        try:
            return self.matches(list(state)) and self.fits(state)
        except (KeyError, IndexError):
            return True

    def translate(self, state: State) -> State:
        """The tensors under our names, buffers left out."""
        dropped = [re.compile(pattern) for pattern in BUFFERS + self.dropped]
        renames = [(re.compile(pattern), new) for pattern, new in self.renames]
        out = {}
        for name, tensor in self.gather(state).items():
            if any(pattern.fullmatch(name) for pattern in dropped):
                continue
            for pattern, new in renames:
                name = pattern.sub(new, name)
            for part, change in self.reshape.items():
                if re.search(part, name):
                    tensor = change(tensor)
            out[name] = tensor
        return out


def count(state: State, pattern: str) -> int:
    """How many different values the first group of `pattern` has among the names."""
    return len({m[1] for name in state if (m := re.match(pattern, name))})


def slices(state: State) -> int:
    """How many channel slices the heads are for."""
    return count(state, r"mean_heads\.(\d+)\.")


def _wacnn(state: State) -> dict[str, object]:
    return {
        "N": state["g_a.0.weight"].shape[0],
        "M": state["g_a.7.weight"].shape[0],
        "slices": slices(state),
    }


def _tcm(state: State) -> dict[str, object]:
    return {
        "N": state["g_a.0.conv1.weight"].shape[0] // 2,
        "M": state["g_a.9.weight"].shape[0],
        "slices": slices(state),
    }


def _conv_tbtc(state: State) -> dict[str, object]:
    return {"M": state["g_a.6.weight"].shape[0], "Z": state["h_a.0.weight"].shape[0]}


def _is_conv_hyperprior(state: State) -> bool:
    """CompressAI's hyperpriors have the same names."""
    return state["h_s.4.weight"].shape[:2] == (2 * state["g_a.6.weight"].shape[0], state["h_a.0.weight"].shape[0])


def _swin_stages(state: State, prefix: str) -> tuple[list[int], list[int]]:
    """Widths and depths of the stages of a transform, whose names begin with `prefix`."""
    start = re.escape(prefix)
    stages = range(count(state, rf"{start}layers\.(\d+)\."))
    dims = [state[f"{prefix}layers.{i}.blocks.0.norm1.weight"].shape[0] for i in stages]
    return dims, [count(state, rf"{start}layers\.{i}\.blocks\.(\d+)\.") for i in stages]


def _swint_tbtc(state: State) -> dict[str, object]:
    dims, depths = _swin_stages(state, "g_a.")
    hyper_dims, hyper_depths = _swin_stages(state, "h_a.")
    return {"dims": dims, "depths": depths, "hyper_dims": hyper_dims, "hyper_depths": hyper_depths}


def _stf(state: State) -> dict[str, object]:
    _, depths = _swin_stages(state, "")
    return {
        "embed": state["patch_embed.weight"].shape[0],
        "depths": depths,
        "slices": slices(state),
    }


def _dictionary(state: State) -> dict[str, object]:
    return {
        "N": state["h_a.0.conv.weight"].shape[0],
        "M": state["g_a.6.weight"].shape[0],
        "dims": [state[f"g_a.{i}.conv.weight"].shape[0] for i in (0, 2, 4)],
        "depths": [count(state, rf"g_a\.{i}\.layers\.(\d+)\.") for i in (1, 3, 5)],
        "slices": slices(state),
        "words": state["dt"].shape[0],
    }


def _cca(state: State) -> dict[str, object]:
    steps = range(slices(state))
    return {
        "dims": [state[f"g_a.{i}.weight"].shape[0] for i in (0, 2, 4)],
        "depth": count(state, r"g_a\.1\.(\d+)\.") - 3,
        "slice_sizes": [state[f"mean_heads.{k}.4.weight"].shape[0] for k in steps],
        "naf_dim": state["mean_naf.0.in_conv.weight"].shape[0],
        "naf_depth": count(state, r"mean_naf\.0\.blocks\.(\d+)\."),
    }


def bias_table(params: torch.Tensor) -> torch.Tensor:
    """TCM's bias [heads, 2w-1, 2w-1] -> [(2w-1)^2, heads]."""
    return params.flatten(1).T.contiguous()


def haar(state: State) -> State:
    """The wavelet filters of AuxT, which lie apart in the encoder, under one name."""
    out = {}
    for name, tensor in state.items():
        if name.endswith(".idwt.filters"):
            name = name.replace(".idwt.filters", ".haar")
        elif match := re.fullmatch(r"(.*)\.dwt\.w_(ll|lh|hl|hh)", name):
            name = f"{match[1]}.haar"
            parts = [state.get(f"{match[1]}.dwt.w_{band}") for band in ("ll", "lh", "hl", "hh")]
            found = [part for part in parts if part is not None]
            if len(found) < len(parts):
                raise KeyError(f"{match[1]}.dwt.w_*")
            tensor = torch.cat(found)
        out[name] = tensor
    return out


TCM_RENAMES = (
    *PRIOR,
    *HEADS,
    (r"^atten_mean\.(\d+)\.0\.", r"mean_attention.\1."),
    (r"^atten_scale\.(\d+)\.0\.", r"scale_attention.\1."),
    (r"(_attention\.\d+)\.(conv_[ab])\.", r"\1.attention.\2."),
    (r"(_attention\.\d+)\.non_local_block\.", r"\1.attention.before."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.msa\.embedding_layer\.", ".attn.qkv."),
    (r"\.msa\.linear\.", ".attn.proj."),
    (r"\.msa\.relative_position_params$", ".attn.bias_table"),
)
DICTIONARY_RENAMES = (
    *PRIOR,
    *HEADS,
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.res_scale_([123])\.scale$", r".scale\1"),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.depthwise."),
    (r"^dt_cross_attention\.", "dictionary_attention."),
    (r"\.x_trans\.", ".enter."),
    (r"\.ln_scale\.", ".norm_scale."),
    (r"^(dictionary_attention\.\d+)\.msa\.s\.", r"\1.aggregation.enter."),
    (r"\.msa\.spatial_atte\.conv1\.", ".aggregation.mask."),
    (r"\.msa\.dense\.conv_layers\.(\d)\.1\.in_trans\.", r".aggregation.stages.\1.1."),
    (r"\.msa\.dense\.conv_layers\.(\d)\.1\.dw_conv\.", r".aggregation.stages.\1.3."),
    (r"\.msa\.dense\.conv_layers\.(\d)\.1\.out_trans\.", r".aggregation.stages.\1.5."),
    (r"\.msa\.dense\.proj\.", ".aggregation.join."),
    (r"\.lnx\.", ".norm_query."),
    (r"\.q_trans\.", ".query."),
    (r"\.dict_ln\.", ".norm_dictionary."),
    (r"^(dictionary_attention\.\d+)\.k\.", r"\1.key."),
    (r"^(dictionary_attention\.\d+)\.linear\.", r"\1.proj."),
    (r"\.ln_mlp\.", ".norm_mlp."),
    (r"\.output_trans\.0\.", ".leave."),
)
DCAE_RENAMES = (
    *DICTIONARY_RENAMES,
    (r"\.msa\.embedding_layer\.", ".attn.qkv."),
    (r"\.msa\.linear\.", ".attn.proj."),
    (r"\.msa\.relative_position_params$", ".attn.bias_table"),
)
SAAF_RENAMES = (
    *DICTIONARY_RENAMES,
    (r"\.msa\.embedding_layer\.", ".attn.local.qkv."),
    (r"\.msa\.linear\.", ".attn.local.proj."),
    (r"\.msa\.relative_position_bias_table$", ".attn.local.bias_table"),
    (r"\.msa\.global_(tokens|alpha|kv)", r".attn.global_\1"),
)
CCA_RENAMES = (
    *PRIOR,
    (r"^(mean|scale)_cc_transforms\.", r"\1_heads."),
    (r"^lrp_transforms\.", "lrp_heads."),
    (r"^(mean|scale)_NAF_transforms\.", r"\1_naf."),
    (r"^g_([as])\.(?:down|up)\.(\d)\.", lambda m: f"g_{m[1]}.{2 * int(m[2])}."),
    (r"^g_([as])\.blocks\.(\d)\.", lambda m: f"g_{m[1]}.{2 * int(m[2]) + 1}."),
    (r"\.sca\.1\.", ".sca."),
    (r"\.FFN\.0\.", ".expand."),
    (r"\.FFN\.2\.", ".reduce."),
)
SWINT_RENAMES = (
    *PRIOR,
    *SWIN,
    (r"\.(patch_embed|patch_merger)\.proj\.", ".embed."),
    (r"\.downsample\.", ".resample."),
)
CHARM = ((r"^charm_(mean|scale)_transforms\.(\d+)\.layers\.", r"\1_heads.\2."),)

LAYOUTS = (
    Layout(
        "wacnn",
        (r"g_a\.4\.conv_b\.0\.attn\.qkv\.weight", r"lrp_transforms\.0\."),
        _wacnn,
        (
            *PRIOR,
            *HEADS,
            *SWIN,
            (r"(g_[as]\.\d+)\.conv_b\.0\.attn\.", r"\1.before.attn."),
            (r"(g_[as]\.\d+)\.conv_b\.([1-4])\.", lambda m: f"{m[1]}.conv_b.{int(m[2]) - 1}."),
        ),
    ),
    Layout(
        "tcm",
        (r"g_a\.1\.trans_block\.msa\.", r"atten_mean\.0\.0\."),
        _tcm,
        TCM_RENAMES,
        never=(r"OLP|AuxT|w_ll|w_hl",),
        reshape={r"\.bias_table$": bias_table},
    ),
    Layout(
        "tcm-auxt",
        (r"g_a\.1\.trans_block\.msa\.", r"AuxT_enc\.0\."),
        _tcm,
        TCM_RENAMES,
        reshape={r"\.bias_table$": bias_table, r"\.scaling_factors$": lambda t: t.view(1, -1, 1, 1)},
        gather=haar,
    ),
    Layout(
        "stf",
        (r"^patch_embed\.proj\.", r"syn_layers\.0\.blocks\.", r"end_conv\."),
        _stf,
        (
            *PRIOR,
            *HEADS,
            *SWIN,
            (r"^patch_embed\.proj\.", "patch_embed."),
            (r"^patch_embed\.norm\.", "patch_norm."),
            (r"\.downsample\.", ".resample."),
        ),
    ),
    Layout(
        "cca",
        (r"mean_NAF_transforms\.0\.", r"mean_cc_transforms\.0\."),
        _cca,
        CCA_RENAMES,
        dropped=(r"aux_entropymodel\..*",),
    ),
    Layout(
        "dcae",
        (r"^dt$", r"dt_cross_attention\.", r"\.msa\.relative_position_params$"),
        _dictionary,
        DCAE_RENAMES,
        reshape={r"\.bias_table$": bias_table},
    ),
    Layout(
        "saaf",
        (r"^dt$", r"dt_cross_attention\.", r"\.msa\.global_kv\."),
        _dictionary,
        SAAF_RENAMES,
        # in training only; an identity; and what always averages 1/4 (see models/saaf.py)
        dropped=(r"diffusion_prior\..*", r".*\.olp\.identity_matrix", r"aux_dec\.\d\.freq_attn\..*"),
    ),
    Layout("conv-charm", (r"g_a\.1\.gamma", r"charm_mean_transforms\."), _conv_tbtc, (*PRIOR, *CHARM)),
    Layout(
        "conv-hyperprior",
        (r"g_a\.1\.gamma", r"g_a\.6\.weight", r"h_s\.4\.weight"),
        _conv_tbtc,
        PRIOR,
        never=(r"charm_", r"cc_", r"context", r"QuantABCD"),
        fits=_is_conv_hyperprior,
    ),
    Layout(
        "swint-charm",
        (r"g_a\.layers\.0\.blocks\.", r"h_a\.patch_merger\.", r"charm_mean_transforms\."),
        _swint_tbtc,
        (*SWINT_RENAMES, *CHARM),
    ),
    Layout(
        "swint-hyperprior",
        (r"g_a\.layers\.0\.blocks\.", r"h_a\.patch_merger\."),
        _swint_tbtc,
        SWINT_RENAMES,
        never=(r"charm_",),
    ),
)
