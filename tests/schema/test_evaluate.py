"""What a command line changes of a protocol, and what it may not."""

import pytest

from segctl.errors import InputError
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange, SlidingProtocol, WholeProtocol

OWN = EvaluateSpec(protocol=SlidingProtocol(tile=(64, 96), stride=0.5), flip=True, scales=(0.5, 1.0))


def test_nothing_asked_for_changes_nothing() -> None:
    assert ProtocolChange().apply(OWN, (32, 48)) == OWN
    assert ProtocolChange().apply(EvaluateSpec(), (32, 48)) == EvaluateSpec()


@pytest.mark.parametrize(
    ("change", "spec", "expected"),
    [
        (ProtocolChange("whole"), OWN, EvaluateSpec(flip=True, scales=(0.5, 1.0))),
        (ProtocolChange("sliding"), EvaluateSpec(), EvaluateSpec(protocol=SlidingProtocol(tile=(32, 48)))),
        (ProtocolChange("sliding", "512x1024", 0.25), EvaluateSpec(),
         EvaluateSpec(protocol=SlidingProtocol(tile=(512, 1024), stride=0.25))),
        (ProtocolChange(tile="8×9"), OWN, OWN.model_copy(update={"protocol": SlidingProtocol(tile=(8, 9), stride=0.5)})),
        (ProtocolChange(scales="0.75, 1,1.5", flip=False), OWN,
         OWN.model_copy(update={"scales": (0.75, 1.0, 1.5), "flip": False})),
    ],
)  # fmt: skip
def test_a_change_is_applied_to_what_it_names(change: ProtocolChange, spec: EvaluateSpec, expected: EvaluateSpec) -> None:
    assert change.apply(spec, (32, 48)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ProtocolChange("slidding"), "--protocol 'slidding' is not known, did you mean 'sliding'?"),
        (ProtocolChange("whole", tile="8x8"), "--tile and --stride belong to the sliding protocol"),
        (ProtocolChange(stride=0.5), "--tile and --stride belong to the sliding protocol"),
        (ProtocolChange("sliding", "512"), "cannot read --tile '512'"),
        (ProtocolChange("sliding", "0x8"), "cannot read --tile '0x8'"),
        (ProtocolChange("sliding", stride=0.0), "--stride is 0, wanted a fraction of the tile above 0 and at most 1"),
        (ProtocolChange(scales="1,1"), "cannot read --scales '1,1'"),
        (ProtocolChange(scales="big"), "cannot read --scales 'big'"),
        (ProtocolChange(scales="0"), "cannot read --scales '0'"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(change: ProtocolChange, message: str) -> None:
    with pytest.raises(InputError) as error:
        change.apply(EvaluateSpec(protocol=WholeProtocol()), (32, 48))
    assert error.value.message == message
