"""What `foreign` answers to names of preference optimisation and of reinforcement learning in other tools.

TRL 1.16, its PPO of earlier releases, LLaMA-Factory, Axolotl and verl.
"""

from __future__ import annotations

from typing import Any

_REFERENCE = "of a dpo stage; grpo and ppo stay close to the model that they start from"
_ROUND = "prompts of one optimizer step; of a ppo stage, prompts that are answered in one round"
_MINIBATCHES = "how many optimizer steps the answers of one round are cut into"
_REWARD_MODEL = "rewards: [{function: model, model: M}]"

NAMES: dict[str, tuple[str, str]] = {
    # Preference pairs
    "pref_loss": ("loss", ""),
    "dpo_label_smoothing": ("label_smoothing", ""),
    "rl_beta": ("beta", ""),
    "orpo_alpha": ("beta", ""),
    "gamma_beta_ratio": ("simpo_gamma", "gamma itself: the ratio times beta"),
    "kto_chosen_weight": ("desirable_weight", ""),
    "kto_rejected_weight": ("undesirable_weight", ""),
    "ref_model": ("reference", _REFERENCE),
    "reference_model": ("reference", _REFERENCE),
    "ref_model_path": ("reference", _REFERENCE),
    "ref_model_name_or_path": ("reference", _REFERENCE),
    "generate_during_eval": ("sample_count", "some held-out prompts are answered before and after"),
    "chat_template_kwargs": ("chat.chat_template_kwargs", "beside `stages`"),
    # Rewards
    "reward_funcs": ("rewards", "shipped ones by name, yours as FILE.py:NAME"),
    "reward_functions": ("rewards", "shipped ones by name, yours as FILE.py:NAME"),
    "reward_weights": ("rewards", "a weight beside each: [{function: F, weight: 0.5}]"),
    "reward_model": ("rewards", _REWARD_MODEL),
    "reward_model_path": ("rewards", _REWARD_MODEL),
    "reward_model_name_or_path": ("rewards", _REWARD_MODEL),
    # Answers
    "max_new_tokens": ("max_completion_length", "of grpo and ppo; other stages answer in sample_tokens"),
    "response_length": ("max_completion_length", ""),
    "max_response_length": ("max_completion_length", ""),
    "rollout_batch_size": ("batch_size", _ROUND),
    "generation_batch_size": ("batch_size", _ROUND),
    "ppo_buffer_size": ("batch_size", _ROUND),
    "log_completions": ("log_completions_steps", "every so many steps; 0: never"),
    "num_completions_to_print": ("num_completions_to_log", ""),
    "num_sample_generations": ("log_completions_steps", "every so many steps; 0: never"),
    "total_episodes": ("num_train_epochs", "passes over the prompts; or max_steps"),
    # The loss of a policy
    "ppo_epochs": ("num_ppo_epochs", ""),
    "mini_batch_size": ("num_mini_batches", f"{_MINIBATCHES}; outside ppo leave it out"),
    "ppo_mini_batch_size": ("num_mini_batches", _MINIBATCHES),
    "clip_range": ("cliprange", "of ppo; of grpo epsilon"),
    "clip_ratio": ("cliprange", "of ppo; of grpo epsilon"),
    "clip_range_vf": ("cliprange_value", ""),
    "clip_ratio_low": ("epsilon", ""),
    "clip_ratio_high": ("epsilon_high", ""),
    "gae_lambda": ("lam", ""),
    "init_kl_coef": ("kl_coef", ""),
    "kl_loss_coef": ("beta", "of grpo; of ppo kl_coef"),
    "kl_penalty": ("kl_estimator", "k1 or k3"),
    "adap_kl_ctrl": ("kl_target", "where it is given kl_coef adapts itself to it"),
    "target": ("kl_target", "where it is given kl_coef adapts itself to it"),
    "ppo_target": ("kl_target", "where it is given kl_coef adapts itself to it"),
    "horizon": ("kl_horizon", ""),
    "ppo_whiten_rewards": ("whiten_rewards", ""),
    "normalize_advantages": ("scale_rewards", "batch, of a grpo stage"),
}

IN_KIND: dict[tuple[str, str], tuple[str, str]] = {
    ("sft", "loss_type"): ("", "it is the negative log-likelihood; DFT is not here"),
    ("dpo", "loss_type"): ("loss", ""),
    ("dpo", "max_prompt_length"): ("max_length", "prompt and answer together"),
    ("dpo", "max_completion_length"): ("max_length", "prompt and answer together"),
    ("grpo", "loss"): ("loss_type", ""),
    ("grpo", "max_length"): ("max_completion_length", "and max_prompt_length"),
    ("grpo", "cliprange"): ("epsilon", ""),
    ("grpo", "kl_coef"): ("beta", ""),
    ("grpo", "num_ppo_epochs"): ("num_iterations", ""),
    ("grpo", "num_mini_batches"): ("steps_per_generation", ""),
    ("ppo", "max_length"): ("max_completion_length", "and max_prompt_length"),
    ("ppo", "epsilon"): ("cliprange", ""),
    ("ppo", "beta"): ("kl_coef", ""),
    ("ppo", "num_iterations"): ("num_ppo_epochs", ""),
    ("ppo", "steps_per_generation"): ("num_mini_batches", ""),
}
"""Settings of another kind of stage that have another name in this one, or none, by (kind, name)."""

_MIXED = "losses are not mixed; nearest is orpo, which has the likelihood of chosen answers in it"
_DIVERGENCE = "the reference is kept to by the reverse KL divergence alone, as in DPO's paper"
_FIXED = "the reference does not move; nearest is a second dpo stage, which begins with a new one"
_VLLM = "answers come from the generator here, on the very weights that are trained"
_CLIPPING = "the ratio is clipped by epsilon and epsilon_high alone"
_OTHER_LOSS = "its loss is not here; loss_type is grpo, bnpo, dr_grpo, dapo or rloo"
_ENTROPY = "there is no entropy bonus; entropy is logged"
_SCORES = "rewards are not rescaled; give one a weight, or clip it in a function of yours"
_EARLY = "no round ends early; policy/approxkl_avg tells how far it went"
_DRAWN = (
    "answers are drawn from the probabilities that are trained; temperature, top_p, top_k and min_p say how"
)
_NO_TOOLS = "answers are text; no tools are called"
_PADDING = "there is no padding"
_KIND = "the stage's kind says it"

LEAVE_OUT: dict[str, str] = {
    # Preference pairs
    "loss_weights": _MIXED,
    "rpo_alpha": _MIXED,
    "pref_ftx": _MIXED,
    "cpo_alpha": f"CPO is not here; {_MIXED}",
    "ld_alpha": "no answer is cut to the other's length; nearest is loss: sigmoid_norm, which takes log-ratios a token",
    "use_weighting": "all pairs count alike; WPO's weights are not here",
    "discopop_tau": "DiscoPOP is not here; nearest is loss: sigmoid",
    "f_divergence_type": _DIVERGENCE,
    "f_alpha_divergence_coef": _DIVERGENCE,
    "sync_ref_model": _FIXED,
    "ref_model_mixup_alpha": _FIXED,
    "ref_model_sync_steps": _FIXED,
    "precompute_ref_batch_size": "how many rows fit at once is measured, and changes no result",
    "truncation_mode": "longer rows are set aside and counted, never cut",
    "disable_dropout": "there is no dropout",
    "pad_to_multiple_of": _PADDING,
    "padding_value": _PADDING,
    "pad_token": _PADDING,
    "label_pad_token_id": _PADDING,
    "model_init_kwargs": "dtype is a setting, and the rest is found out",
    "is_encoder_decoder": "it is always a decoder",
    "activation_offloading": "activations are computed again where they would not fit",
    "router_aux_loss_coef": "a mixture's router is trained without a loss of its own",
    # Rewards
    "reward_model_type": "a reward model's folder says what it is",
    "multi_objective_aggregation": "rewards are weighted and summed",
    "reward_clip_range": _SCORES,
    "ppo_score_norm": _SCORES,
    "use_score_scaling": _SCORES,
    "use_score_norm": _SCORES,
    "score_clip": _SCORES,
    # Answers
    **dict.fromkeys(
        (
            *("use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_server_base_url"),
            *("vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
            *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size"),
            *("vllm_structured_outputs_regex", "vllm_importance_sampling_correction"),
            *("vllm_importance_sampling_mode", "vllm_importance_sampling_cap"),
            *("vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min"),
            *("use_transformers_continuous_batching", "transformers_continuous_batching_config"),
            *("use_transformers_paged", "cache_implementation"),
        ),
        _VLLM,
    ),
    "ds3_gather_for_generation": "training runs in one process, on one device",
    "generation_kwargs": _DRAWN,
    "repetition_penalty": _DRAWN,
    "num_generations_eval": "each held-out prompt has one answer; eval_temperature says how it is drawn",
    "shuffle_dataset": "prompts are always shuffled, by the seed",
    "stop_token": "an answer ends at the end of text, or of the template's turn",
    "eos_token": "the tokenizer and the chat template say how a turn ends",
    "stop_token_id": "an answer ends at the end of text, or of the template's turn",
    "max_tool_calling_iterations": _NO_TOOLS,
    "log_unique_prompts": "of each logged round the first answers are kept",
    "log_multimodal": "prompts are text",
    "log_completions_hub_repo": "nothing is uploaded",
    # The loss of a policy
    "delta": _CLIPPING,
    "off_policy_mask_threshold": _CLIPPING,
    "clip_ratio_c": _CLIPPING,
    "importance_sampling_level": "a ratio is a token's; with loss_type: rloo the whole answer's",
    "use_bias_correction_kl": "it is always on",
    "top_entropy_quantile": "all tokens of an answer are trained on",
    "cast_lm_head_to_fp32": "log-probabilities are always summed up in float32",
    **dict.fromkeys(
        (
            *("sapo_temperature_neg", "sapo_temperature_pos"),
            *("vespo_k_pos", "vespo_k_neg", "vespo_lambda_pos", "vespo_lambda_neg"),
        ),
        _OTHER_LOSS,
    ),
    **dict.fromkeys(
        (
            *("entropy_coef", "entropy_coeff", "ent_coef", "use_adaptive_entropy", "entropy_target"),
            *("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta"),
        ),
        _ENTROPY,
    ),
    "target_kl": _EARLY,
    "early_stopping": _EARLY,
    "whiten_advantages": "ppo always does",
    "value_model": "the value function stands on the policy's own weights",
    "value_model_path": "the value function stands on the policy's own weights",
    "critic_model": "the value function stands on the policy's own weights",
    "sft_model_path": "the model to start from is the reference",
    "adv_estimator": f"{_KIND}; of grpo, baseline and scale_rewards say the rest",
    "rl": _KIND,
    "backward_batch_size": "how many rows fit at once is measured, and changes no result",
    "local_rollout_forward_batch_size": "how many rows fit at once is measured, and changes no result",
}

VALUES: dict[tuple[str, Any], str] = {
    **{
        ("loss", name): f"It is not here. Nearest is {nearest}."
        for name, nearest in {
            "exo_pair": "sigmoid, or robust for labels that may be wrong",
            "nca_pair": "kto, which weighs good and bad answers by themselves",
            "bco_pair": "kto, which takes answers one by one too",
            "sppo_hard": "ipo, a square as well",
            "aot": "sigmoid",
            "aot_unpaired": "kto, which needs no pairs either",
            "apo_zero": "kto, which raises chosen and lowers rejected answers by themselves",
            "apo_down": "kto, which weighs good and bad answers by themselves",
            "discopop": "sigmoid",
            "cpo": "simpo, without a reference as well",
        }.items()
    },
    (
        "loss",
        "sft",
    ): "Use a stage of kind sft on the chosen answers, or orpo, which has their likelihood in it.",
    ("loss", "dpo"): "Write sigmoid.",
    ("loss", "kto_pair"): "Write kto: it reads pairs too, taken apart.",
    **{
        ("loss_type", name): f"It is not here. Nearest is {nearest}."
        for name, nearest in {
            "cispo": "dapo, which clips the ratio of a token, and its gradient with it",
            "sapo": "dapo, whose clipping is hard",
            "luspo": "rloo, where an answer is one action",
            "gspo": "rloo, where an answer is one action",
            "vespo": "rloo, where an answer is one action",
        }.items()
    },
    ("scale_rewards", True): "Write group.",
    ("scale_rewards", False): "Write none.",
    ("kl_estimator", "kl"): "Write k1.",
    ("kl_estimator", "low_var_kl"): "Write k3.",
    **{("kl_estimator", name): "It is not here: write k1 or k3." for name in ("abs", "mse", "full", "k2")},
}
