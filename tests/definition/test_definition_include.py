"""Fragments: what they add, their parameters, and the file and line of what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from circuit.definition import load_workflow
from circuit.definition.workflow import Workflow
from circuit.errors import DefinitionError
from circuit.fragments import beside

MAIN = """workflow: contract
include:
  - {file: parts/review.yaml, with: {name: legal, from: drafted, to: cleared, role: lawyer}}
  - {file: parts/review.yaml, with: {name: money, from: cleared, to: done, most: 5}}
places: {drafted: {initial: true}, cleared: {}, done: {terminal: true}}
transitions: {}
"""
REVIEW = """fragment: review
description: Somebody looks at a text, and sends it back until it is good.
parameters: {name: null, from: null, to: null, role: editor, most: 2}
places:
  $(name)_seen: {}
transitions:
  $(name)_look: {from_places: $(from), to_place: $(name)_seen, trigger: {type: manual, roles: [$(role)]}}
  $(name)_pass: {from_places: $(name)_seen, to_place: $(to), conditions: has(data.good)}
  $(name)_back:
    from_places: $(name)_seen
    to_place: $(from)
    conditions: "!has(data.good) && case.fired.$(name)_back < $(most)"
"""


def reader(files: dict[str, str]) -> Callable[[str], str]:
    def read(path: str) -> str:
        if path not in files:
            raise ValueError("cannot be read: no such file")
        return files[path]

    return read


def loaded(main: str = MAIN, **files: str) -> Workflow:
    named = {f"parts/{name}.yaml": text for name, text in {"review": REVIEW, **files}.items()}
    return load_workflow(main, "dir/main.yaml", read=reader(named))


def test_a_workflow_with_fragments_is_the_one_that_has_it_all_in_one_file() -> None:
    whole = MAIN.replace(re.search(r"include:\n(  - .*\n)+", MAIN)[0], "").replace("transitions: {}\n", "")
    places, transitions = "", "transitions:\n"
    for name, source, to, role, most in (
        ("legal", "drafted", "cleared", "lawyer", 2),
        ("money", "cleared", "done", "editor", 5),
    ):
        values = {"name": name, "from": source, "to": to, "role": role, "most": str(most)}
        text = re.sub(r"\$\((\w+)\)", lambda match, values=values: values[match[1]], REVIEW)
        places += f", {name}_seen: {{}}"
        transitions += text.partition("transitions:\n")[2]
    whole = whole.replace("done: {terminal: true}}", f"done: {{terminal: true}}{places}}}") + transitions
    assert loaded().hash == load_workflow(whole).hash


def test_fragments_bring_agents_colours_regions_and_what_runs_on_places_and_include_others() -> None:
    made = loaded(
        MAIN.replace("parts/review.yaml, with: {name: money, from: cleared, to: done, most: 5}", "parts/more.yaml"),
        more="""fragment: more
include: [deeper.yaml]
colours: {Note: {type: object}}
agents: {helper: {llm_provider: {type: scripted}}}
regions: {all: {places: [cleared]}}
place_agents: [{place_id: cleared, agent_id: helper}]
transitions: {finish: {from_places: [cleared, note], to_place: done, cancels: all}}
""",
        deeper="fragment: deeper\nplaces: {note: {colour: Note, tokens: [{}]}}\n",
    )
    assert {"note", "legal_seen"} <= made.net.places.keys()
    assert {"helper@cleared", "finish", "legal_look"} <= made.net.transitions.keys()


def test_a_fragment_needs_no_mapping_where_it_has_no_parameters() -> None:
    main = "workflow: w\ninclude: [parts/end.yaml]\nplaces: {a: {initial: true}}\n"
    main += "transitions: {t: {from_places: a, to_place: end}}\n"
    assert loaded(main, end="fragment: end\nplaces: {end: {terminal: true}}\n").net.places["end"].terminal


LOOP = "fragment: loop\ninclude: [other.yaml]\n"


@pytest.mark.parametrize(
    ("main", "files", "where", "message"),
    [
        ("{file: parts/review.yaml}", {}, "dir/main.yaml:3:5", "the parameter 'name' is needed"),
        ("{file: parts/review.yaml, with: {nmae: x}}", {}, "dir/main.yaml:3:38", "there is no parameter 'nmae'"),
        ("{file: ../secret.yaml}", {}, "dir/main.yaml:3:12", "leads out of the directory"),
        ("{file: /etc/passwd}", {}, "dir/main.yaml:3:12", "leads out of the directory"),
        ("parts/../../x.yaml", {}, "dir/main.yaml:3:5", "leads out of the directory"),
        ("parts/none.yaml", {}, "dir/main.yaml:3:5", "cannot be read: no such file"),
        ("{path: parts/none.yaml}", {}, "dir/main.yaml:3:5", "this includes nothing"),
        ("main.yaml", {}, "dir/main.yaml:3:5", "main.yaml -> main.yaml"),
        ("parts/self.yaml", {"self": "fragment: self\ninclude: [self.yaml]\n"}, "dir/parts/self.yaml:2:11", "itself"),
        (
            "parts/loop.yaml",
            {"loop": LOOP, "other": "fragment: other\ninclude:\n  - loop.yaml\n"},
            "dir/parts/other.yaml:3:5",
            "parts/loop.yaml -> parts/other.yaml -> parts/loop.yaml",
        ),
        ("parts/up.yaml", {"up": "fragment: up\ninclude: [../../x.yaml]\n"}, "dir/parts/up.yaml:2:11", "leads out"),
        ("parts/w.yaml", {"w": "workflow: w\n"}, "dir/parts/w.yaml:1:1", "a fragment has no 'workflow'"),
        ("parts/f.yaml", {"f": "fragment: f\nplaces: {done: {}}\n"}, "dir/parts/f.yaml:2:10", "another place 'done'"),
        ("parts/f.yaml", {"f": "fragment: f\nplaces: [x]\n"}, "dir/parts/f.yaml:2:1", "a mapping of names"),
        ("parts/f.yaml", {"f": "fragment: f\nplaces: {x: [}\n"}, "dir/parts/f.yaml:2:14", "this is not YAML"),
        ("parts/f.yaml", {"f": "fragment: f\nplaces: {$(x): {}}\n"}, "dir/parts/f.yaml:2:10", "no parameter 'x'"),
        (
            "{file: parts/f.yaml, with: {long_value: done}}",
            {
                "f": "fragment: f\nparameters: {long_value: null}\nplaces:\n  p: {}\ntransitions:\n"
                "  t: {from_places: p, to_place: $(long_value), conditions: dato.x}\n"
            },
            "dir/parts/f.yaml:6:60",
            "undeclared reference to 'dato.x'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(main: str, files: dict[str, str], where: str, message: str) -> None:
    text = "workflow: w\ninclude:\n  - " + main + "\nplaces: {a: {initial: true}, done: {terminal: true}}\n"
    text += "transitions: {go: {from_places: a, to_place: done}}\n"
    with pytest.raises(DefinitionError) as caught:
        loaded(text, **files)
    found = [(f"{fault.source}:{fault.line}:{fault.column}", fault.message) for fault in caught.value.faults]
    assert any(at == where and message in said for at, said in found), found


def test_faults_of_the_file_itself_keep_their_lines() -> None:
    with pytest.raises(DefinitionError) as caught:
        loaded(MAIN.replace("transitions: {}", "transitions: {bad: {from_places: nowhere, to_place: done}}"))
    (fault,) = caught.value.faults
    assert (fault.source, fault.line, fault.column) == ("dir/main.yaml", 6, 34)


def test_a_text_includes_nothing_and_a_fragment_is_no_workflow() -> None:
    with pytest.raises(DefinitionError, match="there is no directory to look in"):
        load_workflow(MAIN)
    with pytest.raises(DefinitionError, match="this is a fragment"):
        load_workflow(REVIEW)


def test_a_file_is_read_beside_the_workflow_and_no_link_leads_out(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "parts").mkdir(parents=True)
    (inside / "parts" / "review.yaml").write_text(REVIEW)
    (inside / "main.yaml").write_text(MAIN)
    read = beside(inside / "main.yaml")
    assert load_workflow(MAIN, str(inside / "main.yaml"), read=read).id == "contract"
    (tmp_path / "secret.yaml").write_text("fragment: secret\n")
    (inside / "parts" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(ValueError, match="leads out"):
        read("parts/link.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        read("parts")
    (inside / "latin.yaml").write_bytes(b"fragment: \xff\n")
    with pytest.raises(ValueError, match="UTF-8"):
        read("latin.yaml")
