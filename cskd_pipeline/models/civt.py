"""CivT: a vision transformer with the inductive biases of convolution and involution, as models of timm.

The student of Co-advise (Ren et al., CVPR 2022, arXiv 2106.12378): each of two stems gives the patches a part and one
token its content, and each of these tokens has a head of its own, for a teacher of the same kind of network. No weights
are included.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from cskd_pipeline.models.rednet import Involution

_STEM = 64


class TwoStems(nn.Module):
    """Tokens [B, 2 + N, D] of images: the means over positions of both stems' outputs, then their sum at each position.

    Each stem is three layers, the first of stride 2, and a projection of all pixels of a patch that remain. It is the
    `patch_embed` of a timm ViT, and has the attributes of one.
    """

    def __init__(
        self, *, img_size: int | tuple[int, int], patch_size: int, in_chans: int, embed_dim: int, **_: Any
    ) -> None:
        super().__init__()
        assert patch_size % 2 == 0, f"the stems halve the patches, so patch_size must be even, found {patch_size}"
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_size = (patch_size, patch_size)
        self.grid_size = self.dynamic_feat_size(self.img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.conv = nn.Sequential(
            *_convolution(in_chans, _STEM, 7, stride=2),
            *_convolution(_STEM, _STEM, 3),
            *_convolution(_STEM, _STEM, 3),
            nn.Conv2d(_STEM, embed_dim, patch_size // 2, stride=patch_size // 2),
        )
        self.inv = nn.Sequential(
            *_convolution(in_chans, _STEM // 2, 3, stride=2),
            *(Involution(_STEM // 2, 3), nn.BatchNorm2d(_STEM // 2), nn.ReLU(inplace=True)),
            *_convolution(_STEM // 2, _STEM, 3),
            nn.Conv2d(_STEM, embed_dim, patch_size // 2, stride=patch_size // 2),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def feat_ratio(self) -> int:
        """Pixels to a position, along a side."""
        return self.patch_size[0]

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the positions in an image of this size."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        """As the class says; raises ValueError for images of another size, or not of whole patches."""
        height, width = pixels_B3SS.shape[-2:]
        if (height, width) != tuple(self.img_size):
            raise ValueError(f"images of {self.img_size[0]} x {self.img_size[1]} are expected, not {height} x {width}")
        if height % self.patch_size[0] or width % self.patch_size[1]:
            raise ValueError(
                f"{height} x {width} pixels are no whole patches of {self.patch_size[0]}; choose other images "
                "or patches"
            )
        conv_BND = self.conv(pixels_B3SS).flatten(2).transpose(1, 2)
        # As the official code does.
        with torch.autocast(pixels_B3SS.device.type, enabled=False):
            inv_BND = self.inv(pixels_B3SS).flatten(2).transpose(1, 2)
        return torch.cat([conv_BND.mean(1, keepdim=True), inv_BND.mean(1, keepdim=True), conv_BND + inv_BND], dim=1)


def _convolution(channels: int, out: int, kernel: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)


class CivT(VisionTransformer):
    """A timm ViT whose tokens are class, convolution, involution, patches; the first three have a linear head each.

    Called on images it returns the mean of the three heads' logits.
    """

    head_conv: nn.Module
    head_inv: nn.Module

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            proj_drop_rate=proj_drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            embed_layer=TwoStems,
            weight_init="skip",
        )
        self.num_prefix_tokens = 3
        self.pos_embed = nn.Parameter(torch.empty(1, 3 + self.patch_embed.num_patches, embed_dim))
        self.reset_classifier(num_classes)
        self.weight_init_mode = ""
        self.init_weights(needs_reset=False)

    def get_classifier(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The heads of class, convolution and involution."""
        return self.head, self.head_conv, self.head_inv

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give it new heads for `num_classes`, or none for 0."""
        assert global_pool in (None, "", "token"), f"each head reads its own token, not a pooling {global_pool!r}"
        self.num_classes = num_classes
        for name in ("head", "head_conv", "head_inv"):
            head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
            setattr(self, name, head.to(self.pos_embed).train(self.training))

    def three_logits(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, C] of the heads of class, convolution and involution, of what `forward_features` gave."""
        cls_BD, conv_BD, inv_BD = self.head_drop(tokens_BND[:, :3]).unbind(1)
        return self.head(cls_BD), self.head_conv(conv_BD), self.head_inv(inv_BD)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean of the three heads' logits, or with `pre_logits` of the three tokens."""
        cls, conv, inv = x[:, :3].unbind(1) if pre_logits else self.three_logits(x)
        return (cls + conv + inv) / 3


def _civt(name: str, pretrained: bool, settings: dict[str, Any]) -> CivT:
    features = {"out_indices": settings.pop("out_indices", 3), "feature_cls": "getter"}
    model: CivT = build_model_with_cfg(
        CivT, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, feature_cfg=features, **settings
    )
    return model


_CONFIG = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": ("patch_embed.conv.0", "patch_embed.inv.0"),
    "classifier": ("head", "head_conv", "head_inv"),
    "paper_ids": "arXiv:2106.12378",
}

default_cfgs = generate_default_cfgs({f"civt_{size}.untrained": _CONFIG for size in ("ti", "s", "b")})


@register_model
def civt_ti(pretrained: bool = False, **settings: Any) -> CivT:
    """7.6 million parameters at 1,000 classes."""
    return _civt("civt_ti", pretrained, {"embed_dim": 192, "num_heads": 3, **settings})


@register_model
def civt_s(pretrained: bool = False, **settings: Any) -> CivT:
    """25.8 million parameters at 1,000 classes."""
    return _civt("civt_s", pretrained, {"embed_dim": 384, "num_heads": 6, **settings})


@register_model
def civt_b(pretrained: bool = False, **settings: Any) -> CivT:
    """93.9 million parameters at 1,000 classes."""
    return _civt("civt_b", pretrained, {"embed_dim": 768, "num_heads": 12, **settings})
