"""Signatures of artifact folders: OpenSSF Model Signing, ECDSA P-256, one key a home, made on first use.

A signature proves that a folder is *unchanged* since this home signed it: no file altered, added, removed or
linked elsewhere. It does not prove *by whom*: whoever can read `home/keys` can sign anything. Files are
hashed in pieces, never read whole. Importing `model_signing` costs about half a second (it brings sigstore),
so only a call does.
"""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trimtab.spec.artifact import SIGNATURE, file_digest, files
from trimtab.spec.errors import IntegrityError
from trimtab.store.durable import replace_bytes
from trimtab.store.private import private_file

if TYPE_CHECKING:
    from model_signing import hashing

MAX_SIGNATURE_BYTES = 16 * 2**20
# What libraries say of a mangled bundle.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


class _Resource(msgspec.Struct):
    name: str
    digest: str


class _Predicate(msgspec.Struct):
    resources: list[_Resource]


class _Statement(msgspec.Struct):
    predicate: _Predicate


class _Envelope(msgspec.Struct):
    payload: str


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: _Envelope


def sign(folder: Path, home: Path) -> dict[str, str]:
    """Sign every file of `folder` into `folder/model.sig`. Returns relative path → SHA-256 (hex) of what was
    signed.

    The folder's own name is recorded in the signature, for people; it is not checked.
    """
    from model_signing import signing

    private, _ = _key_pair(home)
    signer = signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(_hashing())
    signer.sign(folder, folder / SIGNATURE)
    return _signed_entries(folder)


def verify(folder: Path, home: Path) -> dict[str, str]:
    """Check signature and files: one pass over the bytes. Returns relative path → SHA-256 (hex) of every
    file.

    Raises `IntegrityError` that names a file which changed, is missing or was added, or the signature itself.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    _refuse_odd_files(folder)
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise IntegrityError("this folder is not signed.", where=str(folder), remedy="Import it to sign it.")
    if signature.stat().st_size > MAX_SIGNATURE_BYTES:
        raise IntegrityError("this is too large for a signature.", where=str(signature))
    _, public = _key_pair(home)
    try:
        verifier = (
            verifying.Config().use_elliptic_key_verifier(public_key=public).set_hashing_config(_hashing())
        )
        verifier.verify(folder, signature)
        return _signed_entries(folder)
    except (InvalidSignature, *_MALFORMED) as error:
        raise _fault(folder) from error


def _hashing() -> hashing.Config:
    from model_signing import hashing

    # Everything but the signature counts: by default the library would overlook `.git*` files, added ones
    # too.
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _key_pair(home: Path) -> tuple[Path, Path]:
    """Paths of the private key (0600) and of the public key derived from it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make() -> bytes:
        return ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    private, public = home / "keys" / "signing.pem", home / "keys" / "signing.pub"
    key = serialization.load_pem_private_key(private_file(private, make), password=None)
    expected = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # Derived each time: a public key that someone put there must not decide what counts as signed.
    if not public.is_file() or public.read_bytes() != expected:
        replace_bytes(public, expected)
    return private, public


def _signed_entries(folder: Path) -> dict[str, str]:
    """What `model.sig` lists. To be trusted only after the signature was checked."""
    bundle = msgspec.json.decode((folder / SIGNATURE).read_bytes(), type=_Bundle)
    statement = msgspec.json.decode(base64.b64decode(bundle.dsse_envelope.payload), type=_Statement)
    return {resource.name: resource.digest for resource in statement.predicate.resources}


def _refuse_odd_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise IntegrityError(
                "this is a link or a special file, which no artifact holds.", where=str(path)
            )


def _fault(folder: Path) -> IntegrityError:
    """Say which file it is; hashes the folder once more, as nothing else is left to do with it."""
    remedy = "Do not use this copy; import or publish the model again."
    try:
        signed = _signed_entries(folder)
    except _MALFORMED:
        return IntegrityError("the signature cannot be read.", where=str(folder / SIGNATURE), remedy=remedy)
    present = {str(name) for name in files(folder)} - {SIGNATURE}
    for names, what in (
        (signed.keys() - present, "this signed file is missing."),
        (present - signed.keys(), "this file was added after signing."),
        (
            {name for name in signed.keys() & present if file_digest(folder / name) != signed[name]},
            "this file changed.",
        ),
    ):
        if names:
            return IntegrityError(what, where=str(folder / min(names)), remedy=remedy)
    return IntegrityError(
        "the signature was not made by this home's key.",
        where=str(folder / SIGNATURE),
        remedy="Import the model here, if you trust where it comes from.",
    )
