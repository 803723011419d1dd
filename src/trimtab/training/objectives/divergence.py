"""The loss of a predicted distribution against a target one, summed over tokens, and its gradient.

The target is a mix of a teacher's distribution p and the true token: t = (1 - w) p + w onehot. For logits z
with q = softmax(z), d/dz [(1 - w) KL(p ‖ q) + w (-log q_true)] = q - t, which is computed while the loss
is, chunk by chunk, so the only tensor kept is the gradient itself: no float copies of tokens x vocabulary
log-probabilities.
"""

from __future__ import annotations

from typing import Any

import torch

from trimtab.data.samples.base import IGNORED

# Tokens per chunk: temporaries stay in cache on a CPU and small on a GPU.
CHUNK_TOKENS = 256


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: torch.Tensor,
        teacher: torch.Tensor | None,
        weight: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = torch.empty_like(logits)
        total = torch.zeros((), dtype=_wide(logits.dtype), device=logits.device)
        cross_entropy = torch.zeros_like(total)
        for start in range(0, len(logits), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            loss, surprise = _chunk(
                logits[part],
                targets[part],
                None if teacher is None else teacher[part],
                weight,
                gradient[part],
            )
            total += loss
            cross_entropy += surprise
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(cross_entropy)
        return total, cross_entropy

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[torch.Tensor, None, None, None]:
        """The upstream of the loss alone counts. Scaled in place, hence differentiable once."""
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream[0].to(gradient.dtype)), None, None, None


def _chunk(
    logits: torch.Tensor,
    targets: torch.Tensor,
    teacher: torch.Tensor | None,
    weight: float,
    gradient: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and cross-entropy sums of (tokens, vocabulary) logits; writes q - t into `gradient`."""
    wide = _wide(logits.dtype)
    # Made where the gradient will be, if of its type: every pass over tokens x vocabulary that is spared counts.
    log_q = torch.log_softmax(
        logits, dim=-1, dtype=wide, out=gradient if teacher is None and gradient.dtype == wide else None
    )
    counted = targets != IGNORED
    index = targets.clamp_min(0).unsqueeze(1)
    cross_entropy = -(log_q.gather(1, index).squeeze(1) * counted).sum()
    if teacher is None:
        loss, on_target = cross_entropy, 1.0
        slope = log_q.exp_()
    else:
        log_p = torch.log_softmax(teacher, dim=-1, dtype=wide)
        p = log_p.exp()
        # Rows are summed before they are masked, so ignored rows cost nothing more.
        divergence = (p * log_p.sub_(log_q)).sum(dim=1)
        loss, on_target = (1 - weight) * (divergence * counted).sum() + weight * cross_entropy, weight
        slope = log_q.exp_().sub_(p, alpha=1 - weight)
    if on_target:
        slope.scatter_add_(1, index, torch.full_like(index, -on_target, dtype=wide))
    slope.mul_(counted.unsqueeze(1))
    if slope is not gradient:
        gradient.copy_(slope)
    return loss, cross_entropy


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def divergence(
    logits: torch.Tensor, targets: torch.Tensor, *, teacher: torch.Tensor | None = None, weight: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over tokens of the loss (differentiable once, in `logits`) and of the cross-entropy, in nats.

    `logits` (tokens, V) of any float type, `targets` (tokens,) int64 with `IGNORED` for positions that do
    not count, `teacher` (tokens, V') without gradient or None; where V and V' differ, padding of a
    vocabulary beyond the smaller one is left out of both. `weight` is that of the true token; without a
    teacher it is 1.
    """
    if teacher is not None and teacher.shape[-1] != logits.shape[-1]:
        shared = min(teacher.shape[-1], logits.shape[-1])
        logits, teacher = logits[:, :shared], teacher[:, :shared]
    return _Divergence.apply(logits, targets, teacher, weight if teacher is not None else 1.0)
