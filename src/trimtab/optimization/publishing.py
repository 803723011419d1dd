"""From a decision to a version in the store: records into the folder, signature, report beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from trimtab.models.info import inspect
from trimtab.optimization.card import model_card
from trimtab.optimization.workspace import Workspace
from trimtab.spec.artifact import CARD, PASSPORT, SERVING, Passport
from trimtab.spec.clock import now
from trimtab.spec.verdict import Candidate, Verdict
from trimtab.spec.version import __version__
from trimtab.store.store import Store
from trimtab.store.version import Version


def publish(
    store: Store,
    workspace: Workspace,
    name: str,
    folder: Path,
    candidate: Candidate,
    *,
    parent: str | None,
    recipe_digest: str,
    data_digest: str | None,
    aliases: tuple[str, ...] = (),
) -> Version:
    """A signed version of `folder` with its serving configuration, passport and card. The folder stays as it is.

    A step of the run: one that was cut off between publishing and remembering it publishes the same bytes again,
    which the store takes for the same version.
    """
    created = workspace.step("proven", str, now)
    staged = workspace.folder / "publish" / candidate.name
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(folder, staged)
    passport = Passport(
        name=name,
        architecture=inspect(folder).architecture,
        parameters=candidate.parameters,
        parent=parent,
        recipe_digest=recipe_digest,
        data_digest=data_digest,
        steps=candidate.steps,
        quality=candidate.quality,
        speed=candidate.speed,
        engines=(candidate.serving.engine, "transformers"),
        trimtab_version=__version__,
        created=created,
    )
    _write(staged / PASSPORT, passport)
    _write(staged / SERVING, candidate.serving)
    (staged / CARD).write_text(model_card(name, passport, candidate.serving), encoding="utf-8")
    version = store.publish(staged, name, aliases=aliases)
    shutil.rmtree(staged)
    return version


def attach_records(store: Store, workspace: Workspace, verdict: Verdict) -> None:
    """Keep verdict and report beside the published winner, if there is one."""
    if verdict.winner is None:
        return
    published = f"{verdict.winner.name}@{verdict.winner.version}"
    draft = workspace.folder / "publish" / "verdict.json"
    draft.parent.mkdir(exist_ok=True)
    verdict.save(draft)
    for path in (draft, workspace.folder / "report.html"):
        store.attach(published, path.name, path)


def _write(path: Path, record: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
