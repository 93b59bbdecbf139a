"""Distil a student from a label store with timm's task, optimizer, scheduler and moving average.

python examples/with_timm.py labels.zarr --data DATA --epochs 300
"""

import argparse

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask

import cskd_pipeline as cskd
from cskd_pipeline.evaluation import evaluate


class StoredDistillationTask(ClassificationTask):
    """timm's task with one input more: the teacher's stored targets."""

    def forward(self, input, target, stored):
        """The loss, and the student's output."""
        output = self.trainable_module(input)
        return {"loss": self.criterion(output, target, stored).mean(), "output": output}


def main(store, *, data=None, student, student_args=None, epochs, batch_size, lr, decay=0.05, workers=None):
    """Train, and return the loss of every step and the scores."""
    labels = cskd.open(store, data=data)
    objective = cskd.objective("cskd")
    model = labels.student(student, objective, args=student_args)
    task = StoredDistillationTask(model, objective, verbose=False)
    task.setup_ema(decay=0.99996)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=decay)
    losses = []
    with labels.loader(objective, model, batch_size=batch_size, epochs=epochs, workers=workers) as loader:
        course = {"sched": "cosine", "num_epochs": epochs, "min_lr": 1e-5, "warmup_epochs": 0}
        scheduler, _ = create_scheduler_v2(optimizer, **course, updates_per_epoch=len(loader), step_on_epochs=False)
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for pixels, y, targets in loader:
                scheduler.step_update(len(losses))
                loss = task(pixels, y, targets)["loss"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                task.update_ema()
                losses.append(loss.item())
    models = {"student": model, "ema": task.trainable_module_ema.module}
    return losses, evaluate(models, labels.evaluation(model, workers=workers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    for name, default in {"data": None, "student": "deit_s", "epochs": 300, "batch-size": 1024, "lr": 1e-3}.items():
        parser.add_argument(f"--{name}", default=default, type=type(default or ""))
    print(main(**vars(parser.parse_args()))[1])
