"""SNAKES, in memory: a coloured net of ten transitions, each fired with the first of its modes. Nothing is stored."""

from __future__ import annotations

from exchange import LENGTH, Run, Task, main, one_by_one
from snakes.nets import Expression, PetriNet, Place, Transition, Variable


def net() -> PetriNet:
    made = PetriNet("chain")
    for index in range(LENGTH + 1):
        made.add_place(Place(f"p{index}", []))
    for index in range(LENGTH):
        made.add_transition(Transition(f"t{index}"))
        made.add_input(f"p{index}", f"t{index}", Variable("x"))
        made.add_output(f"p{index + 1}", f"t{index}", Expression("x + 1"))
    return made


async def prepare(task: Task) -> Run:
    made = net()

    async def one() -> None:
        made.place(f"p{LENGTH}").empty()
        made.place("p0").add(1)
        for index in range(LENGTH):
            transition = made.transition(f"t{index}")
            transition.fire(transition.modes()[0])

    async def run() -> list[float]:
        each = await one_by_one(one, task.runs)
        return each if task.alone else []

    return run


if __name__ == "__main__":
    main(prepare)
