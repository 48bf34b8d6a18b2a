"""Tiny random-weight models of the architectures that are exported."""

import math

import torch
import transformers

VOCAB = 128
# What all decoders have in common, by the usual names of a config.
COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=False,
)
MOE = dict(
    moe_intermediate_size=24,
    num_experts=4,
    num_experts_per_tok=2,
    decoder_sparse_step=1,
    norm_topk_prob=True,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
LONG_ROPE = dict(
    type="longrope",
    short_factor=[1.0, 1.1, 1.2, 1.3],
    long_factor=[1.5, 2.0, 3.0, 4.0],
)
# Architecture -> (class of its config, what differs from COMMON).
ARCHITECTURES = {
    "llama": ("LlamaConfig", {}),
    "llama3": ("LlamaConfig", dict(rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True)),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", dict(head_dim=16, tie_word_embeddings=True)),
    "gemma": ("GemmaConfig", dict(head_dim=16, num_key_value_heads=1, tie_word_embeddings=True)),
    "gemma2": (
        "Gemma2Config",
        dict(
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=4,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=8.0,
            tie_word_embeddings=True,
        ),
    ),
    "gemma3": (
        "Gemma3TextConfig",
        dict(
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
            rope_scaling=dict(rope_type="linear", factor=8.0),
            tie_word_embeddings=True,
        ),
    ),
    "mistral": ("MistralConfig", dict(sliding_window=4)),
    "olmo": ("OlmoConfig", dict(clip_qkv=None)),
    "olmo2": ("Olmo2Config", {}),
    "phi3": ("Phi3Config", dict(original_max_position_embeddings=64)),
    "phi3long": (
        "Phi3Config",
        dict(original_max_position_embeddings=16, rope_scaling=LONG_ROPE),
    ),
    "phi4mini": (
        "Phi3Config",
        dict(
            original_max_position_embeddings=64,
            partial_rotary_factor=0.5,
            tie_word_embeddings=True,
        ),
    ),
    "stablelm": (
        "StableLmConfig",
        dict(partial_rotary_factor=0.5, use_qkv_bias=True, use_parallel_residual=False),
    ),
    "stablelm2": (
        "StableLmConfig",
        dict(partial_rotary_factor=0.5, use_parallel_residual=True, qk_layernorm=True),
    ),
    "cohere": ("CohereConfig", dict(logit_scale=0.5, tie_word_embeddings=True, use_qk_norm=False)),
    "cohereqk": ("CohereConfig", dict(logit_scale=0.5, tie_word_embeddings=True, use_qk_norm=True)),
    "granite": (
        "GraniteConfig",
        dict(
            embedding_multiplier=3.0,
            logits_scaling=2.0,
            residual_multiplier=0.5,
            attention_multiplier=0.3,
            tie_word_embeddings=True,
        ),
    ),
    "starcoder2": ("Starcoder2Config", dict(sliding_window=4, tie_word_embeddings=True)),
    "phi": ("PhiConfig", dict(partial_rotary_factor=0.5, num_key_value_heads=4)),
    "smollm3": ("SmolLM3Config", dict(no_rope_layers=[1, 0], pad_token_id=0)),
    "glm": ("GlmConfig", dict(head_dim=8, partial_rotary_factor=0.5, attention_bias=True)),
    "nemotron": ("NemotronConfig", dict(partial_rotary_factor=0.5)),
    "gptneox": (
        "GPTNeoXConfig",
        dict(rotary_pct=0.5, use_parallel_residual=True, max_position_embeddings=64),
    ),
    "gptj": (
        "GPTJConfig",
        dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4, n_inner=48),
    ),
    "falcon": (
        "FalconConfig",
        dict(multi_query=True, parallel_attn=True, bias=False, alibi=False, ffn_hidden_size=48),
    ),
    "falcon40b": (
        "FalconConfig",
        dict(
            new_decoder_architecture=True,
            num_kv_heads=2,
            bias=False,
            alibi=False,
            ffn_hidden_size=48,
        ),
    ),
    "opt": (
        "OPTConfig",
        dict(ffn_dim=48, word_embed_proj_dim=32, tie_word_embeddings=True),
    ),
    "gpt2": (
        "GPT2Config",
        dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48, tie_word_embeddings=True),
    ),
    "bigcode": (
        "GPTBigCodeConfig",
        dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48, multi_query=True),
    ),
    "bloom": ("BloomConfig", dict(n_head=4, n_layer=2, tie_word_embeddings=True)),
    "mpt": (
        "MptConfig",
        dict(
            d_model=32,
            n_heads=4,
            n_layers=2,
            expansion_ratio=2,
            max_seq_len=64,
            tie_word_embeddings=True,
        ),
    ),
    "mixtral": (
        "MixtralConfig",
        dict(intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    ),
    "qwen2moe": (
        "Qwen2MoeConfig",
        dict(shared_expert_intermediate_size=24, **MOE),
    ),
    "qwen3moe": ("Qwen3MoeConfig", dict(head_dim=16, **MOE)),
    "olmoe": ("OlmoeConfig", dict(intermediate_size=24, num_experts=4, num_experts_per_tok=2)),
}
SIZES = ["intermediate_size", "num_key_value_heads"]
DEPTHS = ["num_hidden_layers", "num_attention_heads", "max_position_embeddings"]
# Names of COMMON that a config spells otherwise, or has not.
OWN_NAMES = {
    "GPT2Config": ["hidden_size", *SIZES, *DEPTHS],
    "GPTJConfig": ["hidden_size", *SIZES, *DEPTHS],
    "GPTBigCodeConfig": ["hidden_size", *SIZES, *DEPTHS],
    "MptConfig": ["hidden_size", *SIZES, *DEPTHS],
    "BloomConfig": [*SIZES, *DEPTHS],
    "FalconConfig": SIZES,
    "GPTNeoXConfig": ["num_key_value_heads"],
    "OPTConfig": SIZES,
}


def build(architecture, attention="sdpa", wide_heads=False):
    """A model with random weights on which every logit depends.

    `wide_heads` asks for heads of 16 channels, which GroupQueryAttention needs.
    """
    kind, own = ARCHITECTURES[architecture]
    settings = {k: v for k, v in COMMON.items() if k not in OWN_NAMES.get(kind, [])} | own
    if wide_heads and "head_dim" not in own:
        settings |= dict(num_attention_heads=2, num_key_value_heads=1)
    config = getattr(transformers, kind)(**settings)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model = model.eval().float()
    randomize(model)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.generation_config.pad_token_id = 0
    return model


def randomize(model):
    """Matrices that keep activations near 1, weights of norms around 1, biases that are not 0."""
    generator = torch.Generator().manual_seed(11)
    embeddings = {id(model.get_input_embeddings().weight)}
    conv1d = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, transformers.pytorch_utils.Conv1D)
    }
    plus_one = "gemma" in model.config.model_type or "nemotron" in model.config.model_type
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.copy_((0 if plus_one else 1) + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            elif id(parameter) in embeddings:
                parameter.copy_(0.6 * noise)
            elif "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            else:
                n_inputs = parameter.shape[0 if id(parameter) in conv1d else -1]
                parameter.copy_(noise / math.sqrt(n_inputs))
