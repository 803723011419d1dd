"""YAML as recipes need it: plain data only, no duplicate keys, and the line of every key path for messages."""

from __future__ import annotations

import yaml

from trimtab.spec.errors import RecipeError

KeyPath = tuple[str | int, ...]
# A recipe has some dozens of values. The parser takes ten microseconds for each character and more for each value.
MAX_BYTES = 1 << 16
MAX_VALUES = 2000
MAX_DEPTH = 32
_PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")
)


def show(path: KeyPath) -> str:
    """`("quality", "metrics", 1, "answer")` → `quality.metrics[1].answer`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


class _Builder:
    """Builds plain values from YAML nodes, and remembers where each came from."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self._loader = yaml.SafeLoader("")

    def build(self, node: yaml.Node, path: KeyPath = ()) -> object:
        self.lines[path] = node.start_mark.line + 1
        if node.tag not in _PLAIN:
            raise RecipeError(f"a value of kind {node.tag!r} is not plain data.", where=self.place(path))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError) as error:
            shown = node.value if len(node.value) <= 40 else node.value[:40] + "…"
            raise RecipeError(f"{shown!r} cannot be read as a value.", where=self.place(path)) from error

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            here = (*path, str(key))
            self.lines[here] = key_node.start_mark.line + 1
            if not isinstance(key, str) or key_node.tag != "tag:yaml.org,2002:str":
                raise RecipeError(f"the key {key!r} is not a word.", where=self.place(here))
            if key in values:
                raise RecipeError(
                    f"the key {key!r} is written twice.",
                    where=self.place(here),
                    remedy="Keep one of the two.",
                )
            values[key] = self.build(value_node, here)
            self.lines[here] = key_node.start_mark.line + 1
        return values

    def place(self, path: KeyPath) -> str:
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return f"{self.name}:{self.lines.get(known, 1)} {show(path)}".rstrip()


def _check_events(text: str, name: str) -> None:
    """Refuses what would cost without bound once built: aliases, and nesting that no recipe needs."""
    depth = values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(
                "YAML aliases (*name) are not taken.", where=name, remedy="Write the value out."
            )
        values += isinstance(event, yaml.NodeEvent)
        if values > MAX_VALUES:
            raise RecipeError(f"it has over {MAX_VALUES} keys and values.", where=name)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise RecipeError(f"nested too deeply: over {MAX_DEPTH} levels.", where=f"{name}:{line}")


class Document:
    """A parsed YAML mapping and the place of everything in it."""

    def __init__(self, text: str, name: str) -> None:
        """Raises `RecipeError` with file and line for anything that is not one mapping of plain data."""
        if len(text) > MAX_BYTES:
            raise RecipeError(f"the file is over {MAX_BYTES} bytes.", where=name)
        self._builder = _Builder(name)
        try:
            _check_events(text, name)
            node = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "not readable"
            raise RecipeError(f"not valid YAML: {problem}.", where=f"{name}{line}") from error
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(
                "a recipe is a mapping of keys to values.", where=name, remedy="Start with 'version: 1'."
            )
        value = self._builder.build(node)
        self.values: dict[str, object] = value if isinstance(value, dict) else {}

    def place(self, path: KeyPath) -> str:
        """`FILE:LINE key.path` of a key, or of its nearest written ancestor."""
        return self._builder.place(path)
