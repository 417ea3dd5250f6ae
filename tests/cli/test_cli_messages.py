"""`circuit send` and `circuit messages`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commanding import Command

WORKFLOW = """
workflow: payment
places: [open, paid]
transitions:
  pay:
    from_places: open
    to_place: paid
    trigger: {type: message, message: paid, correlate: data.order}
    output_mapping: {data.amount: message.amount}
"""


def test_a_message_is_sent_to_its_case_and_listed(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "payment.yaml"
    file.write_text(WORKFLOW)
    started = circuit("run", str(file), "--set", "data.order=42", "--json")
    assert started.code == 3, started.err
    assert "with the key 42" in circuit("why", started.json["case_id"]).out
    kept = circuit("send", "paid", "--key", "43", "--lifetime", "1h", "--json")
    assert kept.code == 0 and (kept.json["state"], kept.json["case_id"]) == ("kept", None), kept.err
    # What does not fit is refused, and the case goes on waiting.
    refused = circuit("send", "paid", "--key", "42")
    assert refused.code == 1 and "refused" in refused.out
    sent = circuit("send", "paid", "--key", "42", "--data", '{"amount": 5}', "--id", "bank-1")
    assert sent.code == 0 and "completed" in sent.out, sent.err
    again = circuit("send", "paid", "--key", "42", "--set", "amount=5", "--id", "bank-1", "--json")
    assert again.code == 0 and (again.json["state"], again.json["duplicate"]) == ("delivered", True)
    shown = circuit("show", started.json["case_id"]).out
    assert "by the message paid" in shown
    listed = circuit("messages", "--json").json
    assert [one["state"] for one in listed] == ["delivered", "refused", "kept"]
    assert [one["key"] for one in circuit("messages", "--state", "kept", "--json").json] == [["43"]]
    assert circuit("messages", "--name", "nobody").out.strip() == "no messages"
    assert circuit("send", "paid", "--data", "[]").code == 2
    assert circuit("send", "paid", "--lifetime", "soon").code == 2
    assert circuit("messages", "--before", "nonsense").code == 2
