"""Models inside over a whole deployment: each worker holds its own, and is asked for them as for anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from circuit.engine.fleet import Fleet, WorkerView
from circuit.engine.queries import Queries
from circuit.errors import InvalidRequest
from circuit.providers.catalogue import HeldModel
from circuit.providers.registry import INSIDE, ProviderRegistry
from circuit.providers.vllm.spec import ModelSpec
from circuit.security.principal import Principal

ERRAND = "models"
ANSWER_SECONDS = 15.0
"""How long a worker may take to answer: it looks every second, and to end a model takes ten at most."""


class ModelErrand:
    """What a worker's process does when it is asked for its models: `{do: list}`, `{do: load, providers}`, and
    `{do: unload | sleep | wake, model}`. A load is begun and not waited for."""

    def __init__(self, registry: ProviderRegistry) -> None:
        self._registry = registry

    async def __call__(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        models = self._registry.models
        match payload.get("do"):
            case "list":
                pass
            case "load":
                for spec in payload["providers"]:
                    models.model(ModelSpec.of(spec)).begin()
            case "unload":
                await models.unload(str(payload["model"]))
            case "sleep":
                for model in models.named(str(payload["model"])):
                    await model.sleep()
            case "wake":
                for model in models.named(str(payload["model"])):
                    await model.wake()
            case other:
                raise InvalidRequest(f"nothing can be done with models that is called {other!r}")
        return {"models": [view.as_dict() for view in models.views()]}


class DeploymentModels:
    """The door to the models of all workers, for `principal`."""

    def __init__(self, fleet: Fleet, queries: Queries, principal: Principal) -> None:
        self._fleet = fleet
        self._queries = queries
        self._principal = principal

    async def held(self, *, worker: str | None = None) -> Sequence[HeldModel]:
        """What the workers hold, as far as they answer. Raises `NotFound`."""
        return await self._ask({"do": "list"}, worker)

    async def load(self, model: str, options: Mapping[str, Any], *, worker: str | None = None) -> Sequence[HeldModel]:
        """Have the workers load `model` as the published workflows load it; with `options`, or where none names it,
        with these alone. Raises `NotFound`."""
        asked = [] if options else [spec for spec in await self.named() if spec["model"] == model]
        providers = asked or [{"type": INSIDE, "model": model, "options": {"options": dict(options)}}]
        return await self._ask({"do": "load", "providers": providers}, worker, ("model.load", model))

    async def change(self, do: str, model: str, *, worker: str | None = None) -> Sequence[HeldModel]:
        """Have the workers that hold `model` `unload` it, let it `sleep`, or `wake` it. Raises `NotFound`."""
        return await self._ask({"do": do, "model": model}, worker, (f"model.{do}", model))

    async def named(self) -> Sequence[Mapping[str, Any]]:
        """The providers of models inside that agents of the current workflows name, each once."""
        found: dict[str, Mapping[str, Any]] = {}
        for workflow in await self._queries.workflows(self._principal.tenant):
            for agent in (workflow.document.get("agents") or {}).values():
                for spec in (agent["llm_provider"], *(agent.get("fallback") or ())):
                    if spec.get("type") == INSIDE:
                        found.setdefault(ModelSpec.of(spec).load.id, spec)
        return list(found.values())

    async def _ask(
        self, payload: Mapping[str, Any], worker: str | None, audited: tuple[str, str] | None = None
    ) -> Sequence[HeldModel]:
        answers = await self._fleet.errand(
            ERRAND, payload, self._principal, worker=worker, wait_seconds=ANSWER_SECONDS, audited=audited
        )
        return [held for one, answer in answers for held in _held(one, answer)]


def _held(worker: WorkerView, answer: Mapping[str, Any] | None) -> Sequence[HeldModel]:
    """What one worker answered. One that has not, or could not, is a line of its own."""
    place = (str(worker.id), worker.row.host)
    if answer is None:
        return [HeldModel(*place, model="", state="unanswered", detail="the worker has not answered yet")]
    if "error" in answer:
        error: Mapping[str, Any] = answer["error"]
        return [HeldModel(*place, model="", state="refused", detail=str(error.get("message")))]
    return [HeldModel.of(*place, told) for told in answer["models"]]
