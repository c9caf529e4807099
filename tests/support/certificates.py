"""A self-signed certificate for 127.0.0.1, and a client certificate signed by it."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Write a certificate and its key into ``directory``; return their paths."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("127.0.0.1")
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = _builder(name, name, key, ca=True).add_extension(
        x509.SubjectAlternativeName([address]), critical=False
    )
    certificate = builder.sign(key, hashes.SHA256())
    return _write(directory, ("certificate.pem", "key.pem"), certificate, key)


def signed(directory: Path) -> tuple[Path, Path]:
    """Write a client's key and its certificate, signed by that of ``self_signed`` there."""
    signer_key = serialization.load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(signer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name("client"), _name("127.0.0.1"), key, ca=False)
    certificate = builder.sign(signer_key, hashes.SHA256())
    return _write(directory, ("client.pem", "client-key.pem"), certificate, key)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )


def _write(
    directory: Path,
    names: tuple[str, str],
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> tuple[Path, Path]:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate_file, key_file = (directory / name for name in names)
    certificate_file.write_bytes(certificate.public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate_file, key_file
