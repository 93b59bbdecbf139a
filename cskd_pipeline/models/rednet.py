"""RedNet: ResNets whose spatial operator is involution (Li et al., CVPR 2021, arXiv 2103.06255), as models of timm.

No weights are included; `checkpoint_filter_fn` gives those of the official files the names used here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

GROUP_CHANNELS = 16
"""Channels that share one kernel at a position."""

_REDUCTION = 4


class Involution(nn.Module):
    """A filter of `kernel` x `kernel` for every position, computed from the input there: [B, C, H, W] to [B, C, h, w].

    out[b, c, p] = sum_k kernel[b, c // 16, k, p] * x[b, c, stride * p + dilation * k], k centred on 0 and x zero
    outside. The kernels are a bottleneck of two 1x1 convolutions of x, average-pooled first if `stride` > 1.
    h = ceil(H / stride). Sums are fp32 whatever autocast is on; the result has the dtype of x.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        assert channels % GROUP_CHANNELS == 0, (
            f"involution takes a multiple of {GROUP_CHANNELS} channels, not {channels}"
        )
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        inner = channels // _REDUCTION
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        # Submodules are called as in the official files.
        reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.conv1 = nn.Sequential(OrderedDict(conv=reduce, bn=nn.BatchNorm2d(inner), act=nn.ReLU(inplace=True)))
        span = nn.Conv2d(inner, kernel**2 * (channels // GROUP_CHANNELS), 1)
        self.conv2 = nn.Sequential(OrderedDict(conv=span))
        for conv in (reduce, span):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        assert span.bias is not None
        nn.init.zeros_(span.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """As the class says."""
        kernel_BGKhw = torch.unflatten(self.conv2(self.conv1(self.pool(x_BCHW))), 1, (-1, self.kernel**2))
        dtype = torch.promote_types(x_BCHW.dtype, torch.float32)
        window = self.kernel, self.stride, self.dilation
        out_BChw: Tensor = _Involve.apply(x_BCHW.to(dtype), kernel_BGKhw.to(dtype), window)
        return out_BChw.to(x_BCHW.dtype)


class _Involve(torch.autograd.Function):
    """The sum over the window, one place of it at a time: unfolding the input would take kernel^2 times its memory."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, kernel_BGKhw: Tensor, window: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(x_BCHW, kernel_BGKhw)
        ctx.window = window
        kernel, _, dilation = window
        batch, groups, _, height, width = kernel_BGKhw.shape
        padded = _padded_groups(x_BCHW, groups, margin=dilation * (kernel // 2))
        out = x_BCHW.new_zeros(batch, groups, padded.shape[2], height, width)
        for place in range(kernel**2):
            out.addcmul_(_shifted(padded, place, kernel_BGKhw, window), kernel_BGKhw[:, :, place, None])
        return out.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BChw: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, kernel_BGKhw = ctx.saved_tensors
        kernel, _, dilation = ctx.window
        margin = dilation * (kernel // 2)
        padded = _padded_groups(x_BCHW, kernel_BGKhw.shape[1], margin=margin)
        grad = torch.unflatten(grad_BChw, 1, padded.shape[1:3])
        to_x, to_kernel = torch.zeros_like(padded), torch.empty_like(kernel_BGKhw)
        for place in range(kernel**2):
            _shifted(to_x, place, kernel_BGKhw, ctx.window).addcmul_(grad, kernel_BGKhw[:, :, place, None])
            to_kernel[:, :, place] = (_shifted(padded, place, kernel_BGKhw, ctx.window) * grad).sum(2)
        height, width = x_BCHW.shape[2:]
        inside = to_x.flatten(1, 2)[:, :, margin : margin + height, margin : margin + width]
        return inside, to_kernel, None


def _padded_groups(x_BCHW: Tensor, groups: int, *, margin: int) -> Tensor:
    """[B, G, C / G, H + 2 margin, W + 2 margin], zero outside."""
    return torch.unflatten(pad(x_BCHW, (margin,) * 4), 1, (groups, -1))


def _shifted(padded: Tensor, place: int, kernel_BGKhw: Tensor, window: tuple[int, int, int]) -> Tensor:
    """A view of what `place` of the window, counted row by row, sees from every output position."""
    kernel, stride, dilation = window
    top, left = (dilation * offset for offset in divmod(place, kernel))
    height, width = kernel_BGKhw.shape[3:]
    return padded[..., top : top + stride * (height - 1) + 1 : stride, left : left + stride * (width - 1) + 1 : stride]


class InvolutionBottleneck(Bottleneck):
    """timm's bottleneck block with an involution of 7 x 7 in place of the 3 x 3 convolution."""

    def __init__(self, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        replaced = self.conv2
        self.conv2 = Involution(  # type: ignore[assignment]
            replaced.in_channels, 7, stride=replaced.stride[0], dilation=replaced.dilation[0]
        )


class RedNet(ResNet):
    """timm's ResNet of bottlenecks with involutions, also in the stem: 3x3 conv, involution, 3x3 conv, max-pool.

    It takes the arguments of timm's ResNet and has its methods.
    """

    def __init__(self, layers: tuple[int, ...], **settings: Any) -> None:
        # timm's annotation means the class of the block.
        super().__init__(InvolutionBottleneck, layers, stem_type="deep", stem_width=32, **settings)  # type: ignore[arg-type]
        self.conv1[3] = Involution(32, 3)

    @staticmethod
    def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an official file (of mmcls) under the names used here; others as they are."""
        return {_own_name(name): value for name, value in weights.items()}


_OFFICIAL: Mapping[str, str] = MappingProxyType(
    {
        "stem.0.conv.": "conv1.0.",
        "stem.0.bn.": "conv1.1.",
        "stem.1.": "conv1.3.",
        "stem.2.": "conv1.4.",
        "stem.4.conv.": "conv1.6.",
        "stem.4.bn.": "bn1.",
        "head.fc.": "fc.",
    }
)
"""Beginnings of names in official files that are called otherwise here."""


def _own_name(name: str) -> str:
    name = name.removeprefix("backbone.")
    for official, own in _OFFICIAL.items():
        if name.startswith(official):
            return own + name.removeprefix(official)
    return name


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: RedNet) -> dict[str, Tensor]:
    """timm's hook for checkpoints: the weights under the model's own names."""
    return model.own_names(state_dict.get("state_dict", state_dict))


def _rednet(name: str, layers: tuple[int, ...], pretrained: bool, settings: dict[str, Any]) -> RedNet:
    model: RedNet = build_model_with_cfg(
        RedNet, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, layers=layers, **settings
    )
    return model


_CONFIG = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1.0",
    "classifier": "fc",
    "paper_ids": "arXiv:2103.06255",
}

default_cfgs = generate_default_cfgs({f"rednet{depth}.untrained": _CONFIG for depth in (26, 38, 50, 101, 152)})


@register_model
def rednet26(pretrained: bool = False, **settings: Any) -> RedNet:
    """9.2 million parameters at 1,000 classes."""
    return _rednet("rednet26", (1, 2, 4, 1), pretrained, settings)


@register_model
def rednet38(pretrained: bool = False, **settings: Any) -> RedNet:
    """12.4 million parameters at 1,000 classes."""
    return _rednet("rednet38", (2, 3, 5, 2), pretrained, settings)


@register_model
def rednet50(pretrained: bool = False, **settings: Any) -> RedNet:
    """15.5 million parameters at 1,000 classes."""
    return _rednet("rednet50", (3, 4, 6, 3), pretrained, settings)


@register_model
def rednet101(pretrained: bool = False, **settings: Any) -> RedNet:
    """25.7 million parameters at 1,000 classes."""
    return _rednet("rednet101", (3, 4, 23, 3), pretrained, settings)


@register_model
def rednet152(pretrained: bool = False, **settings: Any) -> RedNet:
    """34.0 million parameters at 1,000 classes."""
    return _rednet("rednet152", (3, 8, 36, 3), pretrained, settings)
