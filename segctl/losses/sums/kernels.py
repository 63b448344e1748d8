"""Triton kernels: sums of logits at head stride, and their gradient at head stride, with nothing of the label's size in memory.

A *cell* is the pixels between four neighbouring positions of the small map; all pixels of a cell are made from the same four
corners. So a program holds the corners' C logits, walks over the pixels, and adds up either six sums for each class, or four
gradients, one for each corner. Each program writes to a place of its own, and the places are added afterwards: there are no
atomic additions, so a result does not change from run to run.

The last two kernels make a loss of the sums. They are tiny, but by torch's own operations such a loss is thirty launches.

`segctl.losses.sums.on_gpu` and `segctl.losses.sums.values` call these kernels. Pointers are to contiguous tensors, except for the
logits' strides.
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


@triton.jit
def add_groups(parts, learned, counted, rows, images, C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr):
    """Add up what `sum_cells` wrote, parts (B, rows, 6, C): learned (3, B, C), counted (3, B, C), in the order of `SumTables`."""
    image, which = tl.program_id(0), tl.program_id(1)
    classes, row = tl.arange(0, BC)[None, :], tl.arange(0, BR)[:, None]
    total = tl.zeros((BR, BC), tl.float32)
    for start in range(0, rows, BR):
        inside = (classes < C) & (start + row < rows)
        place = (image * rows + start + row).to(tl.int64) * 6 + which
        here = tl.load(parts + place * C + classes, mask=inside, other=0.0)
        total = tl.maximum(total, here) if which == 3 else total + here
    found = tl.max(total, 0) if which == 3 else tl.sum(total, 0)
    # intersection, predicted, labelled, largest_label, log_likelihood, label_log: the first two and the fifth are learned from
    is_learned = (which < 2) | (which == 4)
    index = tl.where(which == 4, 2, tl.where(which == 5, 2, tl.where(which > 1, which - 2, which)))
    at = (index * images + image) * C + tl.arange(0, BC)
    known = tl.arange(0, BC) < C
    tl.store(learned + at, found, mask=known & is_learned)
    tl.store(counted + at, found, mask=known & (is_learned == 0))


@triton.jit
def mean_of_sums(
    learned, counted, weights, value, gradient, images, scale, floor,
    C: tl.constexpr, BC: tl.constexpr, ENTROPY: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """One program: scale·sum w (label_log - log_likelihood) / max(sum w·labelled, floor), and its gradient (3, B, C)."""
    classes = tl.arange(0, BC)
    known = classes < C
    weight = tl.load(weights + classes, mask=known, other=0.0) if WEIGHTED else tl.where(known, 1.0, 0.0)
    errors = tl.zeros((BC,), tl.float32)
    number = errors
    for image in range(images):
        at = image * C + classes
        last = 2 * images * C
        errors -= tl.load(learned + last + at, mask=known, other=0.0)
        if ENTROPY:
            errors += tl.load(counted + last + at, mask=known, other=0.0)
        number += tl.load(counted + at, mask=known, other=0.0)
    divisor = tl.maximum(tl.sum(weight * number, 0), floor)
    tl.store(value, scale * tl.sum(weight * errors, 0) / divisor)
    for image in range(images):
        at = image * C + classes
        tl.store(gradient + at, tl.zeros((BC,), tl.float32), mask=known)
        tl.store(gradient + images * C + at, tl.zeros((BC,), tl.float32), mask=known)
        tl.store(gradient + 2 * images * C + at, -scale * weight / divisor, mask=known)


@triton.jit
def _log1p(x):
    """log(1 + x) for x of at least 0, also where 1 + x rounds: the quotient repairs what the sum loses."""
    one_more = 1.0 + x
    lost = one_more - 1.0
    return tl.where(lost == 0.0, x, tl.log(one_more) * (x / tl.where(lost == 0.0, 1.0, lost)))


@triton.jit
def _ratio(
    tp, predicted, labelled, alpha, beta, gamma, smooth, weight, LOG: tl.constexpr, POWER: tl.constexpr
):  # fmt: skip
    """A class's term (BC,), and its slopes by tp and predicted, as `JDTLoss` computes it."""
    error = alpha * (predicted - tp) + beta * (labelled - tp)
    if LOG:
        kept = tp + smooth
        term = _log1p(error / kept)
        by_error = 1.0 / (kept + error)
        by_tp = -error / (kept * (kept + error))
    else:
        total = tp + error + smooth
        empty = total == 0.0
        divisor = tl.where(empty, 1.0, total)
        term = error / divisor
        of_total = tl.where(empty, 0.0, error / (divisor * divisor))
        by_error = 1.0 / divisor - of_total
        by_tp = -of_total
    if POWER:
        base = tl.maximum(term, 0.0)
        positive = tl.where(base > 0.0, base, 1.0)
        logarithm = tl.log2(positive)
        slope = tl.where(base > 0.0, gamma * tl.exp2((gamma - 1.0) * logarithm), 0.0)
        term = tl.where(base > 0.0, tl.exp2(gamma * logarithm), 0.0)
        by_error, by_tp = by_error * slope, by_tp * slope
    return weight * term, weight * (by_tp - (alpha + beta) * by_error), weight * alpha * by_error


@triton.jit
def ratio_of_sums(
    learned, counted, weights, value, gradient, images, miou_d, miou_i, miou_c, alpha, beta, gamma, smooth, threshold,
    C: tl.constexpr, BC: tl.constexpr, ALL: tl.constexpr, WEIGHTED: tl.constexpr,
    LOG: tl.constexpr, POWER: tl.constexpr, OVER_BATCH: tl.constexpr, BY_IMAGE: tl.constexpr,
):  # fmt: skip
    """One program: the value of a `JDTLoss`, and its gradient (3, B, C). OVER_BATCH: miou_d > 0; BY_IMAGE: another is."""
    classes = tl.arange(0, BC)
    known = classes < C
    weight = tl.load(weights + classes, mask=known, other=0.0) if WEIGHTED else tl.where(known, 1.0, 0.0)
    nothing = tl.zeros((BC,), tl.float32)
    step = images * C
    loss = 0.0
    all_tp, all_predicted = nothing, nothing
    if OVER_BATCH:
        tp, predicted, labelled, largest = nothing, nothing, nothing, nothing
        for image in range(images):
            at = image * C + classes
            tp += tl.load(learned + at, mask=known, other=0.0)
            predicted += tl.load(learned + step + at, mask=known, other=0.0)
            labelled += tl.load(counted + at, mask=known, other=0.0)
            largest = tl.maximum(largest, tl.load(counted + step + at, mask=known, other=0.0))
        active = tl.where(known & (ALL | (largest > threshold)), 1.0, 0.0)
        term, by_tp, by_predicted = _ratio(tp, predicted, labelled, alpha, beta, gamma, smooth, weight, LOG, POWER)
        share = miou_d / tl.maximum(tl.sum(active, 0), 1.0)
        loss += share * tl.sum(tl.where(active > 0.0, term, 0.0), 0)
        all_tp = tl.where(active > 0.0, share * by_tp, 0.0)
        all_predicted = tl.where(active > 0.0, share * by_predicted, 0.0)
    of_class, with_any = nothing, 0.0
    if BY_IMAGE:
        for image in range(images):
            largest = tl.load(counted + step + image * C + classes, mask=known, other=0.0)
            active = tl.where(known & (ALL | (largest > threshold)), 1.0, 0.0)
            of_class += active
            with_any += tl.where(tl.sum(active, 0) > 0.0, 1.0, 0.0)
    of_images = miou_i / tl.maximum(with_any, 1.0)
    classes_with_any = tl.maximum(tl.sum(tl.where(of_class > 0.0, 1.0, 0.0), 0), 1.0)
    of_classes = miou_c / (classes_with_any * tl.maximum(of_class, 1.0))
    for image in range(images):
        at = image * C + classes
        slope_tp, slope_predicted = all_tp, all_predicted
        if BY_IMAGE:
            tp = tl.load(learned + at, mask=known, other=0.0)
            predicted = tl.load(learned + step + at, mask=known, other=0.0)
            labelled = tl.load(counted + at, mask=known, other=0.0)
            largest = tl.load(counted + step + at, mask=known, other=0.0)
            active = tl.where(known & (ALL | (largest > threshold)), 1.0, 0.0)
            term, by_tp, by_predicted = _ratio(tp, predicted, labelled, alpha, beta, gamma, smooth, weight, LOG, POWER)
            shares = of_images / tl.maximum(tl.sum(active, 0), 1.0) + of_classes
            loss += tl.sum(tl.where(active > 0.0, shares * term, 0.0), 0)
            slope_tp += tl.where(active > 0.0, shares * by_tp, 0.0)
            slope_predicted += tl.where(active > 0.0, shares * by_predicted, 0.0)
        tl.store(gradient + at, slope_tp, mask=known)
        tl.store(gradient + step + at, slope_predicted, mask=known)
        tl.store(gradient + 2 * step + at, nothing, mask=known)
    tl.store(value, loss)
