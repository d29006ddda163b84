"""The side branch of AuxT (Li et al., "On Disentangled Training", ICLR 2025): Haar wavelets and linear maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OrthogonalLinear(nn.Module):
    """A linear map over channels, trained towards orthogonality; [B, C, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def orthogonality_loss(model: nn.Module) -> Tensor:
    """Mean squared difference of the smaller Gram matrix from the identity, summed over a model's maps (equation 6)."""
    weights = [m.linear.weight for m in model.modules() if isinstance(m, OrthogonalLinear)]
    grams = [w @ w.T if w.shape[1] > w.shape[0] else w.T @ w for w in weights]
    return torch.stack([F.mse_loss(gram, torch.eye(len(gram), device=gram.device)) for gram in grams]).sum()


class Wavelet(nn.Module):
    """What both directions have: the Haar filters, and the logarithms of the bands' scales."""

    haar: Tensor  # [4, 1, 2, 2]: LL, LH, HL, HH

    def __init__(self, channels: int) -> None:
        super().__init__()
        signs = [[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]
        self.register_buffer("haar", torch.tensor(signs, device="cpu")[:, None] / 2)
        scales = torch.tensor([0.5, 0.5, 0.5, 0.0]).repeat_interleave(channels)
        self.scaling_factors = nn.Parameter(scales.view(1, -1, 1, 1))


class WaveletDown(Wavelet):
    """Haar analysis (bands LL, LH, HL, HH one after another), scaled, mapped; halves the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels)
        self.OLP = OrthogonalLinear(4 * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        bands = [F.conv2d(x, band.expand(channels, 1, 2, 2), stride=2, groups=channels) for band in self.haar]
        return self.OLP(torch.cat(bands, 1) * self.scaling_factors.exp())


class WaveletUp(Wavelet):
    """The mirror of `WaveletDown`; doubles the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(out_channels)
        self.OLP = OrthogonalLinear(in_channels, 4 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        bands = self.OLP(x) / self.scaling_factors.exp()
        b, c4, h, w = bands.shape
        interleaved = bands.view(b, 4, c4 // 4, h, w).transpose(1, 2).reshape(b, c4, h, w)
        return F.conv_transpose2d(interleaved, self.haar.repeat(c4 // 4, 1, 1, 1), stride=2, groups=c4 // 4)


def side_branch(x: Tensor, main: nn.Sequential, side: nn.ModuleList, joints: tuple[int, ...]) -> Tensor:
    """Run a transform and the branch beside it, which is added after the layers `joints`.

    A branch whose size differs is resized (bilinear), as SAAF's does.
    """
    branch = x
    stages = iter(side)
    for i, layer in enumerate(main):
        x = layer(x)
        if i in joints:
            branch = next(stages)(branch)
            if branch.shape[2:] != x.shape[2:]:
                branch = F.interpolate(branch, size=x.shape[2:], mode="bilinear", align_corners=False)
            x = x + branch
    return x
