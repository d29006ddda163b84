"""SAAF (Ma et al., CVPR 2026): DCAE's structure with global tokens in the windows, and a side branch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import conv3x3
from licodec.layers.dictionary import Bottleneck, GatedStage
from licodec.layers.wavelet import OrthogonalLinear, side_branch
from licodec.layers.window import WindowAttention, from_windows, padded, to_windows
from licodec.models.dcae import DCAEConfig, DictionaryModel

GLOBAL_TOKENS = 2
# where the side branch joins: after these layers of g_a and of g_s
JOINTS = (0, 2, 4, 6)
DENOISING_WEIGHT = 0.1  # ours: the authors publish no training script
SIDE_GAIN = 1 + 0.1 / 4  # of the decoder's side branch; the attention it is computed from always averages 1/4


@dataclass(frozen=True)
class SAAFConfig(DCAEConfig):
    """As DCAE's."""


class GlobalWindowAttention(nn.Module):
    """Window attention mixed with attention to two tokens, learned ones plus the window's mean."""

    global_alpha: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.local = WindowAttention(dim, heads, window)
        self.window = window
        self.global_tokens = nn.Parameter(torch.empty(1, GLOBAL_TOKENS, dim))
        nn.init.trunc_normal_(self.global_tokens, std=0.02)
        self.global_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.register_buffer("global_alpha", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        local, window = self.local, self.window
        windows = to_windows(padded(x, window), window)
        qkv = local.qkv(windows)
        near = local.attend(qkv)
        b, rows, columns, n, dim = windows.shape
        query = qkv[..., :dim].reshape(-1, n, local.heads, dim // local.heads).transpose(1, 2)
        tokens = self.global_tokens + windows.mean(3).view(-1, 1, dim)
        key, value = (
            self.global_kv(tokens).view(-1, GLOBAL_TOKENS, 2, local.heads, dim // local.heads).permute(2, 0, 3, 1, 4)
        )
        far = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        far = far.transpose(1, 2).reshape(b, rows, columns, n, dim)
        mixed = (1 - self.global_alpha) * near + self.global_alpha * far
        return local.proj(from_windows(mixed, window))[:, :h, :w]


class SideDown(nn.Module):
    """Channels weighted by an attention over four learned gains, mapped, halved in size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.olp = OrthogonalLinear(in_channels, out_channels)
        middle = max(in_channels // 4, 4)
        self.freq_attn = nn.Sequential(nn.Conv2d(in_channels, middle, 1), nn.GELU(), nn.Conv2d(middle, 4, 1))
        self.freq_weights = nn.Parameter(torch.tensor([1.0, 0.8, 0.8, 0.6]))

    def forward(self, x: Tensor) -> Tensor:
        gains = self.freq_attn(x).softmax(1) * self.freq_weights.exp().view(1, 4, 1, 1)
        return self.olp(x * gains.sum(1, keepdim=True))


class SideUp(nn.Module):
    """A linear map with a fixed gain; doubled in size afterwards."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.olp = OrthogonalLinear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return SIDE_GAIN * self.olp(x)


class DenoisingPrior(nn.Module):
    """Predicts the noise added to y, from z_hat: a regulariser of the latent, in training only."""

    def __init__(self, m: int, z: int) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(1, m), nn.SiLU(), nn.Linear(m, m))
        self.condition_encoder = nn.Sequential(
            nn.Conv2d(z, 256, 1), nn.GroupNorm(8, 256), nn.GELU(), conv3x3(256, m), nn.Dropout(0.1), nn.GELU()
        )
        self.noise_predictor = nn.Sequential(
            conv3x3(m, m),
            nn.GroupNorm(8, m),
            nn.SiLU(),
            Bottleneck(m),
            Bottleneck(m),
            conv3x3(m, m),
            nn.GroupNorm(8, m),
            nn.SiLU(),
            nn.Conv2d(m, m, 1),
        )

    def forward(self, y: Tensor, z_hat: Tensor) -> Tensor:
        """Mean squared error of the prediction, for noise of a random strength, one per picture."""
        condition = F.interpolate(self.condition_encoder(z_hat), size=y.shape[2:], mode="bilinear", align_corners=False)
        time = torch.rand(y.shape[0], 1, device=y.device)
        noise = torch.randn_like(y)
        noisy = y + noise * time[:, :, None, None]
        predicted = self.noise_predictor(noisy + self.time_embed(time)[:, :, None, None] + condition)
        return F.mse_loss(predicted, noise)


class SAAF(DictionaryModel):
    """The model as published; its training-time denoising prior is not part of inference."""

    name = "saaf"
    training_only = ("denoising",)

    def __init__(self, config: SAAFConfig | None = None) -> None:
        config = config or SAAFConfig()
        super().__init__(config)
        widths = [3, *config.dims, config.M]
        pairs = list(itertools.pairwise(widths))
        self.aux_enc = nn.ModuleList(SideDown(a, b) for a, b in pairs)
        self.aux_dec = nn.ModuleList(SideUp(b, a) for a, b in reversed(pairs))

    @classmethod
    def stage(cls, dim: int, depth: int, head_dim: int, window: int) -> GatedStage:
        return GatedStage(dim, [GlobalWindowAttention(dim, dim // head_dim, window) for _ in range(depth)])

    def add_training_parts(self) -> None:
        self.denoising = DenoisingPrior(self.latent_channels, self.hyper_channels)

    def extra_loss(self, y: Tensor, z_hat: Tensor, y_bits: Tensor) -> Tensor:
        return DENOISING_WEIGHT * self.denoising(y, z_hat)

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return side_branch(x, self.g_a, self.aux_enc, JOINTS)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return side_branch(y_hat, self.g_s, self.aux_dec, JOINTS)
