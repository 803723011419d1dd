"""Alembic's entry: runs the migrations on the connection that `store.database` hands over, in its
transaction.
"""

from __future__ import annotations

from alembic import context

from trimtab.store.database import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # The caller's transaction holds all of it, so a killed migration leaves the old catalogue.
    transactional_ddl=False,
)
context.run_migrations()
