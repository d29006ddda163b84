"""HPCM's layout: base, large and phi alike; what a variant lacks or has more of is read off the names."""

from __future__ import annotations

import itertools
import re

from licodec.upstream.layouts import Layout, State, count

ADAPTORS = {"1": (0, 1), "2": (1, 3), "3": (4, 6)}  # of each scale: the first of its steps, and how many
ATTENTION = {"q": "query", "k": "key", "v": "value", "out": "out"}


def _adaptor(match: re.Match[str]) -> str:
    """The authors take a scale's adaptors in the order last, first, second...; ours lie in the order of the steps."""
    first, steps = ADAPTORS[match[1]]
    return f"adaptors.{first + (int(match[2]) + 1) % steps}."


RENAMES = (
    (r"^([gh]_[as])\.branch\.", r"\1."),
    (r"\.branch\.0\.pconv\.", ".conv."),
    (r"\.branch\.0\.", ".conv."),
    (r"\.branch\.1\.", ".expand."),
    (r"\.branch\.3\.", ".reduce."),
    (r"^y_spatial_prior_s1_s2\.", "shared_network."),
    (r"^y_spatial_prior_s3\.", "fine_network."),
    (r"_network\.branch_1\.", "_network.before."),
    (r"_network\.branch_2\.", "_network.after."),
    (r"^y_spatial_prior_adaptor_list_s(\d)\.(\d)\.", _adaptor),
    (r"^adaptive_params_list\.", "gains."),
    (r"^attn_s(\d)\.conv_(\w+)\.", lambda m: f"fusions.{int(m[1]) - 1}.{ATTENTION[m[2]]}."),
    (r"^context_net\.", "refinements."),
)
DROPPED = (r"scale_table", r"(quantized_cdf|cdf_length|offset)_[yz]", r"entropy_estimation\..*")


def _blocks(state: State, network: str) -> list[int]:
    return [count(state, rf"{network}\.{part}\.(\d+)\.conv\.") for part in ("before", "after")]


def _config(state: State) -> dict[str, object]:
    halvings = sorted(int(match[1]) for name in state if (match := re.fullmatch(r"g_a\.(\d+)\.weight", name)))
    *dims, m = (state[f"g_a.{i}.weight"].shape[0] for i in halvings)
    return {
        "M": m,
        "Z": state["means_hyper"].shape[1],
        "dims": dims,
        "depths": [after - before - 1 for before, after in itertools.pairwise(halvings)],
        "shared_depths": _blocks(state, "shared_network"),
        "fine_depths": _blocks(state, "fine_network"),
        "windows": [4, 8, 8][: count(state, r"fusions\.(\d)\.")],
    }


LAYOUTS = (
    Layout("hpcm", (r"^y_spatial_prior_adaptor_list_s3\.", r"^g_a\.branch\.0\."), _config, RENAMES, dropped=DROPPED),
)
