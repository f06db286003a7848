"""Drawn images as PNG, JPEG and WebP, and what transformers' image processor of Qwen2-VL makes of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers.image_utils import load_image

from common import Golden
from qwen2_vl_images import processor as processor_of

LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 12845056}


def drawing(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A gradient with shapes and stripes on it: soft and hard edges at all angles."""
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin((x + 2 * y) / 5)], axis=-1)
    image = Image.fromarray(ground.astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.2, height * 0.15, width * 0.7, height * 0.6], fill=(250, 240, 20), outline=(0, 0, 0))
    draw.polygon([(width * 0.5, height * 0.3), (width * 0.95, height * 0.9), (width * 0.1, height * 0.8)], fill=(10, 60, 200))
    for i in range(0, width, 7):
        draw.line([(i, 0), (width - i, height)], fill=(255, 255, 255) if i % 2 else (0, 0, 0))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(((x * 5 + y * 3) % 256).astype(np.uint8)))
        return image
    return image.convert(mode)


# name: (the image, how it is saved)
IMAGES = {
    "small.png": (drawing(31, 23), {}),  # enlarged: below the smallest area
    "wide.png": (drawing(150, 61), {"optimize": True}),
    "clear.png": (drawing(64, 90, "RGBA"), {}),
    "grey.png": (drawing(84, 56, "L"), {}),  # stays at its size
    "palette.png": (drawing(70, 70).quantize(16, dither=Image.Dither.NONE), {}),
    "photo.jpg": (drawing(123, 97), {"quality": 85}),
    "turned.jpg": (drawing(110, 50), {"quality": 90, "exif": {0x0112: 6}}),
    "lossless.webp": (drawing(61, 47), {"lossless": True}),
    "lossy.webp": (drawing(99, 140), {"quality": 80}),
}


def make(out: Path) -> None:
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    golden = Golden(folder, "golden")
    sizes = {}
    for name, (image, options) in IMAGES.items():
        if "exif" in options:
            exif = Image.Exif()
            exif.update(options["exif"])
            options = {**options, "exif": exif.tobytes()}
        image.save(folder / name, **options)
        sizes[name] = one(golden, folder / name, name, LIMITS)
    # Fewer pixels than it has.
    sizes["photo.jpg at most 6272"] = one(golden, folder / "photo.jpg", "photo.jpg at most 6272", {**LIMITS, "longest_edge": 6272})
    golden.value(sizes=sizes, pillow=Image.__version__)
    golden.save()


def one(golden: Golden, path: Path, name: str, size: dict) -> list[int]:
    processor = processor_of(size=size)
    made = processor(images=[load_image(str(path))], return_tensors="pt")
    values, grid = made["pixel_values"], made["image_grid_thw"][0].tolist()
    if name == "small.png":
        golden.array("values", values)
    # Of the others the levels from 0 to 255 that the values stand for, of one frame: the other is its copy.
    frames = values.view(-1, 3, 2, 14 * 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    mean = torch.tensor(processor.image_mean).view(1, 3, 1)
    std = torch.tensor(processor.image_std).view(1, 3, 1)
    exact = (frames[:, :, 0] * std + mean) * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    golden.array(f"levels.{name}", exact.round().to(torch.uint8))
    return grid
