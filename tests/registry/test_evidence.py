"""Commitments do not change when a file is re-saved, and change with everything that matters."""

import io
import json

import pytest
import safetensors.numpy
from fakes import ORIGIN, binding, private_key, public_key

from registry import commitments, watermark_key
from registry.commitments import TensorBytes
from registry.errors import MalformedError, RefusedError
from registry.evidence import FORMAT, NULLS_MAX, Declared, parse_evidence, read_declared

np = pytest.importorskip("numpy")
INFO = json.dumps({"scheme": "mtlsign", "triggers": 600}, sort_keys=True, separators=(",", ":"))
METADATA = {"format": FORMAT, "salt": "5a" * 32, "info": INFO}


def evidence(tensors=None, **metadata):
    tensors = tensors or {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    return safetensors.numpy.save(tensors, metadata=METADATA | metadata)


def test_an_evidence_file_is_read():
    parsed = parse_evidence(evidence())
    assert [(t.name, t.dtype, t.shape, len(t.data)) for t in parsed.tensors] == [
        ("a", "F32", (2, 3), 24),
        ("b", "F32", (2,), 8),
    ]
    assert (parsed.salt, parsed.info, parsed.scheme) == (b"\x5a" * 32, INFO.encode(), "mtlsign")


def test_the_order_of_tensors_in_the_file_changes_no_commitment():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    first, second = parse_evidence(evidence({"a": a, "b": b})), parse_evidence(evidence({"b": b, "a": a}))
    assert first.head_commitment == second.head_commitment


TENSOR = TensorBytes("a", "F32", (2, 3), bytes(24))


@pytest.mark.parametrize(
    "other",
    [
        TENSOR._replace(name="c"),
        TENSOR._replace(dtype="I32"),
        TENSOR._replace(shape=(3, 2)),
        TENSOR._replace(data=bytes(23) + b"\1"),
    ],
)
def test_a_head_commitment_covers_name_type_shape_and_content(other):
    assert commitments.head_commitment([TENSOR]) != commitments.head_commitment([other])


def test_commitments_of_different_kinds_differ():
    made = {
        commitments.key_commitment(bytes(32) * 2),
        commitments.info_commitment(bytes(32), bytes(32)),
        commitments.model_commitment(bytes(32), bytes(32)),
        commitments.head_commitment([]),
    }
    assert len(made) == 4


def test_a_salt_hides_a_guessable_info():
    assert commitments.info_commitment(bytes(32), b"x") != commitments.info_commitment(b"\1" * 32, b"x")
    for call in (lambda: commitments.info_commitment(b"", b"x"), lambda: commitments.model_commitment(b"", bytes(32))):
        with pytest.raises(ValueError, match="salt"):
            call()


def test_two_tensors_of_one_name_are_the_callers_mistake():
    with pytest.raises(ValueError, match="one name"):
        commitments.head_commitment([TENSOR, TENSOR])


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": "wmreg-evidence/9"},
        {"salt": "5A" * 32},
        {"salt": "5a" * 31},
        {"salt": "zz" * 32},
        {"info": "{}  "},
        {"info": '{"b":1,"a":2}'},
        {"info": '{"a":0.7}'},
        {"info": '{"a":NaN}'},
        {"info": '{"a":1,"a":1}'},
        {"info": "[]"},
        {"info": "["},
        {"info": "[" * 100_000},
        {"more": "x"},
    ],
)
def test_metadata_that_is_not_an_evidence_files_is_malformed(metadata):
    with pytest.raises(MalformedError):
        parse_evidence(evidence(**metadata))


RAW = evidence()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        RAW[:7],
        RAW[:100],
        RAW[:-1],
        RAW + b"\0",
        (2**60).to_bytes(8, "little") + RAW[8:],
        (5).to_bytes(8, "little") + b"[1,2]",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"\xff\xff",
        b"\x80\x04K\x01.",
        safetensors.numpy.save({str(n): np.ones(1, np.float32) for n in range(300)}, metadata=METADATA),
        safetensors.numpy.save({"a": np.ones(1, np.float32)}),
    ],
    ids=lambda raw: f"{len(raw)} bytes",  # the order of a file's metadata differs from process to process
)
def test_what_is_not_an_evidence_file_is_malformed(raw):
    with pytest.raises(MalformedError):
        parse_evidence(raw)


def test_evidence_that_names_no_scheme_is_malformed():
    with pytest.raises(MalformedError, match="scheme"):
        parse_evidence(evidence(info="{}")).scheme  # noqa: B018  # the property is what is tested


def test_a_watermark_key_is_bound_to_its_owner_and_ledger():
    made = binding("alice")
    watermark_key.verify_binding(made, origin=ORIGIN, owner=public_key("alice"))
    assert len(made.watermark_key) == 32
    for origin, owner in ((ORIGIN, public_key("bob")), ("elsewhere.org", public_key("alice")), (ORIGIN, b"short")):
        with pytest.raises(RefusedError) as refused:
            watermark_key.verify_binding(made, origin=origin, owner=owner)
        assert refused.value.code == "key_not_bound"


def test_another_nonce_makes_another_key():
    assert binding("alice", number=1).watermark_key != binding("alice", number=2).watermark_key
    with pytest.raises(ValueError, match="nonce"):
        watermark_key.bind(private_key("alice"), origin=ORIGIN, nonce=b"")


def declaring(base_sha256: object) -> bytes:
    info = {"base_sha256": base_sha256, "scheme": "mtlsign"}
    return evidence(info=json.dumps(info, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize(("stated", "read"), [("5c" * 32, b"\x5c" * 32), (None, None)])
def test_the_base_that_evidence_declares_is_read_from_its_header_alone(stated, read):
    raw = declaring(stated)
    header = raw[: 8 + int.from_bytes(raw[:8], "little")]
    assert parse_evidence(raw).declared == Declared(base=read)
    assert read_declared(io.BytesIO(raw)) == read_declared(io.BytesIO(header)) == Declared(base=read)


def test_an_info_without_a_word_of_a_base_declares_none():
    assert parse_evidence(evidence()).declared == Declared()


@pytest.mark.parametrize("stated", ["", "5C" * 32, "5c" * 31, 7, True, ["5c" * 32]])
def test_a_declared_base_that_is_no_hash_is_malformed(stated):
    with pytest.raises(MalformedError, match="base_sha256"):
        read_declared(io.BytesIO(declaring(stated)))
    with pytest.raises(MalformedError, match="base_sha256"):
        _ = parse_evidence(declaring(stated)).declared


def declaring_nulls(nulls_sha256: object) -> bytes:
    info = {"nulls_sha256": nulls_sha256, "scheme": "frontier_stitching"}
    return evidence(info=json.dumps(info, sort_keys=True, separators=(",", ":")))


def test_declared_null_models_are_read_in_their_order():
    raw = declaring_nulls(["5c" * 32, "36" * 32])
    assert parse_evidence(raw).declared.all == read_declared(io.BytesIO(raw)).nulls == (b"\x5c" * 32, b"\x36" * 32)


@pytest.mark.parametrize("stated", [None, "5c" * 32, {}, [7], ["5C" * 32], ["5c" * 31], ["5c" * 32] * (NULLS_MAX + 1)])
def test_declared_null_models_that_are_no_hashes_are_malformed(stated):
    with pytest.raises(MalformedError, match="nulls_sha256"):
        read_declared(io.BytesIO(declaring_nulls(stated)))


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x80\x04pickle", b"\xff" * 100, declaring("5c" * 32)[:50]],
    ids=["empty", "pickle", "long header", "cut off"],  # safetensors orders metadata anew in each process
)
def test_no_base_is_read_from_what_is_no_evidence_file(raw):
    with pytest.raises(MalformedError):
        read_declared(io.BytesIO(raw))
