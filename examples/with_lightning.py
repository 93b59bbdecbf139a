"""Distil a student from a label store with Lightning.

python examples/with_lightning.py labels.zarr --data DATA --epochs 300
"""

import argparse

import lightning
import torch

import cskd_pipeline as cskd
from cskd_pipeline.evaluation import combined_heads


class StoredDistillation(lightning.LightningModule):
    """A student and its loader, which the trainer asks for once devices and processes are settled."""

    def __init__(self, labels, *, student, student_args, lr, decay, **loading):
        super().__init__()
        self.labels, self.optimization, self.loading = labels, {"lr": lr, "weight_decay": decay}, loading
        self.objective = cskd.objective("cskd")
        self.student, self.losses = labels.student(student, self.objective, args=student_args), []

    def train_dataloader(self):
        self.loader = self.labels.loader(self.objective, self.student, **self.loading)
        return self.loader

    def on_train_epoch_start(self):
        self.loader.set_epoch(self.current_epoch)

    def training_step(self, batch, number):
        loss = self.objective(self.student(batch.pixels_B3SS), batch.labels, batch.targets).mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, number):
        hits = combined_heads(self.student(batch[0]))["three_head"].argmax(1) == batch[1]
        self.log("top1", hits.float().mean(), batch_size=len(hits), prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.student.parameters(), **self.optimization)


def main(store, *, data=None, trainer=None, student_args=None, decay=0.05, workers=None, **settings):
    """Train, and return the loss of every step and what was logged."""
    labels = cskd.open(store, data=data)
    model = StoredDistillation(labels, student_args=student_args, decay=decay, workers=workers, **settings)
    fit = lightning.Trainer(max_epochs=settings["epochs"], **(trainer or {}))
    fit.fit(model, val_dataloaders=labels.evaluation(model.student, workers=workers))
    model.loader.close()
    return model.losses, fit.logged_metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    for name, default in {"data": None, "student": "deit_s", "epochs": 300, "batch-size": 1024, "lr": 1e-3}.items():
        parser.add_argument(f"--{name}", default=default, type=type(default or ""))
    main(**vars(parser.parse_args()))
