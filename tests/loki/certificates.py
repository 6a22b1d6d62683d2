"""Certificates of an authority of the test's own, made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT_S = 30
_CONFIG = """
[req]
distinguished_name = empty
[empty]
[ca]
default_ca = own
[own]
new_certs_dir = {folder}
database = {folder}/index
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class Authority:
    """
    An authority, and the contexts of servers that it vouches for; strict enough for Python 3.13, which checks more by itself.

    Args:
        folder: For its files; `ca_file` is the certificate that a client must trust.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        folder.mkdir(parents=True, exist_ok=True)
        self._key("ca")
        self._configure("DNS:localhost")
        self._request("ca", "fapilog tests", "-x509", "-extensions", "authority", "-days", "30", "-out", "ca.pem")
        (folder / "index").touch()
        (folder / "index.attr").write_text("unique_subject = no\n")
        (folder / "serial").write_text("01\n")

    def server(self, *, name: str = "localhost", expired: bool = False) -> ssl.SSLContext:
        """Return the context of a server named *name* (and 127.0.0.1 where that is ``localhost``)."""
        stem = f"{name}-{'expired' if expired else 'valid'}"
        if not (self.folder / f"{stem}.pem").exists():
            self._issue(stem, name, expired=expired)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        return context

    def client(self, name: str) -> None:
        """Make the certificate ``name.pem`` of a client, and its key."""
        self._issue(name, name, expired=False)

    def _issue(self, stem: str, name: str, *, expired: bool) -> None:
        names = f"DNS:{name}" + (",IP:127.0.0.1" if name == "localhost" else "")
        self._configure(names)
        self._key(stem)
        self._request(stem, name, "-out", f"{stem}.csr")
        dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"] if expired else ["-days", "30"]
        arguments = ["-config", "conf", "-batch", "-notext", "-extensions", "server", *dates]
        self._openssl("ca", *arguments, "-in", f"{stem}.csr", "-out", f"{stem}.pem")

    def _configure(self, names: str) -> None:
        (self.folder / "conf").write_text(_CONFIG.format(folder=self.folder, names=names))

    def _request(self, stem: str, name: str, *arguments: str) -> None:
        self._openssl("req", "-new", "-config", "conf", "-key", f"{stem}.key", "-subj", f"/CN={name}", *arguments)

    def _key(self, stem: str) -> None:
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{stem}.key")

    def _openssl(self, *arguments: str) -> None:
        made = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, timeout=_LIMIT_S, check=False)
        assert made.returncode == 0, made.stderr.decode(errors="replace")


def authority(folder: Path) -> Authority:
    """Return an authority in *folder*; skip the test where there is no openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make certificates with")
    return Authority(folder)
