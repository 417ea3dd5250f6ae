"""PNML as the tools in the field write it, what is listed, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from place_nets import any_nets, limits

from circuit.errors import DefinitionError
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.pnml import Imported, read_pnml
from circuit.net.analysis.pnml_text import pnml_text
from circuit.net.analysis.soundness import soundness
from circuit.net.analysis.xml_units import XML_LIMIT

DATA = Path(os.environ.get("CIRCUIT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "nets"
NAMESPACE = 'xmlns="http://www.pnml.org/version-2009/grammar/pnml"'
NODES = """
  <place id="p"><name><text>In box</text></name><initialMarking><text>2</text></initialMarking></place>
  <place id="q"/><transition id="t"><name><text>work</text></name></transition>
"""
ARCS = '<arc id="a" source="p" target="t"/><arc id="b" source="t" target="q"/>'


def net_of(inside: str, *, type_: str = "http://www.pnml.org/version-2009/grammar/ptnet", after: str = "") -> str:
    return f'<pnml {NAMESPACE}><net id="n" type="{type_}">{inside}</net>{after}</pnml>'


def read(text: str) -> Imported:
    [imported] = read_pnml(text.encode())
    return imported


def refused(text: str | bytes) -> str:
    with pytest.raises(DefinitionError) as caught:
        read_pnml(text if isinstance(text, bytes) else text.encode())
    return caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        net_of(NODES + ARCS),
        net_of(NODES + ARCS).replace(NAMESPACE, ""),
        net_of(f'<page id="g">{NODES}<page id="h">{ARCS}</page></page>'),
        f'<pnml><module><ports></ports><net id="n" type="PTNet">{NODES}{ARCS}</net></module></pnml>',
        net_of(NODES + ARCS).replace("<pnml ", "<x:pnml xmlns:x='urn:x' ").replace("</pnml>", "</x:pnml>"),
        net_of(NODES.replace("text>", "value>") + ARCS),
        net_of(NODES.replace("<text>2<", "<value>Default,2<").replace("2</text>", "2</value>") + ARCS),
    ],
    ids=["namespace", "bare", "pages", "module", "prefix", "value", "pipe"],
)
def test_one_net_in_many_clothes(text: str) -> None:
    net = read(text).net
    assert net.places == ("p", "q")
    assert net.initial == (2, 0)
    assert [(step.name, step.consumes, step.produces) for step in net.steps] == [("t", ((0, 1),), ((1, 1),))]
    assert net.labels == {"p": "In box", "t": "work"}
    assert net.resting == {1}


def test_reference_nodes_stand_for_what_they_refer_to() -> None:
    references = '<referencePlace id="r" ref="s"/><referencePlace id="s" ref="q"/><referenceTransition id="u" ref="t"/>'
    arcs = '<arc id="a" source="p" target="u"/><arc id="b" source="t" target="r"/>'
    net = read(net_of(f'{NODES}<page id="g">{references}{arcs}</page>')).net
    assert net.steps[0].consumes == ((0, 1),)
    assert net.steps[0].produces == ((1, 1),)
    assert "refers to no node" in refused(
        net_of(f'{NODES}<referencePlace id="r" ref="r"/><arc source="r" target="t"/>')
    )


@pytest.mark.parametrize(
    "mark",
    [
        '<type value="{}"/>',
        "<type><text>{}</text></type>",
        "<arctype><text>{}</text></arctype>",
        '<toolspecific tool="TINA" version="3"><arc type="{}"/></toolspecific>',
        '<toolspecific tool="YAWL" version="4"><arctype><text>{}</text></arctype></toolspecific>',
        '<toolspecific tool="X" version="1" type="{}"/>',
    ],
)
def test_special_arcs_however_they_are_marked(mark: str) -> None:
    def arc(kind: str) -> str:
        return f'<arc id="c" source="q" target="t">{mark.format(kind)}<inscription><text>3</text></inscription></arc>'

    assert read(net_of(NODES + ARCS + arc("inhibitor"))).net.steps[0].inhibitors == ((1, 3),)
    assert read(net_of(NODES + ARCS + arc("reset"))).net.steps[0].resets == (1,)
    tested = read(net_of(NODES + ARCS + arc("test"))).net.steps[0]
    assert tested.consumes == ((0, 1), (1, 3))
    assert tested.produces == ((1, 4),)
    assert read(net_of(NODES + ARCS + arc("normal"))).net.steps[0].consumes == ((0, 1), (1, 3))


def test_an_attribute_of_the_arc_may_say_its_kind() -> None:
    arc = '<arc id="c" source="q" target="t" type="inhibitor" weight="1"/>'
    assert read(net_of(NODES + ARCS + arc)).net.steps[0].inhibitors == ((1, 1),)


@pytest.mark.parametrize("inside", [True, False])
def test_final_markings_where_they_are_given(inside: bool) -> None:
    finals = (
        '<finalmarkings><marking><place idref="q"><text>2</text></place></marking><marking/>'
        '<marking><place idref="p"><text>1</text></place><place idref="q"><text>1</text></place></marking>'
        "</finalmarkings>"
    )
    text = net_of(NODES + ARCS + finals) if inside else net_of(NODES + ARCS, after=finals)
    imported = read(text)
    assert imported.net.finals == ((0, 2), (1, 1))
    assert any("without tokens" in note for note in imported.notes)


def test_what_is_not_understood_is_listed() -> None:
    odd = (
        '<toolspecific tool="WoPeD" version="1"><time>0</time></toolspecific><surprise/>'
        '<transition id="u"><delay/><toolspecific tool="Q" version="1"><rate>1</rate></toolspecific></transition>'
    )
    notes = read(net_of(NODES + ARCS + odd, type_="http://x/odd", after="<more>1</more>")).notes
    for part in ("WoPeD", "surprise", "delay", "what Q notes", "http://x/odd", "'more'"):
        assert any(part in note for note in notes), (part, notes)
    assert read(net_of(NODES + ARCS + "<place id='z'><graphics><position x='1' y='2'/></graphics></place>")).notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not XML"),
        ("<pnml><net", "this is not XML"),
        ("<html/>", "there is no element 'pnml'"),
        ("<pnml/>", "there is no net"),
        (net_of(NODES + ARCS, type_="http://www.pnml.org/version-2009/grammar/symmetricnet"), "only place/transition"),
        (net_of(NODES + "<place id='z'><hlinitialMarking/></place>"), "only place/transition nets"),
        (net_of(NODES + "<place id='p'/>"), "given twice"),
        (net_of(NODES + "<place/>"), "has no id"),
        (net_of(NODES + "<arc id='a' source='p' target='q'/>"), "joins two places"),
        (net_of(NODES + "<arc id='a' source='p' target='nowhere'/>"), "is no node of the net"),
        (net_of(NODES + ARCS + "<arc id='c' source='t' target='q'><type value='inhibitor'/></arc>"), "leads out of"),
        (net_of(NODES + ARCS + "<arc id='c' source='q' target='t'><type value='stopwatch'/></arc>"), "not known"),
        (net_of(NODES + ARCS.replace("/>", "><inscription><text>0</text></inscription></arc>", 1)), "can be 1 to"),
        (net_of(NODES + ARCS.replace("/>", "><inscription><text>-2</text></inscription></arc>", 1)), "can be 1 to"),
        (net_of(NODES + ARCS.replace("/>", f"><inscription><text>{'9' * 400}</text></inscription></arc>", 1)), "1 to"),
        (net_of(NODES + ARCS.replace("/>", "><inscription><text>x+1</text></inscription></arc>", 1)), "whole number"),
        (net_of(NODES + "<place id='z'><initialMarking><text>-1</text></initialMarking></place>"), "can be 0 to"),
        (
            net_of(
                "<place id='z'><initialMarking><text>3</text></initialMarking>"
                "<capacity><text>2</text></capacity></place>"
            ),
            "begins with 3 tokens and holds 2",
        ),
        (net_of(NODES + "<finalmarkings><marking><place idref='t'/></marking></finalmarkings>"), "no place of the net"),
        ("<!DOCTYPE pnml [<!ENTITY a 'b'>]><pnml>&a;</pnml>", "entities"),
        ("<!DOCTYPE pnml [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><pnml>&a;</pnml>", "entities"),
        ("<!DOCTYPE pnml SYSTEM 'http://example.org/x.dtd'><pnml>&a;</pnml>", "entities"),
        ("<pnml>" + "<page>" * 400 + "</page>" * 400 + "</pnml>", "deep"),
        ("<?xml version='1.0' encoding='no-such'?><pnml/>", "encoding"),
    ],
)
def test_what_is_refused_and_why(text: str, message: str) -> None:
    assert message in refused(text)


def test_laughter_by_the_billion_costs_nothing() -> None:
    entities = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 12))
    assert "entities" in refused(f"<!DOCTYPE pnml [<!ENTITY l0 'ha'>{entities}]><pnml>&l11;</pnml>")


def test_a_file_that_is_too_large_is_not_read() -> None:
    assert "the most that is read" in refused(b"<pnml>" + b" " * XML_LIMIT)


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    text = net_of(f"{NODES}\n<arc id='a' source='p' target='q'/>\n<arc id='b' source='x' target='t'/>")
    with pytest.raises(DefinitionError) as caught:
        read_pnml(text.encode(), "n.pnml")
    assert len({fault.line for fault in caught.value.faults}) == 2


@settings(max_examples=100, deadline=None, database=None)
@given(any_nets())
def test_what_is_written_is_read_again(net: PlaceNet) -> None:
    again = read(pnml_text(net)).net
    assert (again.places, again.initial, again.capacities) == (net.places, net.initial, net.capacities)
    assert again.steps == net.steps
    assert again.finals == net.finals


def test_names_that_are_no_xml_are_written_as_text() -> None:
    net = PlaceNet('<&">', ('a"<', "b&\x01"), (), (1, 0))
    assert read(pnml_text(net)).net.places == ('a"<', "b&")


@pytest.mark.skipif(not DATA.exists(), reason=f"no nets in {DATA}; set CIRCUIT_TEST_DATA to the folder of test data")
def test_the_verdicts_of_the_labelled_nets() -> None:
    rows = [line.split(",") for line in (DATA / "ibm_c_labels.csv").read_text().splitlines()[1:]]
    assert len(rows) == 32
    for name, _, sound in rows:
        [file] = (DATA / "ibm_c").glob(f"{name}.*pnml")
        [imported] = read_pnml(file.read_bytes(), file.name)
        verdict = soundness(imported.net, limits())
        assert verdict.proven == (sound.strip() == "1") and not verdict.unknown, name
        if verdict.trace is not None:
            numbers = {step.name: index for index, step in enumerate(imported.net.steps)}
            assert imported.net.run(numbers[step] for step in verdict.trace) is not None
