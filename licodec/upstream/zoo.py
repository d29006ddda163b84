"""CompressAI's zoo: its names for what its files hold (`licodec.weights.zoo` knows where they are).

Some files are older than today's names of CompressAI's parts, which its `zoo.pretrained` renames; so does this.
"""

from __future__ import annotations

from collections.abc import Callable

from licodec.upstream.layouts import PRIOR, Layout, State

OLD_NAMES = (
    (r"^entropy_bottleneck\._(matrices|biases|factors)\.(\d)$", r"entropy_bottleneck.\1.\2"),
    (r"\.downsample\.", ".skip."),
)
RENAMES = (
    *OLD_NAMES,
    *PRIOR,
    (r"^Gain$", "gains"),
    (r"^QuantABCD\.", "offset_net."),
    (r"^gayn2zqstep\.", "z_step_net."),
)
DROPPED = (r"context_prediction\.mask", r"lower_bound_zqstep\.bound", r"QuantOffset")
GDN_MODEL = (r"^g_a\.1\.gamma$", r"^g_a\.6\.weight$", r"^entropy_bottleneck\.")
CHENG = (r"^g_a\.0\.conv1\.weight$", r"^context_prediction\.weight$", r"^g_s\.\d\.0\.weight$")


def _widths(state: State) -> dict[str, object]:
    return {"N": state["g_a.0.weight"].shape[0], "M": state["g_a.6.weight"].shape[0]}


def _cheng(state: State) -> dict[str, object]:
    return {"N": state["g_a.0.conv1.weight"].shape[0]}


def _variable(state: State) -> dict[str, object]:
    return {**_widths(state), "levels": state["gains"].shape[0]}


def has_means(state: State) -> bool:
    """Whether h_s of a hyperprior gives means too, through layers that widen."""
    m = state["g_a.6.weight"].shape[0]
    return state["h_s.4.weight"].shape[:2] == (2 * m, m * 3 // 2)


def has_scales_only(state: State) -> bool:
    """Whether h_s of a hyperprior gives one value for each of y."""
    return state["h_s.4.weight"].shape[0] == state["g_a.6.weight"].shape[0]


def _layout(
    model: str,
    marks: tuple[str, ...],
    never: tuple[str, ...] = (),
    config: Callable[[State], dict[str, object]] = _widths,
    fits: Callable[[State], bool] = lambda state: True,
) -> Layout:
    return Layout(model, marks, config, RENAMES, never=never, dropped=DROPPED, fits=fits)


LAYOUTS = (
    _layout("bmshj2018-factorized", GDN_MODEL, (r"^h_a\.",)),
    _layout("bmshj2018-hyperprior", (*GDN_MODEL, r"^h_s\.4\."), (r"context", r"QuantABCD", r"_transforms"),
            fits=has_scales_only),
    _layout("mbt2018-mean", (*GDN_MODEL, r"^h_s\.4\."), (r"context", r"QuantABCD", r"_transforms"), fits=has_means),
    _layout("mbt2018", (*GDN_MODEL, r"^context_prediction\.weight"), (r"QuantABCD",)),
    _layout("cheng2020-anchor", CHENG, (r"conv_a",), _cheng),
    _layout("cheng2020-attn", (*CHENG, r"^g_a\.3\.conv_a\."), config=_cheng),
    _layout("bmshj2018-hyperprior-vbr", (*GDN_MODEL, r"^QuantABCD", r"^gayn2zqstep"), config=_variable,
            fits=has_scales_only),
    _layout("mbt2018-mean-vbr", (*GDN_MODEL, r"^QuantABCD", r"^gayn2zqstep"), config=_variable, fits=has_means),
    _layout("mbt2018-vbr", (*GDN_MODEL, r"^QuantABCD", r"^scale_to_context"), config=_variable),
)  # fmt: skip
