"""What a file says of messages, and what it is refused for."""

from __future__ import annotations

import pytest

from circuit.definition import load_workflow
from circuit.errors import DefinitionError
from circuit.net.structure import Trigger

TEXT = """
workflow: order
start: {message: order_placed}
places:
  open: {initial: true}
  done: {terminal: true}
transitions:
  pay:
    from_places: open
    to_place: done
    trigger: {type: message, message: payment, correlate: [data.order_id, metadata.shop]}
    output_mapping: {data.amount: message.amount, data.all: message}
"""


def test_a_message_is_part_of_the_version_and_names_what_it_needs() -> None:
    workflow = load_workflow(TEXT, "order.yaml")
    assert workflow.start_message == "order_placed"
    assert workflow.requires["features"] == ["message"]
    pay = workflow.net.transitions["pay"]
    assert pay.trigger is Trigger.MESSAGE and workflow.net.receiving == ("pay",)
    assert pay.reception is not None
    scope = {"data": {"order_id": 7}, "metadata": {"shop": "x"}, "case": {}}
    assert pay.reception.key(scope) == '["7","x"]'
    assert pay.reception.key({"data": {}, "metadata": {"shop": "x"}, "case": {}}) is None


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("message: payment, ", "", "needs its name"),
        ("[data.order_id, metadata.shop]", "orders.id", "must begin with"),
        ("[data.order_id, metadata.shop]", "[]", "must have one entry at least"),
        ("data.amount: message.amount", "data.amount: amount", "is no part of the message"),
        ("open: {initial: true}", "open: {tokens: [{}]}", "a message cannot start a case"),
        ("type: message", "type: manual", "belongs to a trigger of type message"),
    ],
)
def test_faults_of_messages(old: str, new: str, fault: str) -> None:
    assert old in TEXT
    with pytest.raises(DefinitionError) as caught:
        load_workflow(TEXT.replace(old, new), "order.yaml")
    assert fault in str(caught.value), str(caught.value)
