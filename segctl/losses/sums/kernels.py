"""Triton kernels: sums of logits at head stride, and their gradient at head stride, with nothing of the label's size in memory.

A *cell* is the pixels between four neighbouring positions of the small map; all pixels of a cell are made from the same four
corners. So a program holds the corners' C logits, walks over the pixels, and adds up either six sums for each class, or four
gradients, one for each corner. Each program writes to a place of its own, and the places are added afterwards: there are no
atomic additions, so a result does not change from run to run.

`segctl.losses.sums.on_gpu` calls these kernels. Pointers are to contiguous tensors, except for the logits' strides.
"""

import triton
import triton.language as tl


@triton.jit
def _probabilities(z, known):
    """softmax over axis 0 of z (BC, BN) where known (BC, BN), 0 elsewhere, and log sum exp (BN,)."""
    largest = tl.max(tl.where(known, z, float("-inf")), 0)
    e = tl.where(known, tl.exp(z - largest[None, :]), 0.0)
    total = tl.sum(e, 0)
    return e / total[None, :], largest + tl.log(total)


@triton.jit
def _corner(maps, image, row, column, classes, strides, C: tl.constexpr):
    """The C logits of one position of a map, (BC,)."""
    places = maps + image * strides[0] + classes.to(tl.int64) * strides[1] + row * strides[2] + column * strides[3]
    return tl.load(places, mask=classes < C, other=0.0)


@triton.jit
def _between(maps, image, y, x, tall, wide, height, width, classes, strides, known, C: tl.constexpr):
    """A map's logits upsampled at pixels y, x (BN,): (BC, BN). tall, wide: the map's place of each row and column of pixels."""
    place_y, place_x = tl.load(tall + y), tl.load(wide + x)
    low_y, low_x = place_y.to(tl.int32), place_x.to(tl.int32)
    share_y, share_x = (place_y - low_y)[None, :], (place_x - low_x)[None, :]
    high_y, high_x = tl.minimum(low_y + 1, height - 1), tl.minimum(low_x + 1, width - 1)
    at = maps + image * strides[0] + (classes.to(tl.int64) * strides[1])[:, None]
    rows, other_rows = (low_y * strides[2])[None, :], (high_y * strides[2])[None, :]
    columns, other_columns = (low_x * strides[3])[None, :], (high_x * strides[3])[None, :]
    a = tl.load(at + rows + columns, mask=known, other=0.0).to(tl.float32)
    b = tl.load(at + rows + other_columns, mask=known, other=0.0).to(tl.float32)
    c = tl.load(at + other_rows + columns, mask=known, other=0.0).to(tl.float32)
    d = tl.load(at + other_rows + other_columns, mask=known, other=0.0).to(tl.float32)
    return (1 - share_y) * ((1 - share_x) * a + share_x * b) + share_y * ((1 - share_x) * c + share_x * d)


@triton.jit
def sum_cells(
    logits, label, valid, theirs, out,
    tall, wide, first_row, first_column, their_tall, their_wide,
    strides, their_strides, height, width, their_height, their_width, size_y, size_x,
    C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, CELLS: tl.constexpr,
    HARD: tl.constexpr, MASKED: tl.constexpr, SQUARES: tl.constexpr, WITH_LOG: tl.constexpr,
):  # fmt: skip
    """One program: the cells [CELLS·g, CELLS·(g + 1)) of row i of image b -> six sums of each class, out (B, h, groups, 6, C)."""
    group, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    classes = tl.arange(0, BC)
    known = (classes < C)[:, None] & (tl.arange(0, BN) >= 0)[None, :]
    common = tl.zeros((BC,), tl.float32)
    size, labelled, largest, likelihood, label_log = common, common, common, common, common
    begin_y, end_y = tl.load(first_row + row), tl.load(first_row + row + 1)
    below = tl.minimum(row + 1, height - 1)
    for cell in range(group * CELLS, tl.minimum(group * CELLS + CELLS, width)):
        begin_x, end_x = tl.load(first_column + cell), tl.load(first_column + cell + 1)
        right = tl.minimum(cell + 1, width - 1)
        a = _corner(logits, image, row, cell, classes, strides, C).to(tl.float32)
        b = _corner(logits, image, row, right, classes, strides, C).to(tl.float32)
        c = _corner(logits, image, below, cell, classes, strides, C).to(tl.float32)
        d = _corner(logits, image, below, right, classes, strides, C).to(tl.float32)
        across = end_x - begin_x
        pixels = (end_y - begin_y) * across
        for start in range(0, pixels, BN):
            pixel = start + tl.arange(0, BN)
            inside = pixel < pixels
            pixel = tl.where(inside, pixel, 0)
            y, x = begin_y + pixel // across, begin_x + pixel % across
            share_y, share_x = (tl.load(tall + y) - row)[None, :], (tl.load(wide + x) - cell)[None, :]
            top = a[:, None] + share_x * (b - a)[:, None]
            z = top + share_y * (c[:, None] + share_x * (d - c)[:, None] - top)
            p, log_total = _probabilities(z, known)
            at = (image * size_y + y).to(tl.int64) * size_x + x
            if MASKED:
                inside = inside & (tl.load(valid + at) != 0)
            counted = known & inside[None, :]
            p = tl.where(counted, p, 0.0)
            if HARD:
                q = tl.where(counted & (tl.load(label + at).to(tl.int32)[None, :] == classes[:, None]), 1.0, 0.0)
            else:
                t = _between(
                    theirs, image, y, x, their_tall, their_wide, their_height, their_width, classes, their_strides, known, C
                )
                q, their_total = _probabilities(t, known)
                q = tl.where(counted, q, 0.0)
                if WITH_LOG:
                    label_log += tl.sum(tl.where(counted, q * (t - their_total[None, :]), 0.0), 1)
            if SQUARES:
                common += tl.sum(p * q, 1)
                size += tl.sum(p * p, 1)
                labelled += tl.sum(q * q, 1)
            else:
                common += tl.sum(tl.minimum(p, q), 1)
                size += tl.sum(p, 1)
                labelled += tl.sum(q, 1)
            largest = tl.maximum(largest, tl.max(q, 1))
            if WITH_LOG:
                likelihood += tl.sum(tl.where(q > 0, q * (z - log_total[None, :]), 0.0), 1)
    groups = tl.num_programs(0)
    place = out + ((image * height + row) * groups + group).to(tl.int64) * 6 * C + classes
    tl.store(place, common, mask=classes < C)
    tl.store(place + C, size, mask=classes < C)
    tl.store(place + 2 * C, labelled, mask=classes < C)
    tl.store(place + 3 * C, largest, mask=classes < C)
    tl.store(place + 4 * C, likelihood, mask=classes < C)
    tl.store(place + 5 * C, label_log, mask=classes < C)


@triton.jit
def cell_gradients(
    logits, label, valid, theirs, grads, out,
    tall, wide, first_row, first_column, their_tall, their_wide,
    strides, their_strides, height, width, their_height, their_width, size_y, size_x, images,
    C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr,
    HARD: tl.constexpr, MASKED: tl.constexpr, SQUARES: tl.constexpr, WITH_LOG: tl.constexpr,
):  # fmt: skip
    """One program: a cell's part of the gradients of its four corners, out (2, 2, B, h, w, C), first index below, second right.

    grads (3, B, C): those of the intersection, predicted and log_likelihood.
    """
    cell, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    classes = tl.arange(0, BC)
    known = (classes < C)[:, None] & (tl.arange(0, BN) >= 0)[None, :]
    of_image = grads + image * C + classes
    of_common = tl.load(of_image, mask=classes < C, other=0.0)[:, None]
    of_size = tl.load(of_image + images * C, mask=classes < C, other=0.0)[:, None]
    of_log = tl.load(of_image + 2 * images * C, mask=classes < C, other=0.0)[:, None]
    begin_y, end_y = tl.load(first_row + row), tl.load(first_row + row + 1)
    begin_x, end_x = tl.load(first_column + cell), tl.load(first_column + cell + 1)
    below, right = tl.minimum(row + 1, height - 1), tl.minimum(cell + 1, width - 1)
    a = _corner(logits, image, row, cell, classes, strides, C).to(tl.float32)
    b = _corner(logits, image, row, right, classes, strides, C).to(tl.float32)
    c = _corner(logits, image, below, cell, classes, strides, C).to(tl.float32)
    d = _corner(logits, image, below, right, classes, strides, C).to(tl.float32)
    of_a = tl.zeros((BC,), tl.float32)
    of_b, of_c, of_d = of_a, of_a, of_a
    across = end_x - begin_x
    pixels = (end_y - begin_y) * across
    for start in range(0, pixels, BN):
        pixel = start + tl.arange(0, BN)
        inside = pixel < pixels
        pixel = tl.where(inside, pixel, 0)
        y, x = begin_y + pixel // across, begin_x + pixel % across
        share_y, share_x = (tl.load(tall + y) - row)[None, :], (tl.load(wide + x) - cell)[None, :]
        top = a[:, None] + share_x * (b - a)[:, None]
        z = top + share_y * (c[:, None] + share_x * (d - c)[:, None] - top)
        p, _ = _probabilities(z, known)
        at = (image * size_y + y).to(tl.int64) * size_x + x
        if MASKED:
            inside = inside & (tl.load(valid + at) != 0)
        counted = known & inside[None, :]
        p = tl.where(counted, p, 0.0)
        if HARD:
            q = tl.where(counted & (tl.load(label + at).to(tl.int32)[None, :] == classes[:, None]), 1.0, 0.0)
        else:
            t = _between(theirs, image, y, x, their_tall, their_wide, their_height, their_width, classes, their_strides, known, C)
            q, _ = _probabilities(t, known)
            q = tl.where(counted, q, 0.0)
        if SQUARES:
            pull = p * (of_common * q + 2 * of_size * p)
        elif HARD:
            pull = p * (of_common * q + of_size)  # at its label a pixel's p is below 1 = q, or at it: the slope is 1
        else:
            slope = tl.where(p < q, 1.0, tl.where(p == q, 0.5, 0.0))  # the mean of both slopes where p = q, as in torch
            pull = p * (of_common * slope + of_size)
        if WITH_LOG:
            pull += of_log * q
        g = pull - p * tl.sum(pull, 0)[None, :]
        lower, upper = g * share_y, g * (1 - share_y)
        of_a += tl.sum(upper * (1 - share_x), 1)
        of_b += tl.sum(upper * share_x, 1)
        of_c += tl.sum(lower * (1 - share_x), 1)
        of_d += tl.sum(lower * share_x, 1)
    corner = images.to(tl.int64) * height * width * C
    place = out + ((image * height + row) * width + cell).to(tl.int64) * C + classes
    tl.store(place, of_a, mask=classes < C)
    tl.store(place + corner, of_b, mask=classes < C)
    tl.store(place + 2 * corner, of_c, mask=classes < C)
    tl.store(place + 3 * corner, of_d, mask=classes < C)


@triton.jit
def add_corners(parts, out, strides, height, width, images, C: tl.constexpr, BC: tl.constexpr):
    """Add up what `cell_gradients` wrote, parts (2, 2, B, h, w, C): out (B, C, h, w). The last row is also what is below it."""
    column, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    classes = tl.arange(0, BC)
    corner = images.to(tl.int64) * height * width * C
    total = tl.zeros((BC,), tl.float32)
    for below in tl.static_range(2):
        for right in tl.static_range(2):
            for last_row in tl.static_range(below + 1):
                for last_column in tl.static_range(right + 1):
                    # The cell whose corner below (right) this is: the one above (left); of the last row (column), also its own.
                    from_row = row - below + last_row
                    from_column = column - right + last_column
                    takes_row = (from_row >= 0) & ((last_row == 0) | (row == height - 1))
                    takes_column = (from_column >= 0) & ((last_column == 0) | (column == width - 1))
                    place = ((image * height + from_row) * width + from_column).to(tl.int64) * C + classes
                    here = parts + (2 * below + right) * corner + place
                    total += tl.load(here, mask=(classes < C) & takes_row & takes_column, other=0.0)
    place = out + image * strides[0] + classes.to(tl.int64) * strides[1] + row * strides[2] + column * strides[3]
    tl.store(place, total.to(out.dtype.element_ty), mask=classes < C)
