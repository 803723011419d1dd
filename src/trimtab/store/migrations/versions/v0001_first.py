"""The first catalogue: versions, aliases, records, keys."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer, String, UniqueConstraint

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "versions",
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String, nullable=False),
        Column("name", String, nullable=False),
        Column("version", Integer, nullable=False),
        Column("content_digest", String, nullable=False),
        Column("version_digest", String, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("created", String, nullable=False),
        Column("removed", String),
        UniqueConstraint("tenant_id", "name", "version"),
    )
    op.create_table(
        "aliases",
        Column("tenant_id", String, primary_key=True),
        Column("name", String, primary_key=True),
        Column("alias", String, primary_key=True),
        Column("version", Integer, nullable=False),
    )
    op.create_table(
        "records",
        Column("tenant_id", String, primary_key=True),
        Column("name", String, primary_key=True),
        Column("version", Integer, primary_key=True),
        Column("record", String, primary_key=True),
        Column("digest", String, nullable=False),
    )
    op.create_table(
        "keys",
        Column("id", String, primary_key=True),
        Column("tenant_id", String, nullable=False),
        Column("name", String, nullable=False),
        Column("digest", String, nullable=False),
        Column("scopes", String, nullable=False),
        Column("created", String, nullable=False),
        Column("expires", String),
        Column("revoked", String),
    )
