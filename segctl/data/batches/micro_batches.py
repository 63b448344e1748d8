"""How one process's share of a batch is split into micro-batches."""

from itertools import pairwise


def micro_batches(images: int, batch_size: int, accumulate: int, processes: int) -> list[range]:
    """The indices of a process's `images` in each micro-batch; the first ones are larger by one where it does not divide.

    batch_size: the global batch.  accumulate: micro-batches wanted; there are fewer if a process has fewer images than that.
    Every process gets the same number of micro-batches, even if the processes' shares of the batch differ by one image: each
    micro-batch is one forward pass, in which processes may exchange sums.

    Both the training step and the teacher cache call this: a teacher's last digits may depend on how many images run at once.
    """
    count = min(accumulate, max(1, batch_size // processes))
    size, rest = divmod(images, count)
    starts = [index * size + min(index, rest) for index in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]


def mixed_micro_batches(images: int, batch_size: int, accumulate: int, processes: int, mixed_in: int) -> list[list[range]]:
    """As `micro_batches`, where `mixed_in` pictures without labels stand behind the `images`: two ranges for each micro-batch.

    The mixed-in pictures are spread over the same micro-batches as evenly as they go.
    """
    first = micro_batches(images, batch_size, accumulate, processes)
    starts = [images + index * mixed_in // len(first) for index in range(len(first) + 1)]
    return [[part, range(start, stop)] for part, (start, stop) in zip(first, pairwise(starts), strict=True)]


def largest_micro_batch(batch_size: int, accumulate: int, processes: int) -> int:
    """Images in the largest micro-batch of any process."""
    largest_share = -(-batch_size // processes)
    return len(micro_batches(largest_share, batch_size, accumulate, processes)[0])
