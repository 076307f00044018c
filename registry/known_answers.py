"""Signatures whose answer is known: where libraries differ, this one must answer as every other node's does.

Which signatures hold decides what is in the ledger, so a node whose library multiplies by the cofactor, or takes points
of small order, would sooner or later stand alone with another history. The version is pinned, but an operating system's
packager may not know; so a node puts the questions itself, before it signs anything (a thousandth of a second).

The answers were computed point by point in `tests/registry/test_curve.py`, which computes them again. The texts of RFC
8032, section 7.1, test 1, say in addition that what is made here is what everybody makes, the same bytes each time.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.signing import IsSigned, sign

TEXT = b"example.org/w\n1\n" + b"A" * 43 + b"=\n"
_RFC_8032_PRIVATE = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
_RFC_8032_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
_RFC_8032_SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A signature on `TEXT`, in hexadecimal, and whether it holds; A is the key, R and S are the halves."""

    name: str
    key: str
    r_and_s: str
    holds: bool


ANSWERS = (
    Answer(
        "made as everybody makes it",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "209e98f46a2ab312a85c45c969abf4939ac6928bce0f1cbe0eff582e2b346a00",
        holds=True,
    ),
    Answer(
        "A with a part of order 8, where the equation holds",
        "2f2c5104a7048e66da538711f4ae5f8fa93ce753186c87d50a144502f4d09089",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "841b2aaf34308eacf0d37246861247c80fbfc2f486ca8eb8d8216895d3022f04",
        holds=True,
    ),
    Answer(
        "A with a part of order 8, with the cofactor alone",
        "2f2c5104a7048e66da538711f4ae5f8fa93ce753186c87d50a144502f4d09089",
        "bee1707ec209e7df4acea3d597e4e271165bc751a2436056de5c0a48624c30dd"
        "eef6d38ed02279546302d3f805625ec38f368633c714accb9ead892418e3b006",
        holds=False,
    ),
    Answer(
        "R with a part of order 8, with the cofactor alone",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "d56823e4de4c5a8d05114d50b403d02572009b77cfb648cbde2bab268eb57d1d"
        "a61efa16d80d6cfc7de54b8cac7ddd93519fd8d9d9128802cec84d36e56a1906",
        holds=False,
    ),
    Answer(
        "R with a part of order 2, with the cofactor alone",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "9eddafe93b05ee2fc0364640fcb3f45545a7965c9f671b973dbd6b40c4addfad"
        "fe70ab8d7121dfc9eb0f6f00d97cd8e9226a1ad02c10adfe80c55ab81b2cfd08",
        holds=False,
    ),
    Answer(
        "R the neutral point",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "0100000000000000000000000000000000000000000000000000000000000000"
        "e746ed68aafc2abed31cc9fabcaa1f30f85bd3f04c206b41f1c70c0d30a6e006",
        holds=False,
    ),
    Answer(
        "R the neutral point in another spelling",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
        "c5f9fc75b1dcaa59b9cfb8087d96dfbd8d442a40bdeb69698ff6eebfce59530a",
        holds=False,
    ),
    Answer(
        "R the neutral point with a sign",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "0100000000000000000000000000000000000000000000000000000000000080"
        "aaa80a92e1a931532857b2e7b7464b3eaf6966ad72815588fa200828596fbe0b",
        holds=False,
    ),
    Answer(
        "R of small order",
        "f0dd92e7dad028d8032faf6fadb2c7fddbdf05960e19621d24c9314357558476",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
        "6d167451b6c5c577175045acbf71b64dea63bf4dd08a22de79a12f3d92fe3d05",
        holds=False,
    ),
    Answer(
        "R no point",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "0200000000000000000000000000000000000000000000000000000000000000"
        "e713a1da92859356e280dc0e9b3d1f0d3d65933ed04006448aa0f815ffeefc0c",
        holds=False,
    ),
    Answer(
        "A the neutral point",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "a602000000000000000000000000000000000000000000008000000000000000",
        holds=False,
    ),
    Answer(
        "A the neutral point in another spelling",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "a602000000000000000000000000000000000000000000008000000000000000",
        holds=False,
    ),
    Answer(
        "A of order 8",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "51c66e740e60a04eeeba52aa8347416b47d997d2680229a2c434daead8e6e5e1"
        "a902000000000000000000000000000000000000000000008000000000000000",
        holds=False,
    ),
    Answer(
        "A no point",
        "0200000000000000000000000000000000000000000000000000000000000000",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "209e98f46a2ab312a85c45c969abf4939ac6928bce0f1cbe0eff582e2b346a00",
        holds=False,
    ),
    Answer(
        "S not below the order",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "0d728e51858dc56a7ef93c6c48a5d3a89ac6928bce0f1cbe0eff582e2b346a10",
        holds=False,
    ),
    Answer(
        "S with a high bit",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "209e98f46a2ab312a85c45c969abf4939ac6928bce0f1cbe0eff582e2b346a80",
        holds=False,
    ),
    Answer(
        "S with a flipped bit",
        "5cf4e1a5ea1db5d14f2afc5724e7dfcf823eb7a91bb3278b2f08af2f7af24dc0",
        "4f225016c4fa11d03fc9b9bf034c0baaba5869a36098e468c24294bf3b522052"
        "209e98f46a2ab312a95c45c969abf4939ac6928bce0f1cbe0eff582e2b346a00",
        holds=False,
    ),
)


def wrong_answers(is_signed: IsSigned) -> list[str]:
    """Put every question.

    Args:
        is_signed: what verifies signatures.

    Returns:
        The names of the signatures of which it says something else than the ledger's rule; empty for a sound library.
    """
    wrong = [
        answer.name
        for answer in ANSWERS
        if is_signed(TEXT, signer=bytes.fromhex(answer.key), signature=bytes.fromhex(answer.r_and_s)) != answer.holds
    ]
    made = bytes.fromhex(_RFC_8032_SIGNATURE)
    if sign(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(_RFC_8032_PRIVATE)), b"") != made:
        wrong.append("made by RFC 8032's first key")
    if not is_signed(b"", signer=bytes.fromhex(_RFC_8032_PUBLIC), signature=made):
        wrong.append("RFC 8032's first")
    return wrong
