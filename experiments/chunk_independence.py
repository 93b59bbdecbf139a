"""Does a crop's output depend on its place in the batch, on the size of the batch, on the number of threads?

    python experiments/chunk_independence.py

Compares dense logits of timm models with random weights bit by bit: a chunk against permutations of itself, half of it
beside zeros, its first seven crops alone, and one thread against all. Decision 0002 rests on the table.
"""

from __future__ import annotations

import timm
import torch

MODELS = [
    ("resnet10t", {}, 64, 64),
    ("resnet18", {"output_stride": 8}, 64, 32),
    ("regnety_002", {}, 64, 32),
    ("regnety_016", {}, 96, 16),
    ("efficientnet_b0", {}, 64, 32),
    ("convnext_atto", {}, 64, 32),
    ("mobilenetv3_small_100", {}, 64, 32),
    ("densenet121", {}, 64, 8),
]
"""Name, arguments, side of the crops, crops in a chunk."""


@torch.no_grad()
def dense(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    features = model.forward_features(pixels)
    crops, width, height, breadth = features.shape
    places = features.permute(0, 2, 3, 1).reshape(-1, width, 1, 1)
    return model.forward_head(places).reshape(crops, height * breadth, -1)


def main() -> None:
    threads = torch.get_num_threads()
    print(f"| model | 6 permutations | beside zeros | 7 alone | 1 of {threads} threads |\n|---|---|---|---|---|")
    for name, arguments, size, chunk in MODELS:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=37, **arguments).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        pixels = torch.randn(chunk, 3, size, size)
        whole = dense(model, pixels)
        orders = [torch.randperm(chunk) for _ in range(6)]
        permuted = all(torch.equal(dense(model, pixels[order]), whole[order]) for order in orders)
        padded = pixels.clone()
        padded[chunk // 2 :] = 0
        beside_zeros = torch.equal(dense(model, padded)[: chunk // 2], whole[: chunk // 2])
        alone = torch.equal(dense(model, pixels[:7]), whole[:7])
        torch.set_num_threads(1)
        one_thread = torch.equal(dense(model, pixels), whole)
        torch.set_num_threads(threads)
        verdicts = ("equal" if same else "different" for same in (permuted, beside_zeros, alone, one_thread))
        print(f"| {name} | {' | '.join(verdicts)} |", flush=True)


if __name__ == "__main__":
    main()
