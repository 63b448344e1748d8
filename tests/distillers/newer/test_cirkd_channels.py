"""CIRKD v2's channel terms."""

import pytest
import torch
from distillers_golden import outputs, pair_of
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.newer.cirkd_channels import ChannelQueue, CrossChannel, channel_vectors, cross_channel_similarity
from segctl.errors import InputError
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import CrossChannelSpec

LABEL = torch.zeros(2, 16, 16, dtype=torch.int64)


def maps() -> tuple[Outputs, Outputs]:
    """Student features (2, 4, 16, 16) and teacher features (2, 6, 16, 16)."""
    ours, theirs = (torch.arange(2 * channels * 256, dtype=torch.float64) for channels in (4, 6))
    student, teacher = (
        (torch.sin(0.11 * ours + 0.5) + 0.2).view(2, 4, 16, 16),
        (torch.cos(0.19 * theirs) + 0.1).view(2, 6, 16, 16),
    )
    return outputs(student, size=(16, 16)), outputs(teacher, size=(16, 16))


def sines(like: Tensor, phase: float) -> Tensor:
    return (0.3 * torch.sin(0.7 * torch.arange(like.numel(), dtype=torch.float64) + phase)).view_as(like)


def term() -> CrossChannel:
    built = CrossChannel.of(CrossChannelSpec(slots=12, stored_each=12, samples=12), pair_of(*maps())).double()
    with torch.no_grad():
        for number, parameter in enumerate(built.parameters()):
            parameter.copy_(sines(parameter, 0.1 + number))
    return built


def test_the_authors_code_gives_the_same_numbers() -> None:
    """winycg/CIRKD, losses/cirkd_channel.py at dab64db, with a queue that one step fills; its order does not matter.

    That code adds the pairs of images up in float32.
    """
    found = term()(*maps(), LABEL)
    assert found["batch"].item() == pytest.approx(7.84243679, abs=1e-6)
    assert found["memory"].item() == pytest.approx(0.17159793, abs=1e-7)
    assert found["distance"].item() == pytest.approx(0.15697525, abs=1e-8)


def test_slow_loops_give_the_same_similarity() -> None:
    student, teacher = (channel_vectors(x.features[:, :4]) for x in maps())
    losses = []
    for first in range(2):
        for second in range(2):
            for channel in range(4):
                ours, theirs = (
                    torch.stack([(x[first, channel] * other).sum() / 0.1 for other in x[second]]).log_softmax(0)
                    for x in (student, teacher)
                )
                losses.append((theirs.exp() * (theirs - ours)).sum().item())
    assert cross_channel_similarity(student, teacher, 0.1).item() == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_a_channel_with_all_on_one_position_comes_out_as_by_hand() -> None:
    """Equal to itself 1, to the other channel 0, over τ = 1: the teacher's rows are (e, 1)/(e+1); the student's are even."""
    student = torch.ones(1, 2, 2, dtype=torch.float64) / 2**0.5
    teacher = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    share = torch.tensor(1.0).double().exp() / (1 + torch.tensor(1.0).double().exp())
    wanted = share * (share / 0.5).log() + (1 - share) * ((1 - share) / 0.5).log()
    assert cross_channel_similarity(student, teacher, 1.0).item() == pytest.approx(wanted.item())


def test_the_queue_takes_its_last_slots_at_the_end_and_then_begins_again() -> None:
    torch.manual_seed(0)
    queue = ChannelQueue(slots=7, positions=3, each=3).double()
    before = queue.vectors.clone()
    steps = [F.normalize(torch.randn(2, 4, 3, dtype=torch.float64), dim=2) for _ in range(4)]
    begins = []
    for step in steps:
        picked = queue.drawn(8, 0)[:3]
        queue.store(step)
        where = [(queue.vectors == vector).all(1).nonzero().item() for vector in step.flatten(0, 1)[picked]]
        begins.append(where[0])
        assert where == list(range(int(where[0]), int(where[0]) + 3))
    assert begins == [0, 3, 4, 0]
    assert not torch.equal(queue.vectors, before)


def test_a_queue_that_is_loaded_draws_and_stores_as_the_saved_one() -> None:
    torch.manual_seed(0)
    saved, loaded = (ChannelQueue(9, 4, 2) for _ in range(2))
    saved.store(torch.randn(1, 5, 4))
    loaded.load_state_dict(saved.state_dict())
    more = torch.randn(1, 5, 4)
    for queue in (saved, loaded):
        queue.store(more)
    assert torch.equal(saved.vectors, loaded.vectors)
    assert torch.equal(saved.sample(4), loaded.sample(4))
    with pytest.raises(RuntimeError, match="draws"):
        loaded.load_state_dict({"vectors": saved.vectors})


class TwoRanks:
    """Two processes, of which this is the first; the other's rows are known."""

    rank, size = 0, 2

    def __init__(self, other: Tensor) -> None:
        self.other = other

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        return [rows, self.other.flatten(1)]


def test_two_processes_store_what_one_with_the_whole_batch_stores() -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 5)
    one, two = ChannelQueue(20, 5, 6), ChannelQueue(20, 5, 6)
    two.load_state_dict(one.state_dict())
    two.join(TwoRanks(batch[1::2]))
    one.store(batch)
    two.store(batch[::2])
    assert torch.equal(one.vectors, two.vectors)


def test_maps_of_another_size_are_refused_in_a_sentence() -> None:
    student, teacher = maps()
    small = [outputs(x.features[:, :, :8], size=(8, 16)) for x in (student, teacher)]
    with pytest.raises(InputError, match="was built for maps of 16 pooled positions, and got 2×4"):
        term()(*small, LABEL)


def test_the_projector_learns_and_the_queue_does_not() -> None:
    built = term()
    student, teacher = maps()
    found = built(student, teacher, LABEL)
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in built.parameters())
    assert not built.queue.vectors.requires_grad
    assert isinstance(built.projector, nn.Sequential)
