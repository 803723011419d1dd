"""The store: published versions of models, each an immutable, signed folder, and the records beside them.

A folder is named by its version digest and comes in whole: copied to a temporary place, signed, flushed,
renamed, then entered in the catalogue. Folders are renamed in or out only while the catalogue's write lock is
held, and a row is removed before its folder, so that at any moment, after any `kill -9`: what has a row has
its folder, and a folder without a row is rubbish that the next `Store()` clears. All reading goes through
`open`; nobody else joins paths.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec
from sqlalchemy import Connection

from trimtab.spec.artifact import PASSPORT, Passport, content_part, file_digest, manifest_digest
from trimtab.spec.artifact import files as artifact_files
from trimtab.spec.errors import IntegrityError, NotFoundError, RefusedError, UsageError
from trimtab.spec.ids import Reference, check_name, parse_reference
from trimtab.spec.version import __version__
from trimtab.store import intake, signing
from trimtab.store.builds import BuildCache
from trimtab.store.catalogue import Catalogue, folders_in_use, record_folder
from trimtab.store.database import DEFAULT_TENANT, Database
from trimtab.store.durable import copy_files, move, sync_tree, writing_to
from trimtab.store.home import home as default_home
from trimtab.store.home import prepare
from trimtab.store.scratch import scratch, sweep
from trimtab.store.version import Version

# Of artifacts a digest; of records, beside them, a digest and a name.
_OURS = re.compile(r"[0-9a-f]{64}(-.+)?")
_AGAIN = "Import or publish the model again."


class Store:
    """Everything under one home, as one tenant sees it. Many processes and threads may use it at once."""

    def __init__(self, home: Path | None = None, *, tenant: str = DEFAULT_TENANT) -> None:
        self.home = default_home() if home is None else prepare(home)
        self._tenant = tenant
        self._artifacts, self._records, self._scratch = (
            self.home / name for name in ("artifacts", "records", "scratch")
        )
        for folder in (self._artifacts, self._records, self._scratch):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._database = Database(self.home)
        self.builds = BuildCache(self.home)
        sweep(self._scratch)
        with self._database.reading() as connection:
            rubbish = self._unreferenced(connection)
        if rubbish:
            self._clear()

    def publish(self, folder: Path, name: str, *, aliases: Iterable[str] = ()) -> Version:
        """Take a copy of `folder` in as the next version of `name`, and point `aliases` at it, or do nothing.

        If the newest version has the very same files, that version is returned. Raises `ModelError` for a
        folder that may not come in (`store.intake`), `UsageError` for a bad name.
        """
        return self._take(intake.admit(folder), name, tuple(aliases), lambda _: None)

    def import_folder(self, folder: Path, name: str, *, parameters: int | None = None) -> Version:
        """Publish somebody else's model folder. A passport is written if it has none. Raises as `publish`
        does.

        `parameters` is what one who knows the architecture counts (`models.info.check_folder`); else all
        elements that are no constants count.
        """
        admitted = intake.examine(folder)
        files = admitted.files

        def write_passport(copy: Path) -> None:
            if PurePosixPath(PASSPORT) not in files:
                passport = _first_passport(name, admitted, parameters)
                (copy / PASSPORT).write_bytes(msgspec.json.format(msgspec.json.encode(passport), indent=2))

        return self._take(files, name, (), write_passport)

    @contextmanager
    def open(self, reference: str | Reference) -> Iterator[Path]:
        """The folder of a version, checked: signature, and the digest of every file. Treat it as read-only.

        Costs one SHA-256 pass over the bytes (0.6 to 1.7 GB/s a core) and nothing else that grows with the
        model; the first call of a process adds half a second of imports. Raises `NotFoundError`, or
        `IntegrityError` that names the file which changed.
        """
        yield self._checked(self.resolve(reference))[0]

    def verify(self, reference: str | Reference) -> list[str]:
        """Check a version as `open` does; returns the files that were checked."""
        return sorted(self._checked(self.resolve(reference))[1])

    def verify_folder(self, folder: Path) -> list[str]:
        """Check an exported folder against this home's key; returns the files that were checked."""
        if not folder.is_dir():
            raise NotFoundError("this is not a folder.", where=str(folder))
        return sorted(signing.verify(folder, self.home))

    def resolve(self, reference: str | Reference) -> Version:
        """Raises `NotFoundError` for what names nothing."""
        with self._database.reading() as connection:
            return Catalogue(connection, self._tenant).resolve(_reference(reference))

    def versions(self) -> list[Version]:
        """By name, oldest first."""
        with self._database.reading() as connection:
            return Catalogue(connection, self._tenant).versions()

    def alias(self, name: str, alias: str, version: int | None = None) -> Version:
        """Point `name:alias` at a version (None: the newest), wherever it pointed before."""
        check_name(alias, "alias")
        with self._database.writing() as connection:
            catalogue = Catalogue(connection, self._tenant)
            target = catalogue.resolve(Reference(name=check_name(name), version=version))
            catalogue.set_alias(name, alias, target.version)
            return catalogue.resolve(Reference(name=name, version=target.version))

    def drop_alias(self, name: str, alias: str) -> None:
        """Take an alias away; the version stays."""
        with self._database.writing() as connection:
            if not Catalogue(connection, self._tenant).drop_alias(name, alias):
                raise NotFoundError(
                    f"there is no alias {name}:{alias}.", remedy="'trimtab models ls' shows them."
                )

    def remove(self, reference: str | Reference) -> Version:
        """Forget a version, its files and records. Refused while an alias points at it. Its number stays
        used.
        """
        with self._database.writing() as connection:
            catalogue = Catalogue(connection, self._tenant)
            version = catalogue.resolve(_reference(reference))
            if version.aliases:
                raise RefusedError(
                    f"{version.reference} is what {version.name}:{version.aliases[0]} points at.",
                    remedy="Move or delete the alias first, with 'trimtab models alias'.",
                )
            catalogue.remove(version)
        self._clear()
        return version

    def export(self, reference: str | Reference, destination: Path) -> Version:
        """A checked copy of a version at `destination`, which must not exist yet (or be an empty folder)."""
        version = self.resolve(reference)
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise UsageError(
                "this place is taken.", where=str(destination), remedy="Name a folder that is not there."
            )
        destination = destination.absolute()
        with writing_to(destination), self.open(reference) as folder:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{destination.name}.", dir=destination.parent
            ) as temporary:
                copy = Path(temporary, version.name)
                copy_files({name: folder / name for name in artifact_files(folder)}, copy)
                signing.verify(copy, self.home)  # the copy is what is handed over
                sync_tree(copy)
                move(copy, destination)
        return version

    def attach(self, reference: str | Reference, record: str, path: Path) -> Version:
        """Keep a copy of the file `path` beside a version as `record`, in place of an older one."""
        check_name(record, "record name")
        with writing_to(self.home), scratch(self._scratch) as temporary:
            copy = temporary / "record"
            copy_files({PurePosixPath(record): path}, copy)
            digest = file_digest(copy / record)
            sync_tree(copy)
            with self._database.writing() as connection:
                catalogue = Catalogue(connection, self._tenant)
                version = catalogue.resolve(_reference(reference))
                target = self._records / record_folder(record, digest)
                _place(copy, target, lambda folder: _has_digest(folder / record, digest))
                catalogue.set_record(version, record, digest)
        return version

    def record(self, reference: str | Reference, record: str) -> Path:
        """The file of that name, checked. Raises `NotFoundError`, or `IntegrityError` if it changed."""
        version = self.resolve(reference)
        records = self._records_of(version)
        if record not in records:
            there = f"It has: {', '.join(records)}." if records else "It has none."
            raise NotFoundError(f"{version.reference} has no record '{record}'.", remedy=there)
        path = self._records / record_folder(record, records[record]) / record
        if not _has_digest(path, records[record]):
            raise IntegrityError(
                "this record changed or is gone.", where=str(path), remedy="Attach it again."
            )
        return path

    def records(self, reference: str | Reference) -> list[str]:
        """Names of the records beside a version."""
        return list(self._records_of(self.resolve(reference)))

    def _records_of(self, version: Version) -> dict[str, str]:
        with self._database.reading() as connection:
            return Catalogue(connection, self._tenant).records(version)

    def _take(
        self,
        files: dict[PurePosixPath, Path],
        name: str,
        aliases: tuple[str, ...],
        finish: Callable[[Path], None],
    ) -> Version:
        check_name(name)
        for alias in aliases:
            check_name(alias, "alias")
        with writing_to(self.home), scratch(self._scratch) as temporary:
            copy = temporary / name
            copy_files(files, copy)
            finish(copy)
            entries = signing.sign(copy, self.home)
            size_bytes = sum((copy / file).stat().st_size for file in artifact_files(copy))
            sync_tree(copy)
            with self._database.writing() as connection:
                catalogue = Catalogue(connection, self._tenant)
                version = catalogue.newest(name)
                _place(copy, self._artifacts / manifest_digest(entries), self._is_intact)
                if version is None or version.version_digest != manifest_digest(entries):
                    version = catalogue.add(
                        name,
                        content_digest=manifest_digest(content_part(entries)),
                        version_digest=manifest_digest(entries),
                        size_bytes=size_bytes,
                    )
                for alias in aliases:
                    catalogue.set_alias(name, alias, version.version)
                return catalogue.resolve(Reference(name=name, version=version.version))

    def _checked(self, version: Version) -> tuple[Path, dict[str, str]]:
        folder = self._artifacts / version.version_digest
        if not folder.is_dir():
            raise IntegrityError("the folder of this version is gone.", where=str(folder), remedy=_AGAIN)
        entries = signing.verify(folder, self.home)
        # A whole other version, validly signed, could have been put in this one's place.
        if manifest_digest(entries) != version.version_digest:
            raise IntegrityError(
                f"this folder does not hold {version.reference}.", where=str(folder), remedy=_AGAIN
            )
        return folder, entries

    def _is_intact(self, folder: Path) -> bool:
        try:
            return manifest_digest(signing.verify(folder, self.home)) == folder.name
        except IntegrityError:
            return False

    def _unreferenced(self, connection: Connection) -> list[Path]:
        versions, records = folders_in_use(connection)
        return [
            folder
            for root, used in ((self._artifacts, versions), (self._records, records))
            for folder in root.iterdir()
            if _OURS.fullmatch(folder.name) and folder.name not in used
        ]

    def _clear(self) -> None:
        """Remove folders that no row needs. Under the write lock, so none of them is just coming in."""
        with writing_to(self.home), scratch(self._scratch) as bin_, self._database.writing() as connection:
            for number, folder in enumerate(self._unreferenced(connection)):
                move(folder, bin_ / str(number))


def _reference(reference: str | Reference) -> Reference:
    return parse_reference(reference) if isinstance(reference, str) else reference


def _place(folder: Path, target: Path, is_intact: Callable[[Path], bool]) -> None:
    """Bring a complete folder in, unless the same is there already and intact. Needs the write lock."""
    if target.exists():
        if is_intact(target):
            return
        target.rename(folder.with_name(".damaged"))
    move(folder, target)


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _first_passport(name: str, admitted: intake.Admitted, parameters: int | None) -> Passport:
    architectures = admitted.config.get("architectures")
    return Passport(
        name=name,
        architecture=str(architectures[0])
        if isinstance(architectures, list) and architectures
        else "unknown",
        parameters=admitted.parameters if parameters is None else parameters,
        steps=("imported",),
        trimtab_version=__version__,
        # No time in it: importing the same files again must give the same version.
    )
