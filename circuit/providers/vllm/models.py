"""The models that one process holds, by what they are loaded with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from circuit.errors import NotFound
from circuit.providers.vllm.model import HostedModel, ModelView
from circuit.providers.vllm.process import Launch, ModelProcess
from circuit.providers.vllm.spec import Load, ModelSpec, check_installed, check_paths


class Models:
    """Gives models and ends them. `launch` says how a process is started; `sleep` is handed in so that tests need not
    wait. One model at a time takes memory, as it loads or wakes: each measures meanwhile what there is of it, and would
    take what another one takes for its own."""

    def __init__(self, launch: Launch, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._launch = launch
        self._sleep = sleep
        self._models: dict[str, HostedModel] = {}
        self._checked: set[tuple[str, tuple[str, str] | None]] = set()
        self._memory = asyncio.Lock()

    def model(self, spec: ModelSpec) -> HostedModel:
        """The model that `spec` says, the same for all that load the same. It is not loaded by that. Raises
        `ExtraMissing` and `ModelNotFound`."""
        name = spec.load.id
        found = self._models.get(name)
        if found is None or (name, spec.adapter) not in self._checked:
            # Once: a firing that asks a model which is there must not wait for a file system.
            if self._launch.command == Launch({}).command:
                check_installed()
            check_paths(spec)
            self._checked.add((name, spec.adapter))
        if found is None:
            found = self._models[name] = HostedModel(
                spec.load,
                self._start,
                start_seconds=spec.start_seconds,
                sleep_after=spec.sleep_after,
                memory=self._memory,
                sleep=self._sleep,
            )
        else:
            found.ask_for(spec.start_seconds, spec.sleep_after)
        return found

    def views(self) -> Sequence[ModelView]:
        """The models that were asked for in this process, by name."""
        return sorted((model.view() for model in self._models.values()), key=lambda view: (view.model, view.id))

    def named(self, name: str) -> Sequence[HostedModel]:
        """The models of this name or id. Raises `NotFound` where there is none."""
        found = [model for model in self._models.values() if name in (model.load.model, model.load.id)]
        if not found:
            known = ", ".join(view.model for view in self.views()) or "none"
            raise NotFound(f"this process holds no model {name!r}; it holds: {known}")
        return found

    async def unload(self, name: str) -> Sequence[ModelView]:
        """End the processes of the models of this name or id, and forget them. Raises `NotFound`."""
        found = self.named(name)
        await asyncio.gather(*(model.unload() for model in found))
        for model in found:
            self._models.pop(model.load.id, None)
        return [model.view() for model in found]

    async def counts(self) -> Sequence[tuple[ModelView, Mapping[str, float]]]:
        """What the engine of each model counts, under vLLM's own names."""
        models = list(self._models.values())
        told = await asyncio.gather(*(model.counts() for model in models))
        return [(model.view(), counts) for model, counts in zip(models, told, strict=True)]

    async def aclose(self) -> None:
        """End all processes. Twice is fine."""
        await asyncio.gather(*(model.unload() for model in self._models.values()))

    async def _start(self, load: Load, seconds: float, hear: Callable[[str], None]) -> ModelProcess:
        if self._memory.locked():
            hear("waits until another model is loaded")
        async with self._memory:
            return await ModelProcess.start(self._launch, load, limit_seconds=seconds, hear=hear)
