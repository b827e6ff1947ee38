"""Make a tiny language model with random weights, in the two formats that engines read.

    python tiny_models.py OUT_DIR

writes OUT_DIR/tiny.gguf for llama.cpp and OUT_DIR/tiny, a Hugging Face folder for vLLM and MLX.
Nothing is downloaded, and the same packages give the same bytes. Run it with the Python that
`scripts/get-engines models` installs; conftest.py does.

The model writes printable ASCII and never ends by itself: an answer is as long as max_tokens
says, with any sampling, and no token is half of a UTF-8 character.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

# They are in the environment this runs in, and need not be where the types are checked.
import gguf  # type: ignore[import-not-found,unused-ignore]
import numpy as np  # type: ignore[import-not-found,unused-ignore]
from safetensors.numpy import save_file  # type: ignore[import-not-found,unused-ignore]
from tokenizers import (  # type: ignore[import-not-found,unused-ignore]
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

SEED = 20
VOCABULARY = 1024
HIDDEN = 128
HEADS = 4  # of 32 dimensions, the smallest that vLLM's attention on CPUs takes
KV_HEADS = 2
FEED_FORWARD = 256
LAYERS = 2
CONTEXT = 8192  # tokens
NORM_EPSILON = 1e-5
ROPE_BASE = 10000.0
MARK = 0  # the dimension of the hidden state that bars tokens, see random_weights

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PADDING, END = 0, 2  # ids of special tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def made_up_text() -> Iterator[str]:
    """Lines of invented words, some more frequent than others, for the tokenizer to learn."""
    source = random.Random(SEED)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(source.choices(syllables, k=source.randint(1, 3))) for _ in range(1500)]
    frequencies = [1 / rank for rank in range(1, len(words) + 1)]
    for _ in range(3000):
        line = source.choices(words, frequencies, k=source.randint(4, 12))
        yield " ".join(line).capitalize() + source.choice(".?!") + "\n"


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(made_up_text(), trainer)
    return tokenizer


def is_writable(token: str) -> bool:
    """Whether the model may write it: plain ASCII by itself (Ġ stands for space, Ċ for newline)."""
    return token not in SPECIAL and all(c in "ĠĊ" or "!" <= c <= "~" for c in token)


def random_weights(tokens: list[str]) -> dict[str, Array]:
    """Weights under the names of the GGUF format.

    Tokens that must not be written are barred whatever the sampling: every embedding has the
    same large value in dimension MARK, no layer writes to it, and their output rows are far
    below zero there, all others zero.
    """
    source = np.random.default_rng(SEED)

    def noise(*shape: int, scale: float = 0.08) -> Array:
        return (source.standard_normal(shape) * scale).astype(np.float32)

    weights = {
        "token_embd": noise(len(tokens), HIDDEN, scale=0.5),
        "output_norm": np.ones(HIDDEN, np.float32),
        "output": noise(len(tokens), HIDDEN, scale=0.12),
    }
    keys = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        block = {
            "attn_norm": np.ones(HIDDEN, np.float32),
            "ffn_norm": np.ones(HIDDEN, np.float32),
            "attn_q": noise(HIDDEN, HIDDEN),
            "attn_k": noise(keys, HIDDEN),
            "attn_v": noise(keys, HIDDEN),
            "attn_output": noise(HIDDEN, HIDDEN),
            "ffn_gate": noise(FEED_FORWARD, HIDDEN),
            "ffn_up": noise(FEED_FORWARD, HIDDEN),
            "ffn_down": noise(HIDDEN, FEED_FORWARD),
        }
        block["attn_output"][MARK] = block["ffn_down"][MARK] = 0
        weights.update({f"blk.{layer}.{name}": values for name, values in block.items()})
    weights["token_embd"][:, MARK] = 3
    weights["output"][:, MARK] = [0 if is_writable(token) else -50 for token in tokens]
    return weights


def write_gguf(path: Path, tokenizer: Tokenizer, weights: dict[str, Array]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    add_gguf_tokenizer(writer, tokenizer)
    for name, values in weights.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_gguf_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    tokens = tokens_of(tokenizer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds[token in SPECIAL] for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(PADDING)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(PADDING)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def tokens_of(tokenizer: Tokenizer) -> list[str]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


HUGGING_FACE_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hugging_face_name(name: str) -> str:
    """The name that Transformers gives the tensor which GGUF calls `name`."""
    if not name.startswith("blk."):
        return f"{HUGGING_FACE_NAMES[name]}.weight"
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{HUGGING_FACE_NAMES[part]}.weight"


def write_hugging_face(folder: Path, tokenizer: Tokenizer, weights: dict[str, Array]) -> None:
    """The two formats order the rows of attn_q and attn_k differently.

    So the same random numbers make two models here, which answer differently.
    """
    folder.mkdir()
    tensors = {hugging_face_name(name): values for name, values in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    token_ids = {"bos_token_id": PADDING, "eos_token_id": END, "pad_token_id": PADDING}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[PADDING],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PADDING],
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": CONTEXT,
    }
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_json(folder / "generation_config.json", token_ids)
    write_json(folder / "config.json", {**architecture(tokenizer), **token_ids})


def architecture(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_BASE,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def write_json(path: Path, content: dict[str, object] | dict[str, int]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def make_models(out: Path) -> None:
    """Make both models in `out`, which appears whole or not at all; two may do so at once."""
    scratch = out.with_name(f"{out.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    tokenizer = train_tokenizer()
    weights = random_weights(tokens_of(tokenizer))
    write_gguf(scratch / "tiny.gguf", tokenizer, weights)
    write_hugging_face(scratch / "tiny", tokenizer, weights)
    try:
        scratch.rename(out)
    except OSError:
        if not out.is_dir():
            raise
        shutil.rmtree(scratch)  # another run came first


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_models.py OUT_DIR")
    make_models(Path(sys.argv[1]))
