"""The catalogue against a model of it in plain dictionaries, over random sequences of operations."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trimtab.spec.errors import NotFoundError
from trimtab.spec.ids import Reference
from trimtab.store.catalogue import Catalogue
from trimtab.store.database import Database

NAMES, ALIASES, TENANTS = (st.sampled_from(words) for words in (["a", "b"], ["prod", "blue"], ["one", "two"]))


class Model(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self._folder.name))
        self.live: dict[tuple[str, str], list[int]] = {}
        self.given: dict[tuple[str, str], int] = {}
        self.aliases: dict[tuple[str, str, str], int] = {}

    def teardown(self):
        self._folder.cleanup()

    @rule(tenant=TENANTS, name=NAMES)
    def add(self, tenant, name):
        with self.database.writing() as connection:
            version = Catalogue(connection, tenant).add(
                name, content_digest="c", version_digest="v", size_bytes=1
            )
        self.given[tenant, name] = self.given.get((tenant, name), 0) + 1
        self.live.setdefault((tenant, name), []).append(self.given[tenant, name])
        assert version.version == self.given[tenant, name]

    @rule(tenant=TENANTS, name=NAMES, alias=ALIASES, data=st.data())
    def set_alias(self, tenant, name, alias, data):
        if versions := self.live.get((tenant, name)):
            version = data.draw(st.sampled_from(versions))
            with self.database.writing() as connection:
                Catalogue(connection, tenant).set_alias(name, alias, version)
            self.aliases[tenant, name, alias] = version

    @rule(tenant=TENANTS, name=NAMES, alias=ALIASES)
    def drop_alias(self, tenant, name, alias):
        with self.database.writing() as connection:
            dropped = Catalogue(connection, tenant).drop_alias(name, alias)
        assert dropped == (self.aliases.pop((tenant, name, alias), None) is not None)

    @rule(tenant=TENANTS, name=NAMES, data=st.data())
    def remove(self, tenant, name, data):
        pointed = {v for (t, n, _), v in self.aliases.items() if (t, n) == (tenant, name)}
        if free := [v for v in self.live.get((tenant, name), []) if v not in pointed]:
            number = data.draw(st.sampled_from(free))
            with self.database.writing() as connection:
                catalogue = Catalogue(connection, tenant)
                catalogue.remove(catalogue.resolve(Reference(name=name, version=number)))
            self.live[tenant, name].remove(number)

    @invariant()
    def agrees(self):
        for tenant in ("one", "two"):
            with self.database.reading() as connection:
                catalogue = Catalogue(connection, tenant)
                for name in ("a", "b"):
                    live = self.live.get((tenant, name), [])
                    assert [v.version for v in catalogue.versions(name)] == live
                    newest = catalogue.newest(name)
                    assert (newest.version if newest else None) == (live[-1] if live else None)
                    for alias in ("prod", "blue"):
                        expected = self.aliases.get((tenant, name, alias))
                        if expected is None:
                            with pytest.raises(NotFoundError):
                                catalogue.resolve(Reference(name=name, alias=alias))
                        else:
                            assert catalogue.resolve(Reference(name=name, alias=alias)).version == expected


TestCatalogue = Model.TestCase
TestCatalogue.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
