"""Parameters that clients send although they ask for nothing: OpenAI's own, and those of other servers.

SDKs, proxies and front ends write every knob they know, most with the value that leaves the answer as it is. Such
a value is taken; any other is refused by name, because here it would change nothing, against what was asked.
"""

from __future__ import annotations

from typing import Any

from trimtab.service.errors import UnsupportedError

# Change no answer here, whatever they say.
IGNORED = frozenset(
    {
        "user",
        "metadata",
        "safety_identifier",
        "parallel_tool_calls",
        # There is no cache of prompts.
        "prompt_cache_key",
        "prompt_cache_retention",
        "cache_salt",
        "cache_prompt",
    }
)
_OFF: tuple[object, ...] = (False, 0, "", [], {})
_ONE: tuple[object, ...] = (1,)
# Parameter → the values, beside null, that ask for nothing.
NEUTRAL: dict[str, tuple[object, ...]] = {
    # OpenAI
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": _OFF,
    "suffix": ("",),
    "echo": (False,),
    "best_of": _ONE,
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "prediction": (),
    "audio": (),
    "web_search_options": (),
    # vLLM, SGLang, TGI
    "repetition_penalty": _ONE,
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "length_penalty": _ONE,
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "stop_token_ids": ([],),
    "stop_regex": ("", []),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "no_stop_trim": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "include_reasoning": (True,),
    "separate_reasoning": (True,),
    "stream_reasoning": (True,),
    "priority": (0,),
    "return_tokens_as_token_ids": (False,),
    "return_hidden_states": (False,),
    "logits_processors": ([],),
    "guided_json": _OFF,
    "guided_regex": _OFF,
    "guided_choice": _OFF,
    "guided_grammar": _OFF,
    "structured_outputs": _OFF,
    "regex": _OFF,
    "ebnf": _OFF,
    "json_schema": _OFF,
    "lora_path": ("", []),
    "session_params": _OFF,
    "vllm_xargs": _OFF,
    "kv_transfer_params": _OFF,
    "custom_params": _OFF,
    # llama.cpp, text-generation-webui, KoboldCpp
    "repeat_penalty": _ONE,
    "rep_pen": _ONE,
    "encoder_repetition_penalty": _ONE,
    "no_repeat_ngram_size": (0,),
    "typical": _ONE,
    "typical_p": _ONE,
    "tfs": _ONE,
    "tfs_z": _ONE,
    "top_a": (0,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": _ONE,
    "smoothing_factor": (0,),
    "dynamic_temperature": (False,),
    "dynatemp_range": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "num_beams": _ONE,
    "n_probs": (0,),
    "n_keep": (0,),
    "min_keep": (0,),
    "timings_per_token": (False,),
    "ban_eos_token": (False,),
    "grammar": _OFF,
    # LiteLLM, OpenRouter, Mistral
    "extra_body": ({},),
    "transforms": ([],),
    "models": ([],),
    "provider": ({},),
    "plugins": ([],),
    "reasoning": ({},),
    "safe_prompt": (False,),
}


def without_neutral(parameters: dict[str, Any], served: frozenset[str]) -> dict[str, Any]:
    """The parameters that ask for something. Raises `UnsupportedError` for one that is not served.

    null means: not given. What is neither `served` nor known is left for the caller to refuse.
    """
    kept = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if name in served or (name not in NEUTRAL and name not in IGNORED):
            kept[name] = value
        elif name in NEUTRAL and not any(_same(value, each) for each in NEUTRAL[name]):
            raise UnsupportedError(
                f"'{name}' is not served with this value.", where=name, remedy=f"Leave '{name}' out."
            )
    return kept


def _same(value: object, neutral: object) -> bool:
    """Equal, and no 0 for false: Python takes them for the same."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
