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

    def orthogonality_loss(self) -> Tensor:
        """Mean squared difference of the smaller Gram matrix from the identity."""
        weight = self.linear.weight
        gram = weight @ weight.T if weight.shape[1] > weight.shape[0] else weight.T @ weight
        return F.mse_loss(gram, torch.eye(len(gram), device=gram.device))


def _initial_factors(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.tensor([0.5, 0.5, 0.5, 0.0]).repeat_interleave(channels).view(1, -1, 1, 1))


class WaveletDown(nn.Module):
    """Haar analysis (bands LL, LH, HL, HH one after another), scaled, mapped; halves the size."""

    haar: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("haar", torch.zeros(4, 1, 2, 2))
        self.scaling_factors = _initial_factors(in_channels)
        self.OLP = OrthogonalLinear(4 * in_channels, out_channels)
        reset_haar(self.haar)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        bands = [F.conv2d(x, band.expand(channels, 1, 2, 2), stride=2, groups=channels) for band in self.haar]
        return self.OLP(torch.cat(bands, 1) * self.scaling_factors.exp())


class WaveletUp(nn.Module):
    """The mirror of `WaveletDown`; doubles the size."""

    haar: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("haar", torch.zeros(4, 1, 2, 2))
        self.scaling_factors = _initial_factors(out_channels)
        self.OLP = OrthogonalLinear(in_channels, 4 * out_channels)
        reset_haar(self.haar)

    def forward(self, x: Tensor) -> Tensor:
        bands = self.OLP(x) / self.scaling_factors.exp()
        b, c4, h, w = bands.shape
        interleaved = bands.view(b, 4, c4 // 4, h, w).transpose(1, 2).reshape(b, c4, h, w)
        return F.conv_transpose2d(interleaved, self.haar.repeat(c4 // 4, 1, 1, 1), stride=2, groups=c4 // 4)


def reset_haar(filters: Tensor) -> None:
    """Fill [4, 1, 2, 2] with the Haar filters LL, LH, HL, HH."""
    low, high = torch.tensor([0.5**0.5, 0.5**0.5]), torch.tensor([0.5**0.5, -(0.5**0.5)])
    for i, (column, row) in enumerate(((low, low), (low, high), (high, low), (high, high))):
        filters[i, 0] = column[None, :] * row[:, None]


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
