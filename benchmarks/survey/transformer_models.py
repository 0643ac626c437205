"""Transformers built from small configurations, without weights: name -> (model, keyword inputs)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_VOCABULARY = 96
_TOKENS = 16
_DECODER = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "use_cache": False,
}
_ENCODER = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}
_CLIP_TEXT = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "max_position_embeddings": _TOKENS,
    "bos_token_id": 0,
    "eos_token_id": _VOCABULARY - 1,
}
_WHISPER = {
    "vocab_size": _VOCABULARY,
    "num_mel_bins": 20,
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_source_positions": 20,
    "max_target_positions": _TOKENS,
    "dropout": 0.0,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_WAV2VEC2 = {
    "vocab_size": 32,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}

# name -> (configuration class, model class, configuration, kind of input)
TRANSFORMERS: Mapping[str, tuple[str, str, dict[str, Any], str]] = {
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "vocab_size": _VOCABULARY,
            "n_positions": 32,
            "n_embd": 48,
            "n_layer": 2,
            "n_head": 4,
            "use_cache": False,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
        "tokens",
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**_DECODER, "tie_word_embeddings": True}, "tokens"),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_DECODER, "sliding_window": 8}, "tokens"),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}, "tokens"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _DECODER, "tokens"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_DECODER, "head_dim": 12}, "tokens"),
    "bert": ("BertConfig", "BertForSequenceClassification", _ENCODER, "tokens"),
    "roberta": (
        "RobertaConfig",
        "RobertaForSequenceClassification",
        {**_ENCODER, "max_position_embeddings": 32},
        "tokens",
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": _VOCABULARY,
            "d_model": 48,
            "d_kv": 12,
            "d_ff": 80,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "use_cache": False,
        },
        "tokens to tokens",
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", _VISION, "image"),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 24,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "drop_path_rate": 0.0,
        },
        "large image",
    ),
    "clip": ("CLIPConfig", "CLIPModel", {"text_config": _CLIP_TEXT, "vision_config": _VISION}, "tokens and image"),
    "whisper": ("WhisperConfig", "WhisperForConditionalGeneration", _WHISPER, "spectrogram to tokens"),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForCTC", _WAV2VEC2, "waveform"),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {
            "vocab_size": _VOCABULARY,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "state_size": 8,
            "use_cache": False,
        },
        "tokens",
    ),
}


def build_transformer(name: str, changes: Mapping[str, Any] | None = None) -> nn.Module:
    """Returns a small model of the Transformers library with random weights.

    Args:
        name: In the list.
        changes: To its configuration.
    """
    import transformers

    config_class, model_class, settings, _ = TRANSFORMERS[name]
    config = getattr(transformers, config_class)(**{**settings, **(changes or {})})
    return getattr(transformers, model_class)(config)


def transformer_inputs(name: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Returns one random batch for it."""
    return _INPUTS[TRANSFORMERS[name][3]](generator)


def _tokens(generator: torch.Generator) -> Tensor:
    ids = torch.randint(3, _VOCABULARY - 1, (2, _TOKENS), generator=generator)
    ids[:, -1] = _VOCABULARY - 1  # CLIP pools at the end-of-text token
    return ids


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


_INPUTS: Mapping[str, Callable[[torch.Generator], dict[str, Tensor]]] = {
    "tokens": lambda g: {"input_ids": _tokens(g)},
    "tokens to tokens": lambda g: {"input_ids": _tokens(g), "decoder_input_ids": _tokens(g)},
    "image": lambda g: {"pixel_values": _noise(g, 2, 3, 32, 32)},
    "large image": lambda g: {"pixel_values": _noise(g, 2, 3, 64, 64)},
    "tokens and image": lambda g: {"input_ids": _tokens(g), "pixel_values": _noise(g, 2, 3, 32, 32)},
    "spectrogram to tokens": lambda g: {"input_features": _noise(g, 2, 20, 40), "decoder_input_ids": _tokens(g)},
    "waveform": lambda g: {"input_values": _noise(g, 2, 4000)},
}
