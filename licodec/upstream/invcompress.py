"""InvCompress's layout."""

from __future__ import annotations

from licodec.models.invcompress import KERNELS
from licodec.upstream.layouts import PRIOR, Layout, State, count


def _config(state: State) -> dict[str, object]:
    operations = count(state, r"invertible\.operations\.(\d+)\.")  # of each size: 1x1 convolution, couplings
    growth, features = (state[f"enhance_a.layers.{layer}.weight"].shape[0] for layer in ("0.convs.0", "1"))
    return {
        "N": state["h_a.0.weight"].shape[0],
        "couplings": operations // len(KERNELS) - 1,
        "features": features,
        "growth": growth,
    }


LAYOUTS = (
    Layout(
        "invcompress",
        (r"^inv\.operations\.1\.weight$", r"^enh\.forw_enh\."),
        _config,
        (
            *PRIOR,
            (r"^inv\.", "invertible."),
            (r"^enh\.forw_enh\.", "enhance_a."),
            (r"^enh\.back_enh\.", "enhance_s."),
            (r"^attention\.forw_att\.", "attention_a."),
            (r"^attention\.back_att\.", "attention_s."),
            (r"\.layers\.([04])\.conv(\d)\.", lambda m: f".layers.{m[1]}.convs.{int(m[2]) - 1}."),
            (r"\.([GH][12])\.conv(\d)\.", lambda m: f".{m[1]}.{2 * int(m[2]) - 2}."),  # activations between them
        ),
        dropped=(r"context_prediction\.mask",),
    ),
)
