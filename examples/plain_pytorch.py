"""Distil a student from a label store with a plain PyTorch loop.

python examples/plain_pytorch.py labels.zarr --data DATA --epochs 300
torchrun --nproc-per-node 8 examples/plain_pytorch.py labels.zarr --data DATA --epochs 300
"""

import argparse

import torch
from torch.nn.parallel import DistributedDataParallel

import cskd_pipeline as cskd
from cskd_pipeline.evaluation import evaluate
from cskd_pipeline.runtime.device import process_group


def main(store, *, data=None, student, student_args=None, epochs, batch_size, lr, decay=0.05, workers=None):
    """Train, and return the loss of every step and the scores."""
    losses = []
    with process_group() as device:  # of torchrun; one process without it
        labels = cskd.open(store, data=data)
        objective = cskd.objective("cskd")
        model = labels.student(student, objective, args=student_args).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
        forward = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
        with labels.loader(objective, model, batch_size=batch_size, epochs=epochs, workers=workers) as loader:
            for epoch in range(epochs):
                loader.set_epoch(epoch)  # chooses the augmentation seed, the order and the ratio
                for pixels, y, targets in loader:
                    loss = objective(forward(pixels), y, targets).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
        scores = evaluate({"student": model}, labels.evaluation(model, workers=workers))["student"]
    return losses, scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    for name, default in {"data": None, "student": "deit_s", "epochs": 300, "batch-size": 1024, "lr": 1e-3}.items():
        parser.add_argument(f"--{name}", default=default, type=type(default or ""))
    print(main(**vars(parser.parse_args()))[1])
