"""How a student's rows of similarities differ from its teacher's."""

from torch import Tensor

from segctl.distillers.rows.on_gpu import checked_divergence
from segctl.distillers.rows.plain import SimilarityRows, plain_divergence


def row_divergence(
    rows: Tensor,
    keys: Tensor,
    teacher_rows: Tensor,
    teacher_keys: Tensor,
    temperature: float,
    counted: Tensor | None = None,
    counted_keys: Tensor | None = None,
) -> Tensor:
    """Mean over rows and groups of KL(softmax(teacher's similarities / T) || softmax(student's similarities / T)).

    rows (M, D) and keys (G, n, D): unit vectors; a row's similarities to the n keys of each of the G groups are one
    distribution. teacher_rows (M, D') and teacher_keys (G, n, D') likewise. Gradients flow to rows and keys.
    counted: the rows that count, bool (M,), or None for all.  counted_keys: the keys that count, bool (G, n), or None for all.
    Returns a scalar; 0 if there are no rows. Memory is bounded: nothing of size M × G × n is ever held.
    """
    compared = SimilarityRows(rows, keys, teacher_rows.detach(), teacher_keys.detach(), temperature, counted, counted_keys)
    found = checked_divergence(compared)
    return plain_divergence(compared) if found is None else found
