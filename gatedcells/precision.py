"""The precision in which float32 matrices are multiplied: ``precision=`` of the layers.

``None`` (default)
    whatever torch's flags say, unchecked.
``"ieee"``
    float32 factors, sums in float32; float64 is unaffected.
``"tf32"``
    factors rounded to tf32's 10 mantissa bits, sums in float32: NVIDIA's tensor cores, by torch's own flag.
``"bf16"``
    input, states and weights in bfloat16 as under autocast, results in float32 again.

torch's flags are global to the process, so a layer does not change them: a call that they do not allow
raises and says which flag to set. The backward pass uses the flags as they are when it runs.
"""

import torch

from gatedcells_kernels.flags import float32_on_cuda

NAMES = ("ieee", "tf32", "bf16")


def check_name(precision: str | None) -> str | None:
    """Return ``precision`` if there is such a one, else raise ValueError."""
    if precision is not None and precision not in NAMES:
        known = ", ".join(map(repr, NAMES))
        raise ValueError(f"precision must be None or one of {known}, got {precision!r}")
    return precision


def _set_on_the_cpu() -> str:
    """What torch's flag for float32 products on the CPU says."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    said = torch.get_float32_matmul_precision() if matmul is None else matmul.fp32_precision
    return "ieee" if said in ("none", "ieee", "highest") else str(said)


def why_not(backend: str, device: str, dtype: torch.dtype, precision: str | None) -> str | None:
    """Why a backend does not multiply so, None if it does or nothing is asked for.

    Args:
        backend: its name.
        device: the tensors', "cpu", "cuda", ...
        dtype: the tensors', after autocast.
        precision: "ieee", "tf32" or None.
    """
    if precision is None:
        return None
    if dtype not in (torch.float32, torch.float64):
        return f"precision={precision!r} applies to float32 only, got {str(dtype).removeprefix('torch.')}"
    if precision == "tf32" and dtype == torch.float64:
        return "precision='tf32' applies to float32 only, got float64"
    if device == "cpu" and backend != "triton":
        if precision == "tf32":
            return "tf32 exists on NVIDIA's tensor cores only, got cpu"
        if dtype == torch.float32 and _set_on_the_cpu() != "ieee":
            said = _set_on_the_cpu()
            return f"torch's flags select {said}: call torch.set_float32_matmul_precision('highest')"
        return None
    said = float32_on_cuda() if torch.version.hip is None else "ieee"
    if said == precision or dtype == torch.float64:
        return None
    level = "highest" if precision == "ieee" else "high"
    return f"torch's flags select {said}: call torch.set_float32_matmul_precision({level!r})"
