"""What torch's process-wide flags say of float32 products."""

import torch


def float32_on_cuda() -> str:
    """``"ieee"`` or ``"tf32"``, on NVIDIA's GPUs.

    From torch 2.9 on there are two flags; the older raises once the newer is set.
    """
    matmul = torch.backends.cuda.matmul
    said = getattr(matmul, "fp32_precision", None)
    if said is None:
        return "tf32" if matmul.allow_tf32 else "ieee"
    return "tf32" if said == "tf32" else "ieee"
