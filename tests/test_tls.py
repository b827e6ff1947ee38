"""Contexts for TLS: made once for the same inputs, and plain words for what is wrong."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tls_kit import Authority, Files

from mvllm_router.config import ServerSpec
from mvllm_router.config.pem import stamp
from mvllm_router.tls import Certificate, TlsError, changed_files, client_context, explain


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> Files:
    return authority.issue("one")


def spec(**tls: object) -> ServerSpec:
    return ServerSpec("https://a:1", "a", **tls)  # type: ignore[arg-type]


def test_servers_are_verified_and_spoken_to_in_tls_1_2_at_least() -> None:
    context = client_context(spec())
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    unverified = client_context(spec(tls_verify=False))
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


def test_a_ca_of_ones_own_is_the_only_one_that_is_trusted(authority: Authority) -> None:
    assert len(client_context(spec(tls_ca=authority.path)).get_ca_certs()) == 1


def test_a_context_is_made_once_for_the_same_inputs_and_the_same_content(
    authority: Authority,
) -> None:
    one = client_context(spec(tls_ca=authority.path, tls_files="1"))
    assert client_context(spec(tls_ca=authority.path, tls_files="1", weight=2.0)) is one
    for other in (
        {"tls_ca": authority.path, "tls_files": "2"},
        {"tls_files": "1"},
        {"tls_verify": False},
    ):
        assert client_context(spec(**other)) is not one


def test_a_failure_is_not_remembered(authority: Authority, tmp_path: Path) -> None:
    late = str(tmp_path / "late.pem")
    with pytest.raises(TlsError, match=r"the CA .*late.pem cannot be used: No such file"):
        client_context(spec(tls_ca=late))
    authority.ca.cert_pem.write_to_path(late)
    assert client_context(spec(tls_ca=late)).get_ca_certs()


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("one.pem", "two.key", "the key does not fit the certificate"),
        ("one.pem", "nope.key", "No such file or directory"),
        ("one.pem", "one.pem", "it is not in PEM format"),
        ("one.key", "one.key", "it is not in PEM format"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named_with_the_reason(
    cert: str, key: str, why: str, authority: Authority, files: Files, tmp_path: Path
) -> None:
    authority.issue("two")
    for use in (Certificate, lambda c, k: client_context(spec(tls_cert=c, tls_key=k))):
        with pytest.raises(TlsError) as caught:
            use(str(tmp_path / cert), str(tmp_path / key))
        assert str(caught.value) == (
            f"the certificate {tmp_path / cert} with the key {tmp_path / key} cannot be used: {why}"
        )


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(files: Files) -> None:
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    Path(files.key).write_bytes(encrypted)
    with pytest.raises(TlsError, match=r"one.key is encrypted: store it without a passphrase"):
        Certificate(files.cert, files.key)


def test_a_certificate_is_read_again_only_when_its_files_have_changed(
    authority: Authority, files: Files
) -> None:
    certificate = Certificate(files.cert, files.key)
    assert not certificate.renew()
    authority.issue("one")
    assert certificate.renew()
    assert not certificate.renew()
    Path(files.key).unlink()
    with pytest.raises(TlsError, match="No such file"):
        certificate.renew()
    assert not certificate.renew()  # until they change again
    authority.issue("one")
    assert certificate.renew()


def test_servers_whose_files_have_changed_are_found(authority: Authority, files: Files) -> None:
    specs = [
        spec(),
        spec(tls_ca=authority.path, tls_files=stamp([authority.path])),
        spec(tls_cert=files.both, tls_files=stamp([files.both])),
    ]
    assert changed_files(specs) == ()
    authority.issue("one")
    (changed,) = changed_files(specs)
    assert changed == stamp([files.both])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (ValueError("something"), "something"),
        (TimeoutError(), "TimeoutError"),
        (TlsError("the CA x cannot be used"), "the CA x cannot be used"),
    ],
)
def test_other_errors_keep_their_words(error: Exception, words: str) -> None:
    assert explain(error) == words
