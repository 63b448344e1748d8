"""Triton kernels: the divergence of rows of similarities and its gradients, without a similarity in memory.

A program holds a tile of rows and walks over the keys, tile by tile, as FlashAttention does (arXiv:2205.14135). The forward pass
keeps three running sums for each row, which are rescaled whenever a larger similarity turns up. The backward pass computes each
tile of similarities again, from which the stored logarithms of sums make probabilities. Each program writes to a place of its
own, so a result does not change from run to run.

`segctl.distillers.rows.on_gpu` calls these kernels. Pointers are to contiguous tensors, and vectors' lengths are multiples of BD.
A tile's places beyond the last row or key are read as the first one, and count nothing: few masks, few registers. FULL: the
vectors are float32 and each product is three of TF32 (`tf32x3`), which together are nearly as exact as one of float32; else the
vectors are float16.
"""

import triton
import triton.language as tl


@triton.jit
def _similarities(
    own, other, own_at, other_at, width,
    A: tl.constexpr, B: tl.constexpr, BD: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Inner products (A, B) of vectors of length `width`, which lie at own_at (A,) and other_at (B,)."""
    found = tl.zeros((A, B), tl.float32)
    precision: tl.constexpr = "tf32x3" if FULL else "ieee"
    for start in range(0, width, BD):
        part = start + tl.arange(0, BD)
        a = tl.load(own + own_at[:, None] * width + part[None, :])
        b = tl.load(other + other_at[None, :] * width + part[:, None])
        found = tl.dot(a, b, found, input_precision=precision)
    return found


@triton.jit
def row_divergences(
    rows, keys, teacher_rows, teacher_keys, counted, counted_keys, found, log_sums, teacher_log_sums,
    number, each, width, teacher_width, per_temperature, nowhere,
    ROWS: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr, FULL: tl.constexpr, MASKED: tl.constexpr, MASKED_KEYS: tl.constexpr,
):  # fmt: skip
    """One program: the divergence of ROWS rows from the keys of one group, and log sum exp of both similarities, (G, M) each."""
    group = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < number
    row_at = tl.where(is_row, row, 0).to(tl.int64)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    their_largest = largest
    total = tl.zeros((ROWS,), tl.float32)
    their_total, product = total, total
    for start in range(0, each, KEYS):
        key = start + tl.arange(0, KEYS)
        is_key = key < each
        key_at = group.to(tl.int64) * each + tl.where(is_key, key, 0)
        s = _similarities(rows, keys, row_at, key_at, width, ROWS, KEYS, BD, FULL) * per_temperature
        t = _similarities(
            teacher_rows, teacher_keys, row_at, key_at, teacher_width, ROWS, KEYS, BD, FULL
        ) * per_temperature  # fmt: skip
        if MASKED_KEYS:
            seen = (tl.load(counted_keys + key_at) != 0)[None, :]
            s, t = tl.where(seen, s, nowhere), tl.where(seen, t, nowhere)
        here, theirs_here = tl.where(is_key[None, :], s, float("-inf")), tl.where(is_key[None, :], t, float("-inf"))
        above, their_above = tl.maximum(largest, tl.max(here, 1)), tl.maximum(their_largest, tl.max(theirs_here, 1))
        total = total * tl.exp(largest - above) + tl.sum(tl.exp(here - above[:, None]), 1)
        e = tl.exp(theirs_here - their_above[:, None])
        shrink = tl.exp(their_largest - their_above)
        their_total = their_total * shrink + tl.sum(e, 1)
        product = product * shrink + tl.sum(e * (t - s), 1)
        largest, their_largest = above, their_above
    log_sum, their_log_sum = largest + tl.log(total), their_largest + tl.log(their_total)
    # sum p_t (log p_t - log p_s), where log p is a similarity minus the logarithm of its row's sum
    value = product / their_total + ((largest - their_largest) + (tl.log(total) - tl.log(their_total)))
    if MASKED:
        value = tl.where(tl.load(counted + row, is_row, 0) != 0, value, 0.0)
    place = group.to(tl.int64) * number + row
    tl.store(found + place, value, is_row)
    tl.store(log_sums + place, log_sum, is_row)
    tl.store(teacher_log_sums + place, their_log_sum, is_row)


@triton.jit
def row_gradients(
    own, other, teacher_own, teacher_other, counted, counted_keys, log_sums, teacher_log_sums, factor, out,
    own_number, other_number, other_groups, number, width, teacher_width, per_temperature, nowhere,
    OWN: tl.constexpr, OTHER: tl.constexpr, BD: tl.constexpr, OUT: tl.constexpr, FULL: tl.constexpr, PULL: tl.constexpr,
    TO_KEYS: tl.constexpr, MASKED: tl.constexpr, MASKED_KEYS: tl.constexpr,
):  # fmt: skip
    """One program: OUT channels of the gradient to OWN vectors, from all others; out float32, of own's shape.

    To rows: own are rows (M, D), others keys (G, n, D), whose G groups it walks over. TO_KEYS: own are the keys of one group,
    others all rows. number: M.  factor: pointer to what the sum is multiplied by.  PULL: what probabilities are multiplied by
    while they are rounded to float16, so that small ones keep their digits.
    """
    own_group = tl.program_id(2)
    mine = tl.program_id(0) * OWN + tl.arange(0, OWN)
    is_own = mine < own_number
    own_at = own_group.to(tl.int64) * own_number + tl.where(is_own, mine, 0)
    channel = tl.program_id(1) * OUT + tl.arange(0, OUT)
    gradient = tl.zeros((OWN, OUT), tl.float32)
    precision: tl.constexpr = "tf32x3" if FULL else "ieee"
    for other_group in range(other_groups):
        of_group = (own_group + other_group).to(tl.int64) * number  # one of the two is 0
        for start in range(0, other_number, OTHER):
            theirs = start + tl.arange(0, OTHER)
            is_other = theirs < other_number
            other_at = (other_group * other_number + tl.where(is_other, theirs, 0)).to(tl.int64)
            s = _similarities(own, other, own_at, other_at, width, OWN, OTHER, BD, FULL) * per_temperature
            t = _similarities(
                teacher_own, teacher_other, own_at, other_at, teacher_width, OWN, OTHER, BD, FULL
            ) * per_temperature  # fmt: skip
            counts = is_own[:, None] & is_other[None, :]
            if MASKED_KEYS:
                if TO_KEYS:
                    seen = (tl.load(counted_keys + own_at) != 0)[:, None]
                else:
                    seen = (tl.load(counted_keys + other_at) != 0)[None, :]
                counts = counts & seen
                s, t = tl.where(seen, s, nowhere), tl.where(seen, t, nowhere)
            if TO_KEYS:
                log_sum = tl.load(log_sums + of_group + theirs, is_other, 0.0)[None, :]
                their_log_sum = tl.load(teacher_log_sums + of_group + theirs, is_other, 0.0)[None, :]
                if MASKED:
                    counts = counts & (tl.load(counted + theirs, is_other, 0) != 0)[None, :]
            else:
                log_sum = tl.load(log_sums + of_group + mine, is_own, 0.0)[:, None]
                their_log_sum = tl.load(teacher_log_sums + of_group + mine, is_own, 0.0)[:, None]
                if MASKED:
                    counts = counts & (tl.load(counted + mine, is_own, 0) != 0)[:, None]
            pull = tl.where(counts, PULL * (tl.exp(s - log_sum) - tl.exp(t - their_log_sum)), 0.0)
            vectors = tl.load(other + other_at[:, None] * width + channel[None, :], (channel < width)[None, :], 0.0)
            gradient = tl.dot(pull.to(vectors.dtype), vectors, gradient, input_precision=precision)
    inside = is_own[:, None] & (channel < width)[None, :]
    tl.store(out + own_at[:, None] * width + channel[None, :], gradient * (tl.load(factor) / PULL), inside)
