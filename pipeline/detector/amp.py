"""In how many bits a network computes; its weights, and all that reads its outputs, stay float32."""

import torch

from pipeline.detector.config import NetworkPrecision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: NetworkPrecision, device: torch.device) -> torch.autocast:
    """A context in which networks compute so; float32 is as PyTorch has it: TF32 in a GPU's convolutions."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "float32")
