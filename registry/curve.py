"""Which 32 bytes are an Ed25519 public key that one party alone can sign for (RFC 8032, section 5.1.3).

Libraries take, or took, keys that they should not: points of small order, for which everybody can make signatures that
hold, and coordinates that are not reduced, which give one point two spellings. Both kinds are few, so all of them stand
in one set, and looking a key up costs nothing beside a signature. Whether bytes are a point of the curve at all takes a
modular power in Python, about as long as a signature. No signature holds under what is not a point; only keys that are
kept until somebody signs are put to that.

Source: RFC 8032 section 5.1; the points of small order as in Chalkias et al. 2020, "Taming the many EdDSAs", table 1.
"""

from functools import lru_cache

_POINT_BYTES = 32
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SIGN = 1 << 255
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = (0, 1, _P - 1, _ORDER_8, _P - _ORDER_8)  # y of the points of order 4, 1, 2, 8 and 8
_NOT_REDUCED = range(_P, 2**255)
_FOR_EVERYBODY = frozenset(
    (y | sign).to_bytes(_POINT_BYTES, "little") for y in (*_SMALL_ORDER, *_NOT_REDUCED) for sign in (0, _SIGN)
)


def is_for_everybody(public_key: bytes) -> bool:
    """Whether everybody can sign for this key, or it is another spelling of a key; the same for another point."""
    return public_key in _FOR_EVERYBODY


@lru_cache(maxsize=4096)  # the keys of a ledger's members are read again and again
def is_public_key(public_key: bytes) -> bool:
    """Whether these bytes are a point of the curve in its one spelling, and not of small order."""
    if len(public_key) != _POINT_BYTES or is_for_everybody(public_key):
        return False
    y = int.from_bytes(public_key, "little") & (_SIGN - 1)
    # x² = (y² - 1) / (d·y² + 1) is a square by Euler's criterion (the divisor is never 0).
    return pow((y * y - 1) * (_D * y * y + 1), (_P - 1) // 2, _P) == 1
