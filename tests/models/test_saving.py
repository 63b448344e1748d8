"""A network's file comes back bit for bit, or says why it does not."""

import hashlib
import json
import re

import pytest
import torch
import yaml
from damage import flip_bit
from huggingface_hub import constants
from safetensors.numpy import load_file as numpy_file
from safetensors.torch import save_file as save_tensors

from segctl.errors import InputError
from segctl.models import build_model, load, read, save
from segctl.models.external.weights import fill_network
from segctl.models.saving import write_saved
from segctl.runs import RunFolder
from tests.models.specs import CLASS_NAMES, HEADS, network, run_of, spec


def saved(folder, head="pspnet", **changes):
    model = network(head, **changes)
    save(folder / "model.safetensors", model, run_of(spec(head, **changes)), CLASS_NAMES)
    return model


def refused(path, **options) -> str:
    with pytest.raises(InputError) as raised:
        load(path, **options)
    return str(raised.value)


@pytest.mark.parametrize("aux", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", HEADS)
def test_round_trip_is_bit_identical(head, aux, tmp_path):
    model = saved(tmp_path, head, aux=aux)
    model.train()(torch.randn(2, 3, 33, 47))  # after saving: the file must not follow
    again = load(tmp_path)
    assert not again.training
    assert again.class_names == CLASS_NAMES
    fresh = load(tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        assert torch.equal(again(images).logits, fresh(images).logits)
    state = read(tmp_path).weights
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


def test_trained_weights_and_statistics_survive(tmp_path):
    model = network().train()
    model(torch.randn(2, 3, 33, 47)).logits.sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    save(tmp_path / "model.safetensors", model, run_of(spec()), CLASS_NAMES)
    again = load(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_mean_and_deviation_travel_with_the_weights(tmp_path):
    model = network()
    model.pixel_mean.fill_(7.0)
    save(tmp_path / "model.safetensors", model, run_of(spec()), CLASS_NAMES)
    assert load(tmp_path).pixel_mean.unique().tolist() == [7.0]


def test_loading_never_asks_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    save(tmp_path / "model.safetensors", network(), run_of(spec(weights="timm")), CLASS_NAMES)
    assert load(tmp_path).class_names == CLASS_NAMES


def test_loading_leaves_the_random_state_alone(tmp_path):
    saved(tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_networks_give_equal_files_and_no_rest_stays(tmp_path):
    model = network()
    digests = set()
    for folder in ("a", "b"):
        save(tmp_path / folder / "model.safetensors", model, run_of(spec()), CLASS_NAMES)
        digests.add(hashlib.sha256((tmp_path / folder / "model.safetensors").read_bytes()).hexdigest())
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["model.safetensors"]
    assert len(digests) == 1


def test_a_file_holds_its_run(tmp_path):
    saved(tmp_path)
    assert read(tmp_path).run["data"]["dataset"] == "shapes"
    assert read(tmp_path).model == spec()


def test_wrong_number_of_names_is_a_bug_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="got 2 class names, wanted 5"):
        save(tmp_path / "model.safetensors", network(), run_of(spec()), ["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_no_such_path(tmp_path):
    assert refused(tmp_path / "nope") == (
        f"no run folder or model file at '{tmp_path / 'nope'}'; give a folder that `segctl train` wrote, or its model.safetensors"
    )


def test_folder_without_model(tmp_path):
    assert (
        refused(tmp_path)
        == f"'{tmp_path}' holds no model.safetensors: it is not a run, or the run has not finished; finish it with --resume"
    )


OLD, NEW = "model.pt", "model.safetensors"
BOTH = pytest.mark.parametrize("name", [NEW, OLD])


def saved_old(folder, head="pspnet"):
    """A model file of version 0.1, and the network in it."""
    model = network(head)
    content = {"run": run_of(spec(head)).model_dump(mode="json"), "class_names": CLASS_NAMES, "weights": model.state_dict()}
    torch.save(content, folder / OLD)
    return model


def test_a_file_of_version_0_1_is_still_read_and_a_new_one_beside_it_comes_first(tmp_path):
    old = saved_old(tmp_path)
    for path in (tmp_path, tmp_path / OLD):
        again = load(path)
        assert again.class_names == CLASS_NAMES
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in old.state_dict().items())
    assert RunFolder(tmp_path).finished
    new = saved(tmp_path)
    assert torch.equal(load(tmp_path).classifier.weight, new.classifier.weight)


def test_any_library_of_safetensors_reads_the_weights_and_the_header(tmp_path):
    model = saved(tmp_path)
    tensors = numpy_file(tmp_path / NEW)
    assert all((tensors[name] == tensor.numpy()).all() for name, tensor in model.state_dict().items())
    content = (tmp_path / NEW).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["segctl"])["class_names"] == CLASS_NAMES


def test_a_file_of_another_program_is_no_model(tmp_path):
    save_tensors({"weight": torch.zeros(3)}, tmp_path / NEW)
    assert refused(tmp_path).startswith(f"'{tmp_path / NEW}' is a .safetensors file, but not a model that segctl wrote; ")


@BOTH
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_file(keep, name, tmp_path):
    (saved_old if name == OLD else saved)(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    said = refused(tmp_path)
    kind = "PyTorch file of plain weights" if name == OLD else ".safetensors file"
    assert said.startswith(f"cannot read '{file}': it is damaged, cut short, or not a {kind}")
    assert said.endswith("copy it again from where it came, or train the run again")


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_a_bit_that_flipped_on_the_disk_is_refused(member, tmp_path):
    """torch reads the file as if nothing had happened, and one weight becomes another."""
    saved_old(tmp_path)
    file = tmp_path / OLD
    flip_bit(file, member)
    said = refused(tmp_path)
    assert said.startswith(f"'{file}' is damaged: ")
    assert said.endswith("does not match its checksum; copy it again from where it came, or train the run again")


@pytest.mark.parametrize("place", [-1, -5000, 900, 1500])
def test_a_bit_that_flipped_in_a_weight_or_in_the_header_is_refused(place, tmp_path):
    saved(tmp_path)
    file = tmp_path / NEW
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert refused(tmp_path).endswith("copy it again from where it came, or train the run again")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["classifier.weight", "running_var"])
def test_weights_that_are_no_numbers_are_refused(part, value, tmp_path):
    model = network()
    name = next(name for name in model.state_dict() if name.endswith(part))
    model.state_dict()[name].flatten()[0] = value
    save(tmp_path / "model.safetensors", model, run_of(spec()), CLASS_NAMES)
    assert f"weights are NaN or infinite, the first is {name}; copy it" in refused(tmp_path)


def test_a_file_without_checksums_is_read(tmp_path, monkeypatch):
    """torch leaves them out on request, so that it writes faster."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        saved_old(tmp_path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert load(tmp_path).class_names == CLASS_NAMES


@pytest.mark.parametrize(
    "payload",
    [{"state_dict": {"conv1.weight": torch.zeros(1)}}, [1, 2], {"run": {}, "class_names": [], "weights": {}}, {"run": 3}],
    ids=["another framework's", "a list", "empty run", "half"],
)
def test_foreign_checkpoint(payload, tmp_path):
    file = tmp_path / "model.pt"
    torch.save(payload, file)
    assert refused(file) == (
        f"'{file}' is a PyTorch file, but not a model that segctl wrote; "
        "give a run folder or its model.safetensors; to start from a file's backbone, use `--set model.weights=PATH`"
    )


def tampered(folder, change) -> str:
    saved(folder)
    found = read(folder)
    payload = {"run": found.run, "class_names": found.class_names, "weights": found.weights, "pixels": None}
    change(payload)
    write_saved(folder / NEW, **payload)
    return refused(folder)


def test_fewer_names_than_classes(tmp_path):
    message = tampered(tmp_path, lambda payload: payload["class_names"].pop())
    assert message == (
        f"'{tmp_path / 'model.safetensors'}' is damaged: its weights do not fit its own preset: "
        "classifier.weight is 5×16×1×1, wanted 4×16×1×1; train it again"
    )


def test_lost_weights(tmp_path):
    assert "are missing (classifier.bias)" in tampered(tmp_path, lambda payload: payload["weights"].pop("classifier.bias"))


def test_weights_of_another_network(tmp_path):
    message = tampered(tmp_path, lambda payload: payload["run"]["model"].update(head="deeplabv3"))
    assert "weights are missing (head.branches.1.0.weight, " in message


def test_other_classes_than_wanted(tmp_path):
    saved(tmp_path)
    assert load(tmp_path, class_names=tuple(CLASS_NAMES)).num_classes == 5
    assert refused(tmp_path, class_names=["road", "car"]) == (
        f"'{tmp_path / 'model.safetensors'}' knows 5 classes (road, car, sky, tree, sign), wanted 2 (road, car); "
        "give a network trained on the same dataset"
    )


def test_a_run_gives_a_new_network_its_head_and_the_classes_of_the_same_names(tmp_path):
    old = saved(tmp_path)
    names = ["sky", "water", "Road"]
    new = build_model(spec(weights=str(tmp_path)), 3, names)
    assert all(torch.equal(tensor, old.head.state_dict()[name]) for name, tensor in new.head.state_dict().items())
    for classifier, before in ((new.classifier, old.classifier), (new.aux.classifier, old.aux.classifier)):
        assert torch.equal(classifier.weight[0], before.weight[2])
        assert torch.equal(classifier.weight[2], before.weight[0])
    assert new.weights_note == (
        f"weights from '{tmp_path / 'model.safetensors'}': the backbone, the head, the auxiliary head, 2 of 3 classes; "
        "new, with random weights: the classes water"
    )


def test_new_weights_that_reach_beyond_the_crop_are_zero_and_those_of_a_run_stay(tmp_path):
    old = saved(tmp_path, "deeplabv3")
    new = build_model(spec("deeplabv3"), 5, CLASS_NAMES, crop=(64, 400))  # a map of 8×50, and rates of 12, 24, 36
    taken = build_model(spec("deeplabv3", weights=str(tmp_path)), 5, CLASS_NAMES, crop=(64, 400))
    for branch in range(2, 5):
        assert torch.equal(taken.head.branches[branch][0].weight, old.head.branches[branch][0].weight)
        assert new.head.branches[branch][0].weight.abs().sum((0, 1, 3)).bool().tolist() == [False, True, False]


def test_a_run_of_another_head_gives_its_backbone_and_says_what_it_left(tmp_path):
    old = saved(tmp_path, "pspnet")
    new = build_model(spec("deeplabv3", weights=str(tmp_path / "model.safetensors")), 5, CLASS_NAMES)
    for mine, theirs in zip(new.backbone.parameters(), old.backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert new.weights_note.endswith(
        "the backbone, the auxiliary head; new, with random weights: the head, all classes of the main classifier"
    )


def test_a_run_of_another_backbone_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(InputError, match=r"the backbone in '.*model.safetensors' \(test_resnet\) does not fit: "):
        build_model(spec(backbone="resnet18", weights=str(tmp_path)), 5, CLASS_NAMES)


def in_a_run(folder, run, of):
    """A run folder whose network's file is of another run."""
    (folder / "run.yaml").parent.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")), encoding="utf-8")
    save(folder / "model.safetensors", build_model(of.model, len(CLASS_NAMES)), of, CLASS_NAMES)
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "another"}, "its name is 'another', wanted '{name}'"),
        ({"model": spec("lraspp")}, "its model.head is 'lraspp', wanted 'pspnet'"),
        ({"train": {"seed": 9}}, "its train.seed is 9, wanted 0"),
    ],
)
def test_another_run_s_network_in_a_run_s_folder_is_refused(change, sentence, tmp_path):
    mine = run_of(spec())
    part = {key: getattr(mine, key).model_copy(update=value) if key == "train" else value for key, value in change.items()}
    folder = in_a_run(tmp_path / "a", mine, mine.model_copy(update=part))
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(InputError) as error:
            read(path)
        start = f"'{folder / 'model.safetensors'}' is of another run than '{folder / 'run.yaml'}': "
        assert error.value.message == start + sentence.format(name=mine.name)
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    read(tmp_path / "model.safetensors")  # it is not a run's here


def test_what_a_resumed_or_extended_run_may_change_is_no_other_run(tmp_path):
    mine = run_of(spec())
    earlier = mine.model_copy(
        update={
            "train": mine.train.model_copy(update={"steps": mine.train.steps - 1, "compile": True}),
            "optim": mine.optim.model_copy(update={"lr": mine.optim.lr / 2}),
        }
    )
    assert read(in_a_run(tmp_path / "a", mine, earlier)).preset == mine.name


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("zero", "all its weights are 0"),
        ("negative", "1 of its batch norms have negative variances ("),
        ("integer", " holds numbers of type int32, wanted floating point"),
    ],
)
def test_weights_without_a_meaning_are_refused(fault, problem, tmp_path):
    run = run_of(spec())
    weights = network().state_dict()
    name = next(name for name in weights if name.endswith("running_var"))
    if fault == "zero":
        weights = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    else:
        weights[name] = weights[name] - 2 if fault == "negative" else weights[name].to(torch.int32)
    path = tmp_path / "model.safetensors"
    write_saved(path, run.model_dump(mode="json"), CLASS_NAMES, weights, None)
    assert problem in refused(path)
    torch.save(dict(weights), tmp_path / "plain.pt")
    if fault == "integer":
        assert problem in fill_network(network(), tmp_path / "plain.pt").problem
    else:
        with pytest.raises(InputError, match=re.escape(problem)):
            fill_network(network(), tmp_path / "plain.pt")
