"""The queues against loops over classes, their two kinds, and what a step compares with."""

import numpy as np
import pytest
import torch
from distillers_golden import golden_features, golden_inputs, outputs
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.memory import ClassQueues, Memory, Queue

SLOTS, EACH = (11, 3), 4


def queues(queue: Queue, classes: int = 4, channels: int = 6) -> ClassQueues:
    torch.manual_seed(1)
    return ClassQueues(classes, channels, SLOTS, EACH, queue).double()


class SlowQueues:
    """The same by loops over images and classes, one pixel after another."""

    def __init__(self, like: ClassQueues) -> None:
        self.pixels, self.regions = like.pixels.clone(), like.regions.clone()
        self.next_pixel, self.next_region = [0] * len(self.pixels), [0] * len(self.pixels)
        self.queue, self.seed = like.queue, like.seed

    def store(self, features: Tensor, label: Tensor, step: int) -> None:
        for position, (image, names) in enumerate(zip(features.flatten(2), label.flatten(1), strict=True)):
            found = [i for i in range(len(names)) if names[i] != 255]
            shuffled = np.random.default_rng([self.seed, step, 0, position]).permutation(len(names)).tolist()
            for name in range(len(self.pixels)):
                mine = [i for i in found if names[i] == name]
                if not mine:
                    continue
                self.regions[name, self.next_region[name]] = F.normalize(image[:, mine].mean(1), dim=0)
                self.next_region[name] = (self.next_region[name] + 1) % SLOTS[1]
                drawn = [k for k in shuffled if names[k] == name][:EACH]
                end = self.next_pixel[name] + len(drawn)
                begin = SLOTS[0] - len(drawn) if end >= SLOTS[0] else self.next_pixel[name]
                for offset, pixel in enumerate(drawn):
                    source = pixel if self.queue == "fixed" else mine.index(pixel)
                    self.pixels[name, begin + offset] = image[:, source]
                self.next_pixel[name] = 0 if end >= SLOTS[0] else end


@pytest.mark.parametrize("queue", ["faithful", "fixed"])
def test_stored_vectors_and_pointers_are_those_of_slow_loops(queue: Queue) -> None:
    fast = queues(queue)
    slow = SlowQueues(fast)
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        features = F.normalize(torch.randn(3, 6, 4, 5, generator=generator, dtype=torch.float64), dim=1)
        label = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (3, 4, 5), generator=generator)]
        fast.store(features, label)
        slow.store(features, label, step)
        torch.testing.assert_close(fast.pixels, slow.pixels)
        torch.testing.assert_close(fast.regions, slow.regions)
        assert fast.next_pixel.tolist() == slow.next_pixel
        assert fast.next_region.tolist() == slow.next_region


def test_the_fixed_queue_holds_pixels_of_its_class_and_the_faithful_one_the_images_first() -> None:
    label = torch.tensor([[[3, 3, 3, 2, 2, 0]]])
    features = torch.eye(6, dtype=torch.float64).view(1, 6, 1, 6)  # the k-th pixel is the k-th unit vector
    for queue, wanted in (("fixed", {3, 4}), ("faithful", {0, 1})):
        found = queues(queue)  # type: ignore[arg-type]
        found.store(features, label)
        assert {int(vector.argmax()) for vector in found.pixels[2, :2]} == wanted
        assert found.next_pixel.tolist() == [1, 0, 2, 3]


def test_an_absent_class_keeps_its_random_unit_vectors() -> None:
    found = queues("fixed")
    before = found.pixels[1].clone()
    found.store(torch.randn(1, 6, 2, 2).double(), torch.tensor([[[0, 0], [2, 255]]]))
    assert torch.equal(found.pixels[1], before)
    torch.testing.assert_close(before.norm(dim=1), torch.ones(SLOTS[0], dtype=torch.float64))


def test_the_numbers_of_compared_slots_are_the_published_ones() -> None:
    for classes, samples in ((19, (216, 54)), (21, (196, 49))):
        assert Memory(ClassQueues(classes, 2, (400, 60), 16, "faithful"), 3).samples == samples


def memory() -> Memory:
    torch.manual_seed(0)
    return Memory(ClassQueues(5, 6, (400, 60), 16, "faithful"), 4, samples=(20, 10)).double()


def test_a_step_takes_its_own_teacher_in_before_it_compares_and_trains_the_projector_alone() -> None:
    student, teacher = golden_features()
    logits, _, label = golden_inputs()
    term = memory()
    found = term(outputs(logits, features=student), outputs(logits, features=teacher), label)
    assert set(found) == {"pixel", "region"}
    assert term.queues.next_region.tolist() == [2] * 5
    (found["pixel"] + found["region"]).backward()
    assert all(weight.grad is not None for weight in term.projector.parameters())
    assert not any(buffer.requires_grad for buffer in term.buffers())


def test_queues_and_pointers_are_part_of_the_state() -> None:
    assert {name for name in memory().state_dict() if name.startswith("queues.")} == {
        "queues.pixels", "queues.regions", "queues.next_pixel", "queues.next_region", "queues.draws",
    }  # fmt: skip


def test_it_says_what_it_makes() -> None:
    assert memory().announcement == (
        "cirkd_memory: a projector takes the student's 4 channels to the teacher's 6; "
        "queues of 400 pixels and 60 regions for each of 5 classes, 0 MB"
    )


def test_nothing_is_drawn_from_the_global_generator_and_every_step_draws_anew() -> None:
    term, before = memory(), torch.get_rng_state()
    first = term.queues.drawn(50, 1).tolist()
    assert term.queues.drawn(50, 1).tolist() == first
    assert term.queues.drawn(50, 2).tolist() != first
    term.queues.store(torch.randn(1, 6, 2, 2, generator=torch.Generator()).double(), torch.zeros(1, 2, 2, dtype=torch.long))
    assert term.queues.drawn(50, 1).tolist() != first
    assert torch.equal(torch.get_rng_state(), before)
