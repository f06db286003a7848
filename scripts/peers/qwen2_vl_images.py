"""transformers' image processor of Qwen2-VL, with torchvision where that is at hand, and the same without it.

torchvision is not among the required packages: its builds fit one build of torch each, and one that does not fit keeps transformers from being imported. What
the processor takes from it is the resize of 8-bit tensors, which is torch's own kernel.
"""

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize


class ByTorch(Qwen2VLImageProcessorPil):
    """The processor for Pillow, with torchvision's resize in the place of Pillow's."""

    def resize(self, image, size, resample, factor, **kwargs):
        height, width = image.shape[-2:]
        to = smart_resize(height, width, factor, size.shortest_edge, size.longest_edge)
        if to == (height, width):
            return image
        pixels = torch.from_numpy(np.ascontiguousarray(image)).unsqueeze(0)
        assert pixels.dtype == torch.uint8
        return torch.nn.functional.interpolate(pixels, to, mode="bicubic", antialias=True)[0].numpy()


def processor(**options):
    try:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    except (ImportError, RuntimeError):
        return ByTorch(**options)
    return Both(ByTorch(**options), Qwen2VLImageProcessor(**options))


class Both:
    """Where both can be run, they must agree."""

    def __init__(self, own, theirs):
        self.own, self.theirs = own, theirs
        self.image_mean, self.image_std = theirs.image_mean, theirs.image_std

    def __call__(self, images, **options):
        own, theirs = self.own(images, **options), self.theirs(images, **options)
        assert torch.equal(own["image_grid_thw"], theirs["image_grid_thw"])
        assert (own["pixel_values"] - theirs["pixel_values"]).abs().max() < 1e-5
        return theirs
