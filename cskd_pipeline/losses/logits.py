"""Losses of one head's logits against a teacher's global ones: KD and what came after it.

Student logits may have any floating dtype; a teacher's may be logits or logarithms of probabilities. Results are fp32,
one value per example. The label y of an example is the heavier class of its mixed label, int64 [B].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from cskd_pipeline.labels.truth import label_odds
from cskd_pipeline.runtime.ranks import mean_over_ranks


def standardised(logits_BC: Tensor) -> Tensor:
    """Logits of mean 0 and standard deviation 1 over the classes (Sun et al., CVPR 2024, arXiv 2403.01427), fp32."""
    logits_BC = logits_BC.float()
    deviation_B1, mean_B1 = torch.std_mean(logits_BC, dim=1, correction=0, keepdim=True)
    return (logits_BC - mean_B1) / (deviation_B1 + 1e-7)


def normalized(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, gamma: float, temperature: float) -> Tensor:
    """NKD less its cross-entropy (Yang et al., ICCV 2023, arXiv 2303.13005, eq. 9), fp32 [B].

    -p_t[y] log p_s[y] - gamma T^2 sum_{c != y} q_t[c] log q_s[c]. p are softmaxes of the logits over all classes, q of
    the logits / T over the classes other than y.
    """
    y_B1 = labels_B[:, None]
    student_BC, teacher_BC = student_BC.float(), teacher_BC.float()
    target_B = teacher_BC.softmax(1).gather(1, y_B1)[:, 0] * student_BC.log_softmax(1).gather(1, y_B1)[:, 0]
    others_BC = _others(teacher_BC / temperature, y_B1).exp()
    return -target_B - gamma * temperature**2 * (others_BC * _others(student_BC / temperature, y_B1)).sum(1)


def decoupled(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """DKD less its cross-entropy (Zhao et al., CVPR 2022, arXiv 2203.08679, eq. 7), fp32 [B].

    T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)). b are the probabilities of y and of all other classes together, q
    those of the other classes among themselves; all at temperature T.
    """
    y_B1 = labels_B[:, None]
    student_BC, teacher_BC = student_BC.float() / temperature, teacher_BC.float() / temperature
    binary_B = _divergence(_label_or_not(student_BC, y_B1), _label_or_not(teacher_BC, y_B1))
    others_BC = _others(teacher_BC, y_B1)
    among_B = (others_BC.exp() * (others_BC - _others(student_BC, y_B1))).sum(1)
    return temperature**2 * (alpha * binary_B + beta * among_B)


def transformed(student_BC: Tensor, teacher_BC: Tensor, *, gamma: float) -> Tensor:
    """WTTM's term (Zheng and Yang, ICLR 2024, arXiv 2402.11148), fp32 [B].

    u KL(p_t^gamma / u || p_s), u = sum_c p_t[c]^gamma: a temperature 1 / gamma for the teacher alone, and more weight
    for examples that it is unsure of.
    """
    powers_BC = gamma * teacher_BC.float().log_softmax(1)
    log_u_B = powers_BC.logsumexp(1)
    return log_u_B.exp() * _divergence(student_BC.float().log_softmax(1), powers_BC - log_u_B[:, None])


def uncorrelated_classes(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """T^2 (1 - Pearson's correlation over the classes of softmax(z/T) and softmax(g/T)), fp32 [B].

    DIST's inter-class term (Huang et al., NeurIPS 2022, arXiv 2205.10536, eq. 8).
    """
    student_BC = (student_BC.float() / temperature).softmax(1)
    teacher_BC = (teacher_BC.float() / temperature).softmax(1)
    centred = student_BC - student_BC.mean(1, keepdim=True), teacher_BC - teacher_BC.mean(1, keepdim=True)
    return temperature**2 * (1 - _cosine(*((x * y).sum(1) for x, y in _products(*centred))))


def uncorrelated_batch(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """T^2 (1 - Pearson's correlation over the batch, meaned over the classes), fp32 scalar.

    DIST's intra-class term (eq. 9). The batch is that of all ranks, which get equal parts of it: every rank has the
    same value, and gradients that add up over the ranks to those of one process with the whole batch, times their
    number.
    """
    student_BC = (student_BC.float() / temperature).softmax(1)
    teacher_BC = (teacher_BC.float() / temperature).softmax(1)
    centred = student_BC - mean_over_ranks(student_BC.mean(0)), teacher_BC - mean_over_ranks(teacher_BC.mean(0))
    moments = mean_over_ranks(torch.stack([(x * y).mean(0) for x, y in _products(*centred)]))
    return temperature**2 * (1 - _cosine(*moments).mean())


def with_label_odds(teacher_BC: Tensor, labels_B: Tensor, odds_B: Tensor) -> Tensor:
    """Logarithms of the teacher's probabilities where that of y is known better than those of the other classes.

    Args:
        teacher_BC: logits or logarithms of probabilities.
        labels_B: y.
        odds_B: log p[y] - log (1 - p[y]).
    """
    y_B1 = labels_B[:, None]
    others_BC = teacher_BC.float().scatter(1, y_B1, -torch.inf).log_softmax(1) + logsigmoid(-odds_B)[:, None]
    return others_BC.scatter(1, y_B1, logsigmoid(odds_B)[:, None])


def _divergence(log_student_BC: Tensor, log_teacher_BC: Tensor) -> Tensor:
    """KL(teacher || student) of logarithms of probabilities, [B]."""
    return kl_div(log_student_BC, log_teacher_BC, log_target=True, reduction="none").sum(1)


def _others(logits_BC: Tensor, y_B1: Tensor) -> Tensor:
    """Logarithms of probabilities over the classes other than y; 0 at y, which passes no gradient."""
    return logits_BC.scatter(1, y_B1, -torch.inf).log_softmax(1).scatter(1, y_B1, 0.0)


def _label_or_not(logits_BC: Tensor, y_B1: Tensor) -> Tensor:
    odds_B = label_odds(logits_BC, y_B1[:, 0])
    return torch.stack([logsigmoid(odds_B), logsigmoid(-odds_B)], 1)


def _products(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x, y), (x, x), (y, y)]


def _cosine(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    return xy / (xx.clamp(min=1e-20).sqrt() * yy.clamp(min=1e-20).sqrt())
