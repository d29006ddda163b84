"""How alike two pictures are. PSNR is `search.pixel_psnr`; these need libraries."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from licodec.errors import UsageError

Metric = Callable[[np.ndarray, np.ndarray], float | None]


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float | None:
    """MS-SSIM of two uint8 RGB pictures (Wang et al. 2003, five scales), None if they are too small."""
    if min(a.shape[:2]) < 161:
        return None
    import torch
    from pytorch_msssim import ms_ssim as measure

    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float32)) for p in (a, b))
    return float(measure(x, y, data_range=255.0))


def ssimulacra2(a: np.ndarray, b: np.ndarray) -> float | None:
    """SSIMULACRA 2.1 of the decoded picture `a` against `b`, by `licodec.ssimulacra2`.

    100 is the same, 90 visually lossless, 70 high quality, 30 low. None if a side is under 8 pixels.
    """
    from licodec.ssimulacra2 import of_pixels

    return of_pixels(a, b)


@functools.cache
def _lpips_net() -> Any:
    import contextlib
    import warnings

    import lpips

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return lpips.LPIPS(net="alex", verbose=False).eval()
        except OSError as error:  # urllib's errors are such
            raise UsageError(
                f"LPIPS needs torchvision's AlexNet weights, which cannot be downloaded ({error}); "
                "put alexnet-owt-7be5be79.pth into TORCH_HOME/hub/checkpoints, or leave lpips out of --metrics"
            ) from None


def lpips(a: np.ndarray, b: np.ndarray) -> float | None:
    """LPIPS with AlexNet (Zhang et al., CVPR 2018), lower is better; None if a side is under 64 pixels."""
    if min(a.shape[:2]) < 64:
        return None
    import torch

    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1) for p in (a, b))
    with torch.inference_mode():
        return float(_lpips_net()(x, y))


METRICS: dict[str, Metric] = {"ms-ssim": ms_ssim, "ssimulacra2": ssimulacra2, "lpips": lpips}
_MODULES = {"ms-ssim": "pytorch_msssim", "ssimulacra2": "torch", "lpips": "lpips"}


def available(name: str) -> bool:
    """Whether a metric's library is installed."""
    from importlib.util import find_spec

    return find_spec(_MODULES[name]) is not None


def choose(text: str) -> list[str]:
    """The metrics named, besides PSNR. Raises UsageError if one is unknown or its library is missing."""
    chosen = []
    for name in (part.strip() for part in text.split(",")):
        if name in ("", "psnr"):
            continue
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}; known: psnr, {', '.join(METRICS)}")
        if not available(name):
            extra = "lpips" if name == "lpips" else "licodec[bench]"
            raise UsageError(f"{name} needs a package that is not installed: pip install '{extra}'")
        chosen.append(name)
    if "lpips" in chosen:
        _lpips_net()  # before hours of measuring
    return chosen
