"""A model of random weights with a tokenizer and a chat template, made in a second and needing no download."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n", "\t", "ä", "ö", "ü", "é", "…", "😀"]
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "<|tool|>", "<think>", "</think>"]
TEMPLATE = (
    "<s>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] or '' }}"
    "{% for call in message.get('tool_calls') or [] %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}"
    "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_model(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    words: int = 0,
    length: int = 2048,
    seed: int = 0,
    weights: bool = True,
    **more: Any,
) -> Path:
    """A Llama of `layers` layers of the width `hidden`, written to `folder`. A prompt is read character by character;
    the model says `words` more tokens, which are words that nobody writes. `more` goes into its configuration. Without
    `weights` only its shape is written, for an engine that makes them up (`load_format=dummy`)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    make_tokenizer(folder, words)
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(SPECIAL) + len(CHARACTERS) + words,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(hidden // 32, 2),
        "num_key_value_heads": max(hidden // 64, 1),
        "max_position_embeddings": length,
    }
    config = LlamaConfig(**{**shape, **more}, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    kind = LlamaForSequenceClassification if "num_labels" in more else LlamaForCausalLM
    if not weights:
        config.architectures, config.dtype = [kind.__name__], torch.bfloat16
        config.save_pretrained(folder)
        return folder
    kind(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def quantised(folder: Path, base: Path) -> Path:
    """The model in `base` with weights of eight bits, in the format of compressed-tensors."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    kept: dict[str, Any] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            scale = weight.float().abs().amax(dim=1, keepdim=True) / 127
            kept[name] = (weight.float() / scale).round().to(torch.int8)
            kept[f"{name}_scale"] = scale.to(torch.float32)
        else:
            kept[name] = weight
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    scheme = {
        "targets": ["Linear"],
        "weights": {**eight, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight, "strategy": "token", "dynamic": True},
    }
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_tokenizer(folder: Path, more: int = 0) -> None:
    """A tokenizer of single characters and `more` words, with a template for conversations."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *CHARACTERS, *(f" w{number}" for number in range(more))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL[:7]])
    tokenizer.add_tokens([AddedToken(word) for word in SPECIAL[7:]])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)


def make_adapter(folder: Path, base: Path, *, rank: int = 4, seed: int = 0) -> Path:
    """A LoRA adapter for the model in `base`, of random weights that change what it says."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((base / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    folder.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Any] = {}
    torch.manual_seed(1 + seed)
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, hidden, dtype=torch.bfloat16)
        weights[f"{name}.lora_B.weight"] = torch.randn(hidden, rank, dtype=torch.bfloat16)
    save_file(weights, folder / "adapter_model.safetensors")
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": 8 * rank, "target_modules": ["o_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**described, "task_type": "CAUSAL_LM"}))
    return folder
