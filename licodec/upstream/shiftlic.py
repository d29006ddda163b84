"""ShiftLIC's layouts: the classes are one name in three training scripts, told apart by their parts."""

from __future__ import annotations

import re

from licodec.upstream.layouts import PRIOR, Layout, State

# the masked convolutions and the networks of TinyLIC's context, which are counted from one
MULTISTAGE = (
    (r"^sc_transform_(\d)\.", lambda m: f"spatial_context.{int(m[1]) - 1}."),
    (r"^entropy_parameters_(\d)\.", lambda m: f"entropy_parameters.{int(m[1]) - 1}."),
    (r"^cc_transforms\.", "channel_context."),
)
MASKS = (r"sc_transform_\d\.mask",)
RENAMES = (
    *PRIOR,
    *MULTISTAGE,
    (r"^encoder\.", "g_a."),
    (r"^decoder\.", "g_s."),
    (r"^hyperencoder\.", "h_a."),
    (r"^hyperdecoder\.", "h_s."),
    (r"\.CheapChannel\.", ".channel."),
    (r"\.CheapSpatial\.", ".spatial."),
    (r"\.fusion(\d)\.", lambda m: f".fusion.{int(m[1]) - 1}."),
)
MARKS = (r"^encoder\.2\.conv1\.", r"^hyperdecoder\.10\.conv2\.")


def _config(state: State) -> dict[str, object]:
    halvings = sorted((k for k in state if re.fullmatch(r"g_a\.\d+\.weight", k)), key=lambda k: int(k.split(".")[1]))
    *widths, m = (state[name].shape[0] for name in halvings)
    return {"widths": widths, "N": state["h_a.2.conv1.weight"].shape[0], "M": m}


LAYOUTS = (
    Layout("shiftlic-large", (*MARKS, r"^sc_transform_1\."), _config, RENAMES, dropped=MASKS),
    Layout("shiftlic-middle", (*MARKS, r"\.CheapChannel\."), _config, RENAMES, never=(r"^sc_transform",)),
    Layout("shiftlic-small", MARKS, _config, RENAMES, never=(r"\.CheapChannel\.",)),
)
