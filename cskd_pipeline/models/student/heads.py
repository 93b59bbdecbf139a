"""Students: class logits alone, a distillation token, a token for each of two teachers, or a second head on the pooled
feature or the last feature map.

Heads after CSKD (arXiv 2307.08500): z_cls from the class token, z_dist from the distillation token, z_patch from
the patch tokens through the SAME head as z_dist. Which of them a loss reads is the objective's business.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from cskd_pipeline.batch import StudentOutput
from cskd_pipeline.record import Record, require_range


@dataclasses.dataclass(frozen=True, slots=True)
class StudentSpec(Record):
    """What it takes to build the same student again.

    `model` is timm's name, `args` are further arguments of timm.create_model. `grid` is (H, W) of the dense logits,
    None for a student without them; with `distillation` a model without a distillation token is given a second head.
    `layers` are the blocks whose patch tokens it shows, the last of them -1 (the last block, after the final norm, or
    the last feature map).
    """

    model: str
    classes: int
    grid: tuple[int, int] | None = None
    args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    drop_path: float = 0.0
    distillation: bool = False
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require_range("the number of classes", self.classes, low=2)
        require_range("drop path", self.drop_path, low=0, high=0.99)
        for side in self.grid or ():
            require_range("a side of the grid", side, low=1)


class Student(nn.Module, abc.ABC):
    """A timm model whose forward pass returns a `StudentOutput`.

    Attributes:
        spec: what it was built from.
        model: the timm model.
        fresh: keys of weights that a file given for the start did not provide.
        size: side in pixels of the crops that it was tried with.
        adapter: an objective's layers between this student and the teacher, which learn with it and are not exported.
        keeps_heads: whether files of weights, which timm loads, hold all of its heads.
    """

    keeps_heads: ClassVar[bool] = True

    def __init__(self, model: Any, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.adapter: nn.Module | None = None
        self.fresh: tuple[str, ...] = ()
        self.size = 0

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's optimizers must not decay besides the one-dimensional ones."""
        listed: set[str] = getattr(self.model, "no_weight_decay", set)()
        # torch keeps signs in the coordinates of an orthogonal matrix and reads them as integers: 0.99 would be 0.
        constrained = {name for name, _ in self.named_parameters() if ".parametrizations." in name}
        return {f"model.{name}" for name in listed} | constrained

    @abc.abstractmethod
    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Logits of every head that this student has."""

    def _features(self, pixels_B3SS: Tensor) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """`forward_features` of a vision transformer, and the patch tokens of the layers that it is to show."""
        model, layers = self.model, self.spec.layers
        if layers is None:
            return model.forward_features(pixels_B3SS), None
        tokens: list[Tensor] = []
        if layers == (-1,):
            features_BTD = model.forward_features(pixels_B3SS)
        else:
            features_BTD, tokens = model.forward_intermediates(
                pixels_B3SS, indices=[*layers[:-1]], norm=False, output_fmt="NLC"
            )
        return features_BTD, (*tokens, features_BTD[:, model.num_prefix_tokens :])

    def _dense(self, pixels_B3SS: Tensor, tokens_BND: Tensor, head: nn.Module) -> Tensor | None:
        """`head` at every position of the grid, over the mean of the normed patch tokens there: [B, C, H, W].

        None without a grid. A linear head commutes with the mean, so pooling first gives the same logits for a fraction
        of the work.
        """
        if self.spec.grid is None:
            return None
        # For these pixels: some models take images of any size.
        rows, columns = self.model.patch_embed.dynamic_feat_size(tuple(pixels_B3SS.shape[-2:]))
        return _pooled_logits(tokens_BND.reshape(len(tokens_BND), rows, columns, -1), self.spec.grid, head)


def _pooled_logits(map_BhwD: Tensor, grid: tuple[int, int], head: nn.Module) -> Tensor:
    """`head` over the mean of each of the grid's tiles: [B, C, H, W]."""
    (height, across), (batch, rows, columns, width) = grid, map_BhwD.shape
    # A reshape and a mean, not adaptive_avg_pool2d: its gradient is deterministic on every device.
    tiles = map_BhwD.reshape(batch, height, rows // height, across, columns // across, width)
    dense_BCHW: Tensor = head(tiles.mean((2, 4))).permute(0, 3, 1, 2)
    return dense_BCHW


def _second_head(width: int, classes: int) -> nn.Linear:
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


class PlainStudent(Student):
    """Any timm classifier, as it is."""

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class logits, and patch tokens where it is to show them."""
        if self.spec.layers is None:
            return StudentOutput(cls_BC=self.model(pixels_B3SS))
        features_BTD, tokens = self._features(pixels_B3SS)
        return StudentOutput(cls_BC=self.model.forward_head(features_BTD), tokens=tokens)


class TokenStudent(Student):
    """A ViT with a class and a distillation token (timm's VisionTransformerDistilled)."""

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class and distillation logits, and dense ones where the student was given a grid.

        timm's own forward pass averages the heads or not, depending on a mode; this one does not consult it.
        """
        model = self.model
        tokens_BND, shown = self._features(pixels_B3SS)
        return StudentOutput(
            cls_BC=model.head(model.head_drop(tokens_BND[:, 0])),
            dist_BC=model.head_dist(model.head_drop(tokens_BND[:, 1])),
            dense_BCHW=self._dense(pixels_B3SS, tokens_BND[:, model.num_prefix_tokens :], model.head_dist),
            tokens=shown,
        )


class CivtStudent(Student):
    """A CivT: a class token, and one for each of two teachers (Co-advise, arXiv 2106.12378)."""

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Logits of the class, the convolution and the involution head."""
        cls_BC, conv_BC, inv_BC = self.model.three_logits(self.model.forward_features(pixels_B3SS))
        return StudentOutput(cls_BC=cls_BC, conv_BC=conv_BC, inv_BC=inv_BC)


class PooledStudent(Student):
    """A plain ViT with a second linear head, fed with the pooled feature and with the patch tokens."""

    keeps_heads: ClassVar[bool] = False

    def __init__(self, model: Any, spec: StudentSpec) -> None:
        super().__init__(model, spec)
        self.head_dist = _second_head(model.head.in_features, spec.classes)

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class and distillation logits, and dense ones where the student was given a grid."""
        model = self.model
        tokens_BND, shown = self._features(pixels_B3SS)
        pooled_BD = model.forward_head(tokens_BND, pre_logits=True)
        # Average-pooling ViTs norm after pooling; per token it puts both inputs of the head on one scale.
        patches_BND = model.fc_norm(tokens_BND[:, model.num_prefix_tokens :])
        return StudentOutput(
            cls_BC=model.head(pooled_BD),
            dist_BC=self.head_dist(pooled_BD),
            dense_BCHW=self._dense(pixels_B3SS, patches_BND, self.head_dist),
            tokens=shown,
        )


class MapStudent(Student):
    """Any other timm model, with a second linear head on its last feature map.

    z_patch is that head over the mean of each of the grid's tiles, and z_dist over the mean of the whole map, which is
    the mean of z_patch. z_cls is what timm's forward pass gives: a model with a distillation head of its own (LeViT,
    PiT) averages it with the class head.
    """

    keeps_heads: ClassVar[bool] = False

    def __init__(self, model: Any, spec: StudentSpec, *, width: int, normed: bool) -> None:
        """`width` is the map's number of channels; `normed` as in `last_map`."""
        super().__init__(model, spec)
        self._normed = normed
        self.head_dist = _second_head(width, spec.classes)

    def forward(self, pixels_B3SS: Tensor) -> StudentOutput:
        """Class and distillation logits, and dense ones where the student was given a grid."""
        features, map_BhwD = last_map(self.model, pixels_B3SS, normed=self._normed)
        return StudentOutput(
            cls_BC=self.model.forward_head(features),
            dist_BC=self.head_dist(map_BhwD.mean((1, 2))),
            dense_BCHW=None if self.spec.grid is None else _pooled_logits(map_BhwD, self.spec.grid, self.head_dist),
            tokens=None if self.spec.layers is None else (map_BhwD.flatten(1, 2),),
        )


def last_map(model: Any, pixels_B3SS: Tensor, *, normed: bool) -> tuple[Any, Tensor]:
    """What a timm model's `forward_head` takes, and its last feature map [B, h, w, D], of one forward pass.

    The map is what the classifier pools (after an EfficientNet's last convolution), or where it pools none (a class
    token, several scales), that of the last stage, with the model's final norm if `normed`.
    """
    features, (map_BDhw,) = model.forward_intermediates(pixels_B3SS, indices=1, norm=normed, output_fmt="NCHW")
    if isinstance(features, Tensor) and features.ndim == 4 and features.shape[2:] == map_BDhw.shape[2:]:
        return features, features.permute(0, 2, 3, 1)
    # Average-pooling ViTs norm after pooling; per position it puts both inputs of the head on one scale.
    after_pooling = getattr(model, "fc_norm", None) or nn.Identity()
    return features, after_pooling(map_BDhw.permute(0, 2, 3, 1))


def plain_state_dict(student: Student) -> dict[str, Tensor]:
    """The weights under timm's own names, on the CPU: timm.create_model(..., checkpoint_path=FILE) loads them.

    A distilled ViT keeps `head_dist`, which timm's evaluation averages with `head`, and a CivT its three heads. A
    second head that was added to another model is left out: timm's model has no place for it.
    """
    return {name: value.detach().cpu().contiguous() for name, value in student.model.state_dict().items()}


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
