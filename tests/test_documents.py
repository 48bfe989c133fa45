"""The documents tell the truth: links lead somewhere, commands exist, keys are those of the configuration."""

from __future__ import annotations

import re

import pytest

from tests.program import ROOT
from vcbproxy import config

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_commands_in_the_documents_exist():
    from tests.cli.test_help import ALL

    known = {path for path, _ in ALL}
    for page in PAGES:
        for words in re.findall(r"^\$ vcbproxy ([a-z-]+)(?: ([a-z]+))?", page.read_text(), re.MULTILINE):
            assert (words[0],) in known, f"{page.name}: vcbproxy {words[0]}"
            if any(len(path) > 1 and path[0] == words[0] for path in known):
                assert words in known, f"{page.name}: vcbproxy {' '.join(words)}"


def test_every_key_of_the_configuration_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for section, field in config.Config.model_fields.items():
        assert f"## `[{section}]`" in text
        for key in keys_of(field.annotation):
            assert f"`{key}`" in text, f"[{section}] {key}"


def keys_of(annotation):
    """Of a section, and of the tables in it that have names of their own."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        for key, field in getattr(kind, "model_fields", {}).items():
            yield key
            if getattr(field.annotation, "__origin__", None) is dict:
                yield from keys_of(field.annotation)


def test_the_keys_of_tables_by_name_are_among_them():
    assert {"hardware_key_command", "appendable_for", "reserve"} <= set(
        keys_of(config.Config.model_fields["tape"].annotation)
    )


def test_the_lab_s_example_can_be_built(tmp_path):
    from vcbproxy.lab import spec
    from vcbproxy.lab.datacenter import Datacenter

    [example] = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "lab.md").read_text(), re.DOTALL)
    with Datacenter.create(tmp_path / "lab", spec.from_json(example)) as datacenter:
        assert [machine.state.name for machine in datacenter.machines] == ["web01"]
