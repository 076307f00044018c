"""Promised: info has one spelling, and a field that is wrong is named."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm.architectures import Architecture
from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.info import Info, Probing, decode_info, encode_info, is_gamma
from wm.info_fields import canonical_json, parse_canonical_json
from wm.triggers import InputSpec, Normalisation, TextSpec

INFO = Info(
    scheme="mtlsign",
    architecture=Architecture("resnet18", {"num_classes": 10}),
    taps=(Tap("layer1", 64, 8, 8), Tap("layer2", 128, 4, 4)),
    pooling=4,
    hidden=256,
    triggers=600,
    gamma="0.7",
    input=InputSpec(1, 32, 32, Normalisation(("0.1307",), ("0.3081",))),
    model_sha256="ab" * 32,
)


TEXTS = replace(
    INFO,
    architecture=Architecture("bilstm", {"num_classes": 2, "vocabulary": 500}),
    taps=(Tap("layers.0.final", 200, 1, 1),),
    input=TextSpec(64, 500, "cd" * 32),
)


def changed(field: str, value: object, info: Info = INFO) -> str:
    fields: dict[str, Any] = json.loads(encode_info(info))
    *path, last = field.split(".")
    inner = fields
    for part in path:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner[last] = value
    return canonical_json(fields)


@pytest.mark.parametrize("info", [INFO, TEXTS])
def test_an_info_survives_its_encoding(info: Info) -> None:
    assert decode_info(encode_info(info)) == info


def test_the_spelling_is_the_one_that_was_published() -> None:
    assert encode_info(INFO) == (
        '{"architecture":{"arguments":{"num_classes":10},"name":"resnet18"},"base_sha256":null,"gamma":"0.7",'
        '"head":{"family":"mlp2","hidden":256},"input":{"channels":1,"height":32,"width":32},'
        f'"model_sha256":"{"ab" * 32}","normalisation":{{"mean":["0.1307"],"std":["0.3081"]}},"pooling":4,'
        '"reference":null,"scheme":"mtlsign",'
        '"taps":[{"module":"layer1","shape":[64,8,8]},{"module":"layer2","shape":[128,4,4]}],'
        '"trigger_encoder":"qr-1H/1","triggers":600}'
    )
    assert encode_info(TEXTS) == (
        '{"architecture":{"arguments":{"num_classes":2,"vocabulary":500},"name":"bilstm"},"base_sha256":null,'
        '"gamma":"0.7","head":{"family":"mlp2","hidden":256},'
        f'"input":{{"length":64,"vocabulary":500,"words_sha256":"{"cd" * 32}"}},"model_sha256":"{"ab" * 32}",'
        '"normalisation":null,"pooling":4,"reference":null,"scheme":"mtlsign",'
        '"taps":[{"module":"layers.0.final","shape":[200,1,1]}],'
        '"trigger_encoder":"words/v1","triggers":600}'
    )


def test_an_info_that_tells_of_a_reference_survives_its_encoding() -> None:
    told = replace(INFO, reference=Probing(probes=256, pooling=2))
    assert decode_info(encode_info(told)) == told
    assert encode_info(told) != encode_info(INFO)
    centred = replace(told, reference=Probing(probes=256, pooling=2, centred=True))
    assert decode_info(encode_info(centred)) == centred
    assert '"reference":{"pooling":2,"probes":256}' in encode_info(told)  # as it was before any was centred
    assert '"reference":{"centred":true,"pooling":2,"probes":256}' in encode_info(centred)


@pytest.mark.parametrize("value", ["false", "1", "null", '"true"'])
def test_a_reference_is_centred_or_says_nothing_of_it(value: str) -> None:
    text = encode_info(replace(INFO, reference=Probing(probes=256, pooling=2, centred=True)))
    with pytest.raises(WatermarkError, match="centred"):
        decode_info(text.replace('"centred":true', f'"centred":{value}'))


def test_an_unsaved_model_has_no_evidence() -> None:
    with pytest.raises(ValueError, match="with_files"):
        encode_info(INFO.with_files(model_sha256=None, base_sha256=None))


@pytest.mark.parametrize(
    "spelling", ["{} ", " {}", '{"b":1,"a":2}', '{"a": 1}', '{"a":1,"a":1}', '{"\\u0061":1}', '"é"', "1E2"]
)
def test_another_spelling_is_refused(spelling: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        parse_canonical_json(spelling)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("text", ["0.5", "NaN", "-Infinity", "[1e5]", "", "{", "[" * 60000, "1" * 5000])
def test_floats_and_bombs_are_refused(text: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        parse_canonical_json(text)
    assert caught.value.code == "malformed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.long
@given(JSON)
def test_what_is_encoded_canonically_decodes_to_itself(value: object) -> None:
    assert parse_canonical_json(canonical_json(value)) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooling", 0),
        ("pooling", True),
        ("pooling", "4"),
        ("triggers", 99),
        ("triggers", 1025),
        ("gamma", "0.5"),
        ("gamma", "1.1"),
        ("gamma", ".7"),
        ("gamma", 1),
        ("model_sha256", None),
        ("model_sha256", "AB" * 32),
        ("base_sha256", "ab"),
        ("taps", []),
        ("taps.0.shape", [64, 8]),
        ("taps.0.shape", [64, 8, 0]),
        ("taps.0.module", "layer1..conv"),
        ("taps.1.module", "layer1"),
        ("head.hidden", 0),
        ("input.height", 20),
        ("input.width", 1025),
        ("input.channels", 0),
        ("normalisation.mean", []),
        ("normalisation.mean", ["x"]),
        ("normalisation.std", ["0"]),
        ("normalisation.std", ["-1"]),
        ("architecture.arguments", []),
        ("surprise", 1),
        ("head.surprise", 1),
        ("reference", {}),
        ("reference", {"probes": 256, "pooling": 3}),
        ("reference", {"probes": 256, "pooling": 0}),
        ("reference", {"probes": 1, "pooling": 2}),
        ("reference", {"probes": 257, "pooling": 2}),
        ("reference", {"probes": 256, "pooling": True}),
        ("reference", {"probes": 256, "pooling": 2, "surprise": 1}),
    ],
)
def test_a_field_out_of_its_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(WatermarkError) as caught:
        decode_info(changed(field, value))
    assert caught.value.code == "malformed"
    assert "surprise" in field or field.split(".", maxsplit=1)[0] in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("architecture.name", "resnet19", "unknown_architecture"),
        ("architecture.arguments", {"weights": 1}, "unknown_architecture"),
        ("head.family", "mlp3", "unknown_scheme"),
        ("trigger_encoder", "qr-1H/2", "unknown_scheme"),
    ],
)
def test_what_this_version_does_not_know_has_its_own_code(field: str, value: object, code: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        decode_info(changed(field, value))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("input.length", 15, "malformed"),
        ("input.length", 1025, "malformed"),
        ("input.length", True, "malformed"),
        ("input.vocabulary", "500", "malformed"),
        ("input.vocabulary", 0, "malformed"),
        ("input.vocabulary", 501, "mismatch"),
        ("input.words_sha256", "CD" * 32, "malformed"),
        ("input.words_sha256", None, "malformed"),
        ("input.surprise", 1, "malformed"),
        ("input", {"channels": 3, "height": 32, "width": 32}, "malformed"),
        ("normalisation", {"mean": ["0"], "std": ["1"]}, "malformed"),
        ("trigger_encoder", "qr-1H/1", "mismatch"),
        ("trigger_encoder", "words/v2", "unknown_scheme"),
        ("architecture", {"arguments": {"num_classes": 2}, "name": "bilstm"}, "mismatch"),
        ("architecture", {"arguments": {"num_classes": 2}, "name": "resnet18"}, "mismatch"),
    ],
)
def test_a_field_of_texts_that_does_not_fit_is_refused(field: str, value: object, code: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        decode_info(changed(field, value, TEXTS))
    assert caught.value.code == code
    assert field.split(".", maxsplit=1)[0] in str(caught.value) or field == "architecture"


@pytest.mark.parametrize(
    ("field", "value"),
    [("trigger_encoder", "words/v1"), ("normalisation", None), ("input", json.loads('{"length":64}'))],
)
def test_pictures_are_not_taken_for_texts(field: str, value: object) -> None:
    with pytest.raises(WatermarkError, match=field) as caught:
        decode_info(changed(field, value))
    assert caught.value.code in {"mismatch", "malformed"}


def test_a_missing_field_is_refused() -> None:
    fields = json.loads(encode_info(INFO))
    del fields["gamma"]
    with pytest.raises(WatermarkError, match="gamma"):
        decode_info(canonical_json(fields))


def test_an_info_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(WatermarkError) as caught:
        decode_info("[" * (1 << 17))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("text", "holds"), [("0.7", True), ("1", True), ("0.51", True), ("0.5", False), ("1.01", False), ("nan", False)]
)
def test_gamma_lies_above_a_half(text: str, holds: bool) -> None:
    assert is_gamma(text) == holds
