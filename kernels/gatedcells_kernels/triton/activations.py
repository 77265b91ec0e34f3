"""The logistic function, tanh and the product of two tiles, in the precision asked for.

Every kernel passes on three constants:

``PRECISION``: "ieee" (float32 by ordinary multiplications; 16-bit numbers are exact in any case) or "tf32"
    (float32 rounded to nearest for the tensor cores; weights come rounded, see tf32.py).
``APPROXIMATE``: tanh by the GPU's own instruction, right to about 11 bits, as many as tf32 and bfloat16 or
    float16 operands have, and a shorter logistic function. Else to a few units in the last place of float32.
``INTERPRETED``: in Triton's interpreter, which has neither instruction nor a product of bfloat16.
"""

import triton
import triton.language as tl

from gatedcells_kernels.triton.library import interprets

# where a GPU rounds to bfloat16, the interpreter cuts the digits off
CUTS_OFF = tl.constexpr(interprets())


@triton.jit
def exponential(y):
    """e^y for y <= 0: 2^n 2^f with n whole and y log2(e) = n + f, the remainder taken exactly."""
    y = tl.where(y < -104.0, -104.0, y)  # beyond it is zero; a NaN stays
    n = tl.floor(y * 1.44269504 + 0.5)
    r = y - n * 0.693359375 + n * 2.12194440e-4  # ln 2 in two parts, n times the first is exact
    return tl.exp2(n) * tl.exp2(r * 1.44269504)


@triton.jit
def tanh(x, APPROXIMATE: tl.constexpr):
    """tanh; the polynomial keeps the digits of small x, which a quotient of exponentials would cancel."""
    if APPROXIMATE:
        y = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        square = x * x
        p = 0.02126335345 - 0.006525572169 * square
        p = p * square - 0.05390175316
        p = p * square + 0.1333307381
        p = p * square - 0.333333317
        e = exponential(-2.0 * tl.abs(x))
        far = 1.0 - 2.0 * e / (1.0 + e)
        y = tl.where(tl.abs(x) < 0.5625, x + x * (square * p), tl.where(x < 0.0, -far, far))
    return y


@triton.jit
def sigmoid(x, APPROXIMATE: tl.constexpr):
    """1 / (1 + e^-x), by an exponential that cannot overflow."""
    if APPROXIMATE:
        # not by tanh's instruction: next to 1 its 11 bits say little of 1 - y, and a forget gate's error
        # counts at every step
        y = 1.0 / (1.0 + tl.exp2(x * -1.44269504))
    else:
        e = exponential(-tl.abs(x))
        y = tl.where(x < 0.0, e, 1.0) / (1.0 + e)
    return y


@triton.jit
def to_tf32(x):
    """float32 rounded to the 10 digits of tf32, ties away from zero. The tensor cores alone would cut the
    digits off, which in a recurrence adds up to one side."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)  # a NaN stays one


@triton.jit
def narrowed(x, to: tl.constexpr):
    """``x`` in the dtype ``to``, rounded to nearest, ties to even."""
    if CUTS_OFF and to == tl.bfloat16 and x.dtype == tl.float32:
        bits = x.to(tl.int32, bitcast=True)
        # a NaN stays one, also if its digits are among those that are cut off
        bits = tl.where(x == x, bits + 0x7FFF + ((bits >> 16) & 1), bits | 0x400000)
        x = (bits & -0x10000).to(tl.float32, bitcast=True)
    return x.to(to)


@triton.jit
def operand(x, to: tl.constexpr, PRECISION: tl.constexpr):
    """A tile as one side of a product with weights of dtype ``to``."""
    x = narrowed(x, to)
    if PRECISION == "tf32":
        x = to_tf32(x)
    return x


@triton.jit
def multiply_add(a, b, sums, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    """``sums + a @ b`` in float32."""
    if INTERPRETED:  # bfloat16 is a bit pattern there; widened it is exact
        sums = tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision="ieee")
    else:
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def load(pointer, inside):
    """Numbers in float32, zeros outside."""
    return tl.load(pointer, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store(pointer, x, inside):
    """Numbers in the tensor's own dtype."""
    tl.store(pointer, narrowed(x, pointer.dtype.element_ty), mask=inside)
