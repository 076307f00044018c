"""Promised: a certificate that TLS accepts, a key that fits it, and the pin that peers will compute."""

import datetime as dt
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from node.raft import certificate_pins, make_certificate

NOW = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)


def test_the_pin_is_the_sha256_of_the_der_certificate():
    made = make_certificate("node-1", now=NOW)
    der = ssl.PEM_cert_to_DER_cert(made.certificate_pem)
    assert made.pin == hashlib.sha256(der).hexdigest()
    assert certificate_pins(made.certificate_pem) == (made.pin,)


def test_key_and_certificate_belong_together_and_are_p256():
    made = make_certificate("node-1", now=NOW)
    certificate = x509.load_pem_x509_certificate(made.certificate_pem.encode())
    private_key = load_pem_private_key(made.private_key_pem.encode(), password=None)
    assert private_key.public_key() == certificate.public_key()
    assert isinstance(private_key.curve, ec.SECP256R1)


def test_it_is_valid_from_a_day_before_for_ten_years():
    certificate = x509.load_pem_x509_certificate(make_certificate("node-1", now=NOW).certificate_pem.encode())
    assert certificate.not_valid_before_utc == NOW - dt.timedelta(days=1)
    assert certificate.not_valid_after_utc == NOW + dt.timedelta(days=3650)


def test_two_certificates_of_one_name_have_two_pins_and_a_file_may_hold_both():
    one, two = make_certificate("node-1", now=NOW), make_certificate("node-1", now=NOW)
    assert one.pin != two.pin
    assert certificate_pins(one.certificate_pem + two.certificate_pem) == (one.pin, two.pin)


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n"])
def test_a_text_without_a_certificate_is_refused(text):
    with pytest.raises(ValueError, match="no certificate"):
        certificate_pins(text)


def test_a_damaged_certificate_is_refused():
    with pytest.raises(ValueError, match=r"pad|base64"):
        certificate_pins("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n")


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="aware"):
        make_certificate("node-1", now=NOW.replace(tzinfo=None))


def test_a_name_that_fits_no_certificate_is_refused():
    with pytest.raises(ValueError, match="length"):
        make_certificate("n" * 65, now=NOW)
