# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation says what is: variables, names, kinds, messages, make targets and links are those of the code."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from ansible_collections.buildfarm.buildkit.plugins.module_utils._buildkit.errors import Kind
from ansible_collections.buildfarm.buildkit.plugins.plugin_utils._config import keys, values

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))
MODULES = sorted((CHECKOUT / "plugins" / "modules").glob("*.py"))
FILTERS = sorted((CHECKOUT / "plugins" / "filter").glob("*.py"))
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "roles/*/README.md")
    for path in sorted(CHECKOUT.glob(pattern))
    if path.name != "CHANGELOG.md"  # generated
]
# "…" in a documented message, and whatever code puts there: what varies.
VARYING = "…"
# What says something to users beside the Python code.
TEMPLATED = ("roles/*/vars/main/*.yml", "roles/*/tasks/*.yml", "roles/*/templates/*", "playbooks/*.yml")


def _document(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def _yaml(path: str) -> dict[str, object]:
    return yaml.safe_load((CHECKOUT / path).read_text())


def _first_cells(text: str) -> list[str]:
    """What the first column of every table holds, without header and rule."""
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [row for row in rows if row.startswith(("`", "[`"))]


def _anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_variables_of_shown_commands_are_read_by_something():
    """A misspelled one would be passed over without a word, and not do what the text promises."""
    files = [*CHECKOUT.glob("roles/*/defaults/**/*.yml"), *CHECKOUT.glob("playbooks/*.yml")]
    code = set(re.findall(r"\b[a-z]\w+\b", "".join(path.read_text() for path in files)))
    shown = {
        (_document(path), name)
        for path in DOCUMENTS
        for name in re.findall(r"\s-e\s+'?(?:\{\")?([a-z]\w+)[=\"]", path.read_text())
    }
    assert len(shown) > 10
    assert [(document, name) for document, name in sorted(shown) if name not in code] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_variables_are_the_same_everywhere(role):
    """Defaults, the specification of every entry point and the README's table name the same variables."""
    defaults = set(_yaml(f"roles/{role}/defaults/main.yml"))
    for specification in _yaml(f"roles/{role}/meta/argument_specs.yml")["argument_specs"].values():
        assert set(specification["options"]) == defaults
    cells = _first_cells((CHECKOUT / "roles" / role / "README.md").read_text())
    assert sorted(cells) == sorted(f"`{variable}`" for variable in defaults)


@pytest.mark.parametrize("role", ROLES)
def test_literal_defaults_are_documented(role):
    """A default that no other variable decides stands in the row of its variable and in the specification."""
    readme = (CHECKOUT / "roles" / role / "README.md").read_text()
    options = _yaml(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    literal = {
        name: value
        for name, value in _yaml(f"roles/{role}/defaults/main.yml").items()
        if not (isinstance(value, str) and "{{" in value)
    }
    for name, value in literal.items():
        shown = (
            {"True": "true", "False": "false", "": '""'}.get(str(value), value)
            if not isinstance(value, (list, dict))
            else value
        )
        text = f"[{', '.join(value)}]" if isinstance(value, list) else str(shown)
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.split(" | ")[1].startswith(f"`{text}`")
        assert options[name]["default"] == value


def test_readme_names_everything_there_is():
    """The tables of the README list every role, playbook, module and filter, and nothing else."""
    section = (CHECKOUT / "README.md").read_text().partition("## What is in it")[2].partition("\n## ")[0]
    expected = {f"buildfarm.buildkit.{playbook}" for playbook in PLAYBOOKS} | set(ROLES)
    expected |= {path.stem for path in (*MODULES, *FILTERS)}
    assert {re.sub(r"[`\[]|\].*", "", cell) for cell in _first_cells(section)} == expected


def test_readme_names_every_variable_for_all_roles():
    """What role defaults, playbooks and filters read beside their own variables is in the README, and nothing else."""
    sources = [*CHECKOUT.glob("roles/*/defaults/main.yml"), *CHECKOUT.glob("playbooks/*.yml")]
    sources.append(CHECKOUT / "plugins" / "plugin_utils" / "_inventory.py")
    text = re.sub(r"buildfarm\.buildkit\.\w+", "", "\n".join(path.read_text() for path in sources))
    own = {name for role in ROLES for name in _yaml(f"roles/{role}/defaults/main.yml")}
    groups = {"buildkit_daemons"}
    # The two that a role has under their own name.
    shared = {"buildkit_pki_dir", "buildkit_verify_client"}
    shared |= set(re.findall(r"\bbuildkit_[a-z_]+\b", text)) - own - groups - set(ROLES)
    section = (CHECKOUT / "README.md").read_text().partition("## Variables for all roles")[2].partition("\n## ")[0]
    assert {cell.strip("`") for cell in _first_cells(section)} == shared


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_failure_kind_is_explained(kind):
    """The guide has a row for each kind, with the remedy that users see; the module's documentation names it."""
    guide = (CHECKOUT / "docs" / "verify.md").read_text()
    row = next((line for line in guide.splitlines() if line.startswith(f"| `{kind.value}` |")), "")
    assert row.endswith(f" | {kind.remedy} |")
    assert f"V({kind.value})" in (CHECKOUT / "plugins" / "modules" / "buildkit_verify.py").read_text()


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_failure_kind_is_tested_against_a_peer(kind):
    """Each is what some test of a proof meets."""
    tests = "\n".join(path.read_text() for path in (CHECKOUT / "tests" / "integration").glob("test_*.py"))
    assert f'"{kind.value}"' in tests or f"Kind.{kind.name}" in tests


def test_no_failure_kind_is_invented():
    """The guide explains no kind that does not exist."""
    table = (CHECKOUT / "docs" / "verify.md").read_text().partition("## Kinds of failure")[2]
    assert {cell.strip("`") for cell in _first_cells(table)} == {kind.value for kind in Kind}


@lru_cache(maxsize=None)
def _messages() -> str:
    """All texts of the code, one a line, with what varies as "…"."""
    texts = []
    for path in CHECKOUT.glob("plugins/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else VARYING for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{\w*\}", VARYING, node.value))
    for path in (path for pattern in TEMPLATED for path in CHECKOUT.glob(pattern)):
        texts.append(re.sub(r"\{\{.*?\}\}", VARYING, path.read_text(), flags=re.DOTALL))
    return "\n".join(" ".join(text.split()) for text in texts)


def _refused_messages() -> list[str]:
    guides = (CHECKOUT / "docs" / "troubleshooting.md").read_text().partition("## At the client")[0]
    guides += (CHECKOUT / "docs" / "monitoring.md").read_text()
    cells = re.findall(r"^\| (.+?) \| ", guides, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]* [^`]*)`", cell)]


@pytest.mark.parametrize("message", _refused_messages())
def test_documented_messages_are_those_of_the_code(message):
    """The code says what the guide quotes, each part of it between what varies."""
    said = _messages()
    assert [part for part in message.split(VARYING) if part.strip() not in said] == []


def rows_of_keys() -> list[str]:
    """The rows of the guide's table of keys. W stands for both workers where they have the same key."""
    rows = []
    for path, key in keys.KEYS.items():
        both = {keys.KEYS.get(f"worker.{worker}.{path.split('.', 2)[-1]}") for worker in ("oci", "containerd")}
        if path.startswith("worker.") and len(both) == 1:
            if path.startswith("worker.containerd."):
                continue
            path = path.replace("worker.oci.", "worker.W.")
        rows.append(f"| `{path}` | {values.KINDS[key.kind][1]} | {key.since or '0.13'} | {key.meaning} |")
    return rows


def test_the_guide_has_every_key_of_the_configuration():
    """Its table is that of the code: every key with what it holds, since when, and what it means."""
    guide = (CHECKOUT / "docs" / "configuration.md").read_text().partition("## All keys")[2]
    assert [line for line in guide.splitlines() if line.startswith("| `")] == rows_of_keys()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_document)
def test_make_targets_exist(path):
    """No document names a make target that the Makefile does not have."""
    targets = set(re.search(r"^\.PHONY: (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)[1].split())
    named = set(re.findall(r"(?:`|^|# )make ([a-z][a-z-]*)", path.read_text(), re.MULTILINE))
    assert named - targets == set()


def test_contributing_explains_every_make_target():
    """CONTRIBUTING.md has a row for each target but help."""
    targets = re.search(r"^\.PHONY: (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)[1].split()
    cells = _first_cells((CHECKOUT / "CONTRIBUTING.md").read_text())
    assert sorted(cells) == sorted(f"`make {target}`" for target in targets if target != "help")


@pytest.mark.parametrize("path", DOCUMENTS, ids=_document)
def test_internal_links_resolve(path):
    """Every link inside the repository leads to a file, and to a heading of it where it names one."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _separator, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in _anchors(file.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", [*MODULES, *FILTERS], ids=lambda path: path.stem)
def test_plugins_are_documented(path):
    """Every module and filter has DOCUMENTATION, EXAMPLES and RETURN, each of them readable YAML with content."""
    texts = {
        target.id: node.value.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for name in ("DOCUMENTATION", "EXAMPLES", "RETURN"):
        assert yaml.safe_load(texts.get(name) or "")
