"""What is said of a run before it is scored."""

from pathlib import Path

from toy import Silent, toy_run

from segctl.evaluate.run import EvaluationRequest, open_request
from segctl.models import build_model, save
from segctl.runs import RunFolder
from segctl.train.session import Request
from segctl.train.start import start_run


def test_atrous_weights_that_learnt_nothing_are_named_where_they_are_not_zero(toy_data: Path, tmp_path: Path) -> None:
    """The network of a run starts without them; a version before 0.2 kept their random values."""
    model = {"head": "deeplabv3", "rates": [2, 3, 5]}
    spec = toy_run(model=model, data={"crop": [16, 32]}, train={"steps": 1, "validate_every": 1})
    folder = start_run(Request(spec, toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    request = EvaluationRequest(folder, toy_data)
    opened = open_request(request)
    assert opened.warnings == ()
    save(folder.model, build_model(spec.model, opened.dataset.classes.num_classes), spec, opened.dataset.classes.names)
    (text,) = open_request(request).warnings
    assert text.startswith(
        "an atrous branch of deeplabv3 reaches 40 pixels, beyond crops of 16×32: its outer weights learnt nothing"
    )
