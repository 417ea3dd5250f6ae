"""SpiffWorkflow, in memory: a BPMN process of ten script tasks, run by `do_engine_steps`. Nothing is stored."""

from __future__ import annotations

import io
from itertools import pairwise

from exchange import LENGTH, PAYLOAD, Run, Task, main, one_by_one
from lxml import etree
from SpiffWorkflow.bpmn import BpmnWorkflow
from SpiffWorkflow.bpmn.parser import BpmnParser

HEAD = '<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" targetNamespace="bench">'


def bpmn() -> str:
    names = ["start", *[f"t{index}" for index in range(LENGTH)], "end"]
    lines = [HEAD, '<process id="chain" isExecutable="true">']
    lines.append('<startEvent id="start"><outgoing>f0</outgoing></startEvent>')
    for index in range(LENGTH):
        flows = f"<incoming>f{index}</incoming><outgoing>f{index + 1}</outgoing>"
        lines.append(f'<scriptTask id="t{index}" name="t{index}">{flows}<script>n = n + 1</script></scriptTask>')
    lines.append(f'<endEvent id="end"><incoming>f{LENGTH}</incoming></endEvent>')
    for index, (before, after) in enumerate(pairwise(names)):
        lines.append(f'<sequenceFlow id="f{index}" sourceRef="{before}" targetRef="{after}"/>')
    return "".join([*lines, "</process></definitions>"])


async def prepare(task: Task) -> Run:
    parser = BpmnParser()
    parser.add_bpmn_xml(etree.parse(io.BytesIO(bpmn().encode())))
    spec = parser.get_spec("chain")

    async def one() -> None:
        workflow = BpmnWorkflow(spec)
        workflow.task_tree.data.update(PAYLOAD)
        workflow.do_engine_steps()
        if workflow.last_task.data["n"] != LENGTH + 1:
            raise RuntimeError(f"the process ended with {workflow.last_task.data}")

    async def run() -> list[float]:
        each = await one_by_one(one, task.runs)
        return each if task.alone else []

    return run


if __name__ == "__main__":
    main(prepare)
