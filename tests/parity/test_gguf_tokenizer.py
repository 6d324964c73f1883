"""llama.cpp tokenizes as we do: both kinds of BPE go into a GGUF under names that it knows, and lose nothing there.

Runs where `xllamacpp` is installed, which is llama.cpp in a wheel: pip install xllamacpp
"""

import json
import random
import urllib.request
from itertools import islice

import numpy as np
import pytest
import sentencepiece
from tokenizers import pre_tokenizers, trainers

from groundup.config.schema import TokenizerSettings
from groundup.tokenizer import train_bpe, train_tokenizer
from groundup.tokenizer.train import GGUF

xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install xllamacpp")

TEXTS = [
    "The quick brown fox, 1234 times; it's HE'LL and we've. don't DON'T\n\n",
    "def f(x):\n\treturn x + 1  # naïve café\r\n",
    "你好，世界。天地玄黄，宇宙洪荒。 日月盈昃 123年",
    "Привет мир, как дела? مرحبا بالعالم नमस्ते दुनिया 한국어 🙂🏽",
] * 30
WIDTH = 32


def in_gguf(tokenizer, path, model=None):
    """A model of random weights with this tokenizer, as llama.cpp reads it."""
    import gguf

    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH)
    names = tokenizer.init_kwargs["gguf"]
    writer.add_tokenizer_model(names["model"])
    writer.add_tokenizer_pre(names["pre"])
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    types = [control if token in tokenizer.all_special_tokens else normal for token in tokens]
    if model is None:
        core = json.loads(tokenizer.backend_tokenizer.to_str())
        writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    else:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        for number in range(len(pieces)):
            if pieces.is_byte(number):
                types[number] = gguf.TokenType.BYTE
            elif pieces.is_unknown(number):
                types[number] = gguf.TokenType.UNKNOWN
        scores = [pieces.get_score(n) if n < len(pieces) else -1000.0 for n in range(len(tokens))]
        writer.add_token_scores(scores)
        writer.add_unk_token_id(pieces.unk_id())
        writer.add_add_space_prefix(False)
        writer.add_remove_extra_whitespaces(False)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,)}
    shapes |= {"blk.0.ffn_norm": (WIDTH,)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (WIDTH, WIDTH)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


POOLS = [
    " \t\n\r\u00a0\u3000\u200b",
    "aZéßñЖשأبनम한你好世界々",
    "0123456789٣४½²Ⅷ",
    ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`“”‘’—…，。！？",
    "\u0301\u093f\ufe0f\U0001f3fd🙂👩‍💻",
    "'s't're've'm'll'dſK",
]


def random_texts():
    """Words, spaces and signs of many scripts; and any character at all, assigned or not."""
    draw = random.Random(0)
    for _ in range(300):
        yield "".join(draw.choice(draw.choice(POOLS)) for _ in range(draw.randint(1, 60)))
    for _ in range(300):
        codes = [draw.choice((draw.randrange(0x3000), draw.randrange(0x110000))) for _ in range(20)]
        yield "".join(f"{chr(code)}a " for code in codes if not 0xD800 <= code < 0xE000)


SINGLE = [
    *TEXTS[:4],
    "",
    " ",
    "\n",
    "  \n \t x",
    "12345",
    "a'S 'Re",
    "\x00\x1f\x7f\x85",
    "it'll'Ll'LL",
    "I'm' m",
    "it'ſ'ſt",
]


@pytest.fixture(scope="module")
def trained():
    """As ours, but merged over the ends of words in training: words that end elsewhere become other tokens."""
    made = train_bpe(["x"], 300)
    core = made.backend_tokenizer
    words, core.pre_tokenizer = core.pre_tokenizer, pre_tokenizers.ByteLevel(False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=60_000,
        special_tokens=[made.bos_token, made.eos_token, made.pad_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*random_texts(), *SINGLE], trainer)
    core.pre_tokenizer = words
    return made


def llama_cpp(path):
    """llama.cpp's ids of a text, by the tokenizer in a file."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 64
    params.warmup = False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)

    def tokenized(text, special=False):
        asked = {"content": text, "add_special": special, "parse_special": False}
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["tokens"]

    return tokenized


@pytest.fixture(scope="module")
def theirs(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    in_gguf(trained, path)
    return llama_cpp(path)


def ours(trained, text):
    return trained.encode(text, add_special_tokens=False)


def test_the_names_stand_in_the_tokenizer(trained):
    assert trained.init_kwargs["gguf"] == GGUF["bpe"] == {"model": "gpt2", "pre": "qwen2"}


def test_words_matter_to_the_test(trained):
    """Without its words the tokenizer of this test would give other ids."""
    core = trained.backend_tokenizer
    words = core.pre_tokenizer
    text = "it'll'Ll'LL"
    core.pre_tokenizer = pre_tokenizers.ByteLevel(False, use_regex=False)
    whole = ours(trained, text)
    core.pre_tokenizer = words
    assert len(whole) == 1 < len(ours(trained, text))


@pytest.mark.parametrize("text", SINGLE)
def test_texts(trained, theirs, text):
    assert theirs(text) == ours(trained, text)
    assert theirs(text, special=True) == trained.encode(text)


def test_random_texts(trained, theirs):
    different = [text for text in random_texts() if theirs(text) != ours(trained, text)]
    assert not different, f"{len(different)} of 600: {different[:3]!r}"


@pytest.mark.parametrize("algorithm", ["sentencepiece_bpe", "unigram"])
def test_pieces(algorithm, tmp_path):
    """BPE of any text; unigram where each character is a piece, since llama.cpp has no bytes in their place there."""
    settings = TokenizerSettings(from_="c", algorithm=algorithm, vocab_size=1200)
    known = list(islice(random_texts(), 300))
    made = train_tokenizer([*TEXTS, *known], settings)
    in_gguf(made.tokenizer, tmp_path / "tiny.gguf", made.model)
    theirs = llama_cpp(tmp_path / "tiny.gguf")
    vocabulary = made.tokenizer.get_vocab()
    compared = 0
    for text in [*random_texts(), *SINGLE]:
        if algorithm == "sentencepiece_bpe" or all(
            char in vocabulary for char in text.replace(" ", "\u2581")
        ):
            assert theirs(text) == ours(made.tokenizer, text), repr(text)
            compared += 1
    assert compared > 250
    if algorithm == "unigram":
        assert theirs("\u2e3a") == [made.tokenizer.unk_token_id or 0], (
            "when this fails, docs/tokenizers.md can say so"
        )
