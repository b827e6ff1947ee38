"""Changes made while the router runs, which lie over what the file and the command line say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mvllm_router.config.model import Config, ServerSpec

# The fields of a server that can be changed while it runs.
CHANGEABLE = ("weight", "max_concurrent_requests")


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was changed and is not in the file: it holds until the router is started anew.

    `added` are servers of its own; `removed` are names of servers that the file has and the router
    leaves out; `changed` leads from the name of a server to the values that it has instead.
    """

    added: Mapping[str, ServerSpec] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    changed: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many servers were added, removed or changed."""
        # What was removed and added anew under the same name is one change.
        return len(self.added.keys() | self.removed) + len(self.changed)

    def with_server(self, spec: ServerSpec) -> Overlay:
        return replace(self, added={**self.added, spec.name: spec})

    def without_server(self, name: str) -> Overlay:
        """Leave a server out, whoever named it."""
        return replace(
            self,
            added={key: spec for key, spec in self.added.items() if key != name},
            changed={key: values for key, values in self.changed.items() if key != name},
            removed=self.removed | {name},
        )

    def with_values(self, name: str, values: Mapping[str, object]) -> Overlay:
        """Give a server other values of fields in `CHANGEABLE`."""
        if name in self.added:
            return self.with_server(replace(self.added[name], **values))  # type: ignore[arg-type]
        return replace(
            self, changed={**self.changed, name: {**self.changed.get(name, {}), **values}}
        )

    def over(self, base: Config) -> Config:
        """Return `base` with these changes."""
        return replace(base, servers=(*self._kept(base), *self.added.values()))

    def pruned(self, base: Config) -> Overlay:
        """Return what is left of it over `base`: what that says itself by now is no change.

        Where the file has come to name a server that was added, by its name or by its address,
        the file's entry counts.
        """
        names = {spec.name: spec for spec in base.servers}
        removed = self.removed & names.keys()
        # An entry that was removed and added again as it stands in the file is back.
        removed -= {name for name in removed if self.added.get(name) == names[name]}
        left = [spec for spec in base.servers if spec.name not in removed]
        taken = {text for spec in left for text in (spec.name, spec.url)}
        changed = {
            name: differing
            for name, values in self.changed.items()
            if name in names
            and name not in removed
            and (differing := _differing(names[name], values))
        }
        added = {k: v for k, v in self.added.items() if not {v.name, v.url} & taken}
        return Overlay(added, removed, changed)

    def _kept(self, base: Config) -> Iterable[ServerSpec]:
        for spec in base.servers:
            if spec.name not in self.removed:
                values = self.changed.get(spec.name)
                yield replace(spec, **values) if values else spec  # type: ignore[arg-type]


def _differing(spec: ServerSpec, values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if getattr(spec, key) != value}
