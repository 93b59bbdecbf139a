"""Dense and global logits of any timm classifier, and features, one fixed chunk of crops at a time.

A classifier that is linear after average pooling commutes with the pooling (CSKD, ICCV 2023, section 3.1): the mean
over positions of head(f[:, :, p]) is the model's own output. For other heads (an activation or a normalisation after
pooling) it is not, and `global_source` says which of the two is g.

A vision transformer's dense logits are its head on every patch token. A model with neither a feature map nor patch
tokens that its head takes has a single position, whose logits are the global ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cskd_pipeline.batch import Features, FeatureShape
from cskd_pipeline.errors import UsageError, first_line
from cskd_pipeline.models.teacher.spec import TeacherSpec

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A model in evaluation mode on its device, called on finished crops.

    Attributes:
        spec: what it is.
        grid: (H, W) of its feature map for the crop size it was probed with.
        has_tokens: whether it has a patch token at every position.
    """

    def __init__(self, model: nn.Module, spec: TeacherSpec, *, size: int, device: torch.device) -> None:
        """Prepare the model and find its grid at crop size `size`.

        Raises:
            UsageError: the model gives no logits for such crops.
        """
        self.spec, self.device, self._size = spec, device, size
        self.has_tokens = _has_patches(model)
        self._format = torch.channels_last if spec.channels_last else torch.contiguous_format
        self._model: Any = model.eval().requires_grad_(False).to(device).to(memory_format=self._format)
        forward: Callable[[Tensor, bool, tuple[int, ...]], list[Tensor]] = self._forward
        self._run = torch.compile(forward) if spec.compile else forward
        with torch.inference_mode():
            dense = self._probe(torch.zeros(1, 3, size, size, device=device))
        self.grid = (dense.shape[1], dense.shape[2])

    @property
    def positions(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def layers(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """The numbers of these blocks, from 0 on, the last one as -1.

        Raises:
            UsageError: the model has no patch tokens, or no such block.
        """
        if not hasattr(self._model, "blocks") or not self.has_tokens:
            raise UsageError(
                f"teacher {self.spec.model} has no patch tokens to store; choose a vision transformer, such as "
                "deit3_small_patch16_224, or leave features.tokens out"
            )
        depth = len(self._model.blocks)
        wrong = [layer for layer in layers if not -1 <= layer < depth]
        if wrong:
            raise UsageError(
                f"teacher {self.spec.model} has no block {wrong[0]}; it has {depth}, from 0 to {depth - 1}: change "
                "--target-arg features.tokens.layers"
            )
        return tuple(-1 if layer == depth - 1 else layer for layer in layers)

    @torch.inference_mode()
    def features(self, layers: tuple[int, ...]) -> FeatureShape:
        """The features that it has, with the patch tokens of these blocks, if any; errors as `layers`."""
        layers = self.layers(layers) if layers else ()
        _, _, found = self.answer(torch.zeros(1, 3, self._size, self._size), pooled=True, layers=layers)
        assert found.pooled_BD is not None
        return FeatureShape(
            pooled=found.pooled_BD.shape[1],
            tokens=None if found.tokens_BLPD is None else found.tokens_BLPD.shape[3],
            layers=layers,
            grid=self.grid,
        )

    def __call__(self, pixels_b3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Dense logits fp32 [b, P, C] and global logits fp32 [b, C] of any number of crops."""
        dense, global_, _ = self.answer(pixels_b3SS)
        return dense, global_

    @torch.inference_mode()
    def answer(
        self, pixels_b3SS: Tensor, *, pooled: bool = False, layers: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor, Features]:
        """The logits, and features: the pooled one if asked for, and the patch tokens of these blocks, if any.

        The tokens are the blocks' output, that of the last one after the final norm. Logits do not depend on what else
        is asked for.
        """
        chunks = torch.split(pixels_b3SS, self.spec.chunk)
        parts = [self._chunk(part, pooled=pooled, layers=layers) for part in chunks]
        dense, mean, head, *more = (torch.cat(column) for column in zip(*parts, strict=True))
        features = Features(more[0] if pooled else None, more[-1] if layers else None)
        return dense.flatten(1, 2), mean if self.spec.global_source == "mean" else head, features

    @torch.inference_mode()
    def gap(self, pixels_b3SS: Tensor) -> tuple[float, float, float]:
        """Largest |mean of dense - head|, largest logit, and the share of crops whose global winner differs."""
        _, mean, head, *_ = self._chunk(pixels_b3SS[: self.spec.chunk])
        changed = (mean.argmax(1) != head.argmax(1)).double().mean()
        return float((mean - head).abs().max()), float(head.abs().max()), float(changed)

    def _probe(self, pixels: Tensor) -> Tensor:
        try:
            dense, _, head = self._forward(pixels, False, ())
            if head.shape != (len(pixels), self.spec.classes) or dense.shape[3] != self.spec.classes:
                raise ValueError(f"it returns {tuple(head.shape)} where {(len(pixels), self.spec.classes)} is needed")
            return dense
        # What models say to an input that they do not take, and those without timm's two-part forward pass.
        except Exception as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"teacher {self.spec.model} gives no dense logits for crops of {pixels.shape[2]} x {pixels.shape[3]} "
                f"pixels ({first_line(error)}); mend or leave out --teacher-arg, choose another, such as "
                "regnety_160 or resnet50, or another --size"
            ) from error

    def _chunk(self, pixels_b3SS: Tensor, *, pooled: bool = False, layers: tuple[int, ...] = ()) -> list[Tensor]:
        crops = len(pixels_b3SS)
        if crops < self.spec.chunk:
            padding = pixels_b3SS.new_zeros(self.spec.chunk - crops, *pixels_b3SS.shape[1:])
            pixels_b3SS = torch.cat([pixels_b3SS, padding])
        autocast = (
            torch.autocast(self.device.type, _AUTOCAST[self.spec.precision])
            if self.spec.precision in _AUTOCAST
            else contextlib.nullcontext()
        )
        # Without TF32 "fp32" means the same on every device; without benchmarking, the same kernel every time.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with autocast, exact:
            found = self._run(pixels_b3SS.to(self.device, memory_format=self._format), pooled, layers)
        return [part[:crops] for part in found]

    def _forward(self, pixels: Tensor, pooled: bool, layers: tuple[int, ...]) -> list[Tensor]:
        """Dense, mean and own logits, then what is asked for of the pooled feature and the tokens [b, L, P, D]."""
        more = []
        if layers:
            features, tokens = self._model.forward_intermediates(
                pixels, indices=[*layers], norm=False, output_fmt="NLC"
            )
            if layers[-1] == -1:
                tokens[-1] = features[:, self._model.num_prefix_tokens :]  # after the final norm
            more = [torch.stack([layer.float() for layer in tokens], 1)]
        else:
            features = self._model.forward_features(pixels)
        if pooled:
            more.insert(0, self._model.forward_head(features, pre_logits=True).flatten(1).float())
        return [*self._logits(pixels, features), *more]

    def _logits(self, pixels: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self._model.forward_head(features).float()
        channels = self._model.num_features
        # Every position becomes a map of 1 x 1, or a sequence of one patch, of its own.
        if features.ndim == 4 and features.shape[1] == channels:
            height, width = features.shape[2:]
            places = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        elif features.ndim == 4 and features.shape[3] == channels:
            height, width = features.shape[1:3]
            places = features.reshape(-1, 1, 1, channels)
        elif self.has_tokens and features.ndim == 3:
            height, width = self._model.patch_embed.dynamic_feat_size(tuple(pixels.shape[-2:]))
            prefix = self._model.num_prefix_tokens
            places = features[:, prefix:].reshape(-1, 1, channels)
            if self._model.global_pool != "token":  # an average leaves out the tokens before the patches
                places = torch.cat([places.new_zeros(len(places), prefix, channels), places], 1)
        else:
            return head[:, None, None], head, head
        dense = self._model.forward_head(places).float().reshape(len(pixels), height, width, -1)
        return dense, dense.mean((1, 2)), head


def _has_patches(model: Any) -> bool:
    """Whether its features end in a patch token for every position, which the head can be applied to alone."""
    return (
        isinstance(model, VisionTransformer | Eva | Beit)
        and not isinstance(model, VisionTransformerDistilled)
        and model.global_pool in ("token", "avg")
        and getattr(model, "attn_pool", None) is None
    )
