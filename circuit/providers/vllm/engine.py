"""vLLM's `AsyncLLM`, as the process of a model uses it. The only file that knows vLLM.

A conversation takes the way that it takes in vLLM's own server, without the server: its request, its renderer (chat
template, tools), its sampling parameters (structured output), its parsers of reasoning and calls. These are not part of
what vLLM keeps stable, so its versions are pinned in `pyproject.toml`.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# vLLM is not installed where the types are checked.

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import vllm
from prometheus_client import REGISTRY
from pydantic import ValidationError
from vllm import PoolingParams, SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor
from vllm.entrypoints.pooling.typing import ScoringRenderParams
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.exceptions import GenerationError, GracefulHTTPError, VLLMClientError, VLLMNotFoundError
from vllm.lora.request import LoRARequest
from vllm.renderers.chat_utils import ChatTemplateConfig
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from circuit.providers.vllm.literal import Literal
from circuit.providers.vllm.port import EngineDead, EngineFault, Message

_MEMORY = re.compile(r"out of memory|OutOfMemory|cannot allocate memory|bad_alloc", re.IGNORECASE)
_UNABLE = re.compile(r"not a multimodal model|does not support|At most 0 \w+\(s\)|not supported", re.IGNORECASE)
_MISSING = re.compile(
    r"not a (local folder|valid model identifier)|Repo id must|couldn't connect|Can't load|does not appear to have"
    r"|offline|Invalid repository ID|LocalEntryNotFound|outgoing traffic",
    re.IGNORECASE,
)
_ABOUT_OPTIONS = (ValidationError, ValueError, TypeError, AssertionError, NotImplementedError, KeyError)


TOKENS_A_PIECE = 4
MOST_TOKENS_A_PIECE = 16
REQUESTS_A_TOKEN = 16
"""How many tokens come in one piece, after the first, unless a request says another `stream_interval`: one for so many
requests that are being answered, within these bounds. What is done for each piece outside of the engine costs more than
a token that waits for three others, and with hundreds at once it is what the batch waits for. (Not an engine argument:
models for vectors break on it.)"""


class VllmEngine:
    """A model that is loaded."""

    def __init__(
        self, engine: AsyncLLM, renderer: OnlineRenderer | None, tasks: Sequence[str], template: str | None
    ) -> None:
        self._engine = engine
        self._literal = _literal(None if renderer is None else renderer.renderer.get_tokenizer())
        self._template = template
        self._pairs: CrossEncoderIOProcessor | None = None
        self._renderer = renderer
        self._tasks = tasks
        self._config: Any = engine.model_config
        self._sampling: dict[str, Any] = self._config.get_diff_sampling_param()
        self._adapters: dict[tuple[str, str], LoRARequest] = {}
        self._last_adapter = 0
        self._answering = 0

    @classmethod
    async def open(cls, load: Mapping[str, Any]) -> VllmEngine:
        """The model that `load` says. Raises `EngineFault`."""
        arguments, template = _arguments(load), _template(load["chat_template"])
        try:
            # Batches as large as those of vLLM's own server, where the options do not say: else they are small ones.
            engine = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)
        except _ABOUT_OPTIONS as error:
            raise _load_fault(load, error) from error
        except Exception as error:
            # Its cause was told by the engine's own process, on the error output that the other side reads.
            raise _load_fault(load, error, otherwise="start") from error
        tasks = await engine.get_supported_tasks()
        renderer = None
        if "generate" in tasks:
            try:
                renderer = OnlineRenderer(
                    engine.model_config,
                    engine.renderer,
                    request_logger=None,
                    chat_template=template,
                    chat_template_content_format="auto",
                    enable_auto_tools=bool(load["tool_parser"]),
                    tool_parser=load["tool_parser"] or None,
                    reasoning_parser=load["reasoning_parser"] or None,
                )
            except _ABOUT_OPTIONS as error:
                engine.shutdown()
                raise EngineFault("model_options", _shown(error)) from error
        # As its own processes do: it asks for some of them with each token.
        vllm.envs.enable_envs_cache()
        return cls(engine, renderer, tasks, template)

    def about(self) -> Mapping[str, Any]:
        return {"context": self._config.max_model_len, "tasks": list(self._tasks), "version": vllm.__version__}

    async def answer(self, kind: str, request_id: str, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        try:
            match kind:
                case "chat":
                    self._answering += 1
                    try:
                        async with aclosing(self._chat(request_id, order)) as pieces:
                            async for piece in pieces:
                                yield piece
                    finally:
                        self._answering -= 1
                case "embed":
                    yield "end", await self._embed(request_id, order)
                case "rerank":
                    yield "end", await self._rerank(request_id, order)
                case "sleep":
                    await self._engine.sleep(level=1, mode="wait")
                    yield "end", {}
                case "wake":
                    await self._engine.wake_up()
                    yield "end", {}
                case "figures":
                    yield "end", _figures()
                case _:
                    raise EngineFault(400, f"this engine knows no {kind!r}")
        except EngineDeadError as error:
            raise EngineDead(_shown(error)) from error
        except GracefulHTTPError as error:
            raise EngineFault(int(error.http_status), error.message) from error
        except GenerationError as error:
            raise EngineFault(503, _shown(error)) from error
        except (VLLMClientError, ValidationError, ValueError, TypeError, NotImplementedError) as error:
            raise EngineFault("model_unsupported" if _UNABLE.search(str(error)) else 400, _shown(error)) from error
        except Exception as error:
            if self._engine.errored:
                raise EngineDead(_shown(error)) from error
            raise

    async def close(self) -> None:
        self._engine.shutdown(timeout=3)

    async def _chat(self, request_id: str, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        if self._renderer is None:
            raise EngineFault("model_unsupported", f"this model does not converse; it does {', '.join(self._tasks)}")
        interval = min(max(self._answering // REQUESTS_A_TOKEN, TOKENS_A_PIECE), MOST_TOKENS_A_PIECE)
        body = self._literal.body(order["body"])
        request = ChatCompletionRequest.model_validate({"stream_interval": interval, **body})
        rendered = await self._renderer.render_chat(request)
        if isinstance(rendered, ErrorResponse):
            raise EngineFault(rendered.error.code, rendered.error.message)
        (prompt,) = rendered[1]
        told: list[int] = prompt["prompt_token_ids"]  # pyright: ignore[reportGeneralTypeIssues]
        parser, more = self._parser(request, told)
        most = get_max_tokens(self._config.max_model_len, request.max_tokens, len(told), self._sampling)
        parameters: SamplingParams = request.to_sampling_params(most, self._sampling)
        adapter = await self._adapter(order)
        said: list[int] = []
        cached = 0
        reason = "stop"
        outputs = self._engine.generate(
            prompt, parameters, request_id, lora_request=adapter, priority=request.priority, **more
        )
        async with aclosing(outputs):
            async for output in outputs:
                cached = output.num_cached_tokens or cached
                piece = output.outputs[0]
                said += piece.token_ids
                reason = piece.finish_reason or reason
                if parser is None:
                    if piece.text:
                        yield "text", piece.text
                    continue
                delta = parser.parse_delta(
                    piece.text,
                    list(piece.token_ids),
                    request,
                    prompt_token_ids=told,
                    finished=piece.finish_reason is not None,
                )
                if delta is not None:
                    yield "delta", delta.model_dump(exclude_none=True, exclude_unset=True)
        if reason == "error":
            raise EngineFault(503, "the engine broke the answer off")
        yield "end", {"reason": reason, "usage": _usage(len(told), said, cached, parser)}

    def _parser(self, request: ChatCompletionRequest, prompt: list[int]) -> tuple[Any, dict[str, Any]]:
        """What reads reasoning and calls out of the answer, if anything does, and what the engine must know of it."""
        renderer = self._renderer
        assert renderer is not None
        if renderer.parser is None:
            return None, {}
        template = renderer.effective_chat_template_kwargs(request)
        parser = renderer.parser(
            renderer.renderer.get_tokenizer(),
            request.tools,
            chat_template_kwargs=template,
            model_config=self._config,
        )
        if parser.reasoning_parser is None:
            return parser, {"reasoning_ended": request.resolve_reasoning_ended(parser, prompt)}
        return parser, {
            "reasoning_ended": request.resolve_reasoning_ended(parser, prompt),
            "reasoning_parser_kwargs": {"chat_template_kwargs": template},
        }

    async def _adapter(self, order: Mapping[str, Any]) -> LoRARequest | None:
        """The adapter that `order` names. It is loaded before its first request: one that cannot be would take the
        engine down with it there."""
        if order.get("adapter") is None:
            return None
        name, path = order["adapter"]
        known = self._adapters.get((name, path))
        if known is not None:
            return known
        self._last_adapter += 1
        adapter = LoRARequest(name, self._last_adapter, path)
        try:
            await self._engine.add_lora(adapter)
        except EngineDeadError:
            raise
        except Exception as error:
            missing = isinstance(error, VLLMNotFoundError) or "No adapter found" in str(error)
            cause = "model_not_found" if missing else "model_options"
            raise EngineFault(cause, f"the adapter {name!r} cannot be loaded: {_shown(error)}") from error
        return self._adapters.setdefault((name, path), adapter)

    async def _embed(self, request_id: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if "embed" not in self._tasks:
            raise EngineFault("model_unsupported", f"this model makes no vectors; it does {', '.join(self._tasks)}")
        parameters = PoolingParams(task="embed", dimensions=order.get("dimensions"))
        outputs = await self._pooled(request_id, [({"prompt": text}, parameters) for text in order["texts"]])
        vectors = [output.outputs.data.float().tolist() for output in outputs]
        return {"vectors": vectors, "usage": {"prompt_tokens": sum(len(one.prompt_token_ids) for one in outputs)}}

    async def _rerank(self, request_id: str, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """How well each text answers the question: as a cross-encoder judges the two together, or by the cosine of
        their vectors."""
        if "embed" not in self._tasks and "classify" in self._tasks:
            return {"scores": await self._judged(request_id, order["query"], order["texts"])}
        asked = await self._embed(request_id, {"texts": [order["query"], *order["texts"]]})
        question, *vectors = asked["vectors"]
        return {"scores": [_cosine(question, vector) for vector in vectors]}

    async def _judged(self, request_id: str, query: str, texts: Sequence[str]) -> list[float]:
        labels = self._config.hf_config.num_labels
        if labels != 1:
            raise EngineFault("model_unsupported", f"this model tells {labels} classes apart and gives no one score")
        pairs = self._pairs
        if pairs is None:
            template = ChatTemplateConfig(chat_template=self._template)
            pairs = CrossEncoderIOProcessor(self._engine.vllm_config, self._engine.renderer, template)
            self._pairs = pairs
        parameters = PoolingParams(task="classify")
        pair = ScoringRenderParams(
            data_1=query,
            data_2="",
            chat_template=pairs.chat_template,
            max_tokens_per_query=0,
            max_tokens_per_doc=0,
            tok_params=self._engine.renderer.default_cmpl_tok_params,
            prompt_extras=None,
            skip_mm_cache=False,
            params=parameters,
            lora_requests=None,
            priorities=0,
        )
        read = await asyncio.gather(*(pairs.render_async({**pair, "data_2": text}) for text in texts))
        outputs = await self._pooled(request_id, [(one["prompts"], one["params"]) for one in read])
        return [float(output.outputs.data.squeeze().item()) for output in outputs]

    async def _pooled(self, request_id: str, inputs: Sequence[tuple[Any, PoolingParams]]) -> list[Any]:
        """What the model makes of each of these, all at once."""

        async def one(index: int, prompt: Any, parameters: PoolingParams) -> Any:
            last: Any = None
            async for output in self._engine.encode(prompt, parameters, f"{request_id}-{index}"):
                last = output
            return last

        return await asyncio.gather(*(one(index, *given) for index, given in enumerate(inputs)))


def _literal(tokenizer: Any) -> Literal:
    """What keeps texts from being control tokens of this tokenizer."""
    added = list((getattr(tokenizer, "added_tokens_decoder", None) or {}).values())
    special = [*(getattr(tokenizer, "all_special_tokens", None) or ()), *(str(one) for one in added if one.special)]
    return Literal(special, [str(one) for one in added])


def _arguments(load: Mapping[str, Any]) -> AsyncEngineArgs:
    """vLLM's engine arguments. Raises `EngineFault` for one that it does not have."""
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    given = dict(load["options"])
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise EngineFault("model_options", f"vLLM {vllm.__version__} has no engine argument {name!r}{hint}")
    given.setdefault("disable_log_stats", False)
    given["reasoning_parser"] = load["reasoning_parser"]
    if load["adapters"]:
        given["enable_lora"] = True
    try:
        return AsyncEngineArgs(model=str(Path(load["model"]).expanduser()), **given)
    except Exception as error:
        raise _load_fault(load, error) from error


def _load_fault(load: Mapping[str, Any], error: Exception, otherwise: str = "model_options") -> EngineFault:
    text = _shown(error)
    # What reaches for the hub fails in many ways, each by a name of its own.
    if _MEMORY.search(text):
        return EngineFault("model_out_of_memory", text)
    if isinstance(error, OSError) or _MISSING.search(text):
        return EngineFault("model_not_found", f"{load['model']!r}: {text}")
    return EngineFault(otherwise, text)


def _template(text: str) -> str | None:
    """A template is written out, or lies in a file."""
    if not text:
        return None
    if "{" in text or "\n" in text:
        return text
    try:
        return Path(text).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineFault("model_options", f"the chat template cannot be read: {error}") from error


def _usage(told: int, said: Sequence[int], cached: int, parser: Any) -> dict[str, Any]:
    """The counts, as a server of OpenAI's protocol tells them."""
    usage: dict[str, Any] = {"prompt_tokens": told, "completion_tokens": len(said)}
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    thought = parser.count_reasoning_tokens(tuple(said)) if parser is not None else 0
    if thought:
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def _figures() -> Mapping[str, Any]:
    """vLLM's own figures by name, those of several engines and causes added up."""
    found: dict[str, float] = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name.startswith("vllm:") and not sample.name.endswith(("_bucket", "_created")):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _shown(error: BaseException) -> str:
    """An error in one line, short enough for a message."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:800]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    length = (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5
    return dot / length if length else 0.0
