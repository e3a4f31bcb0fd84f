"""Run by an interpreter that has PyTorch and transformers: a small random LLaVA, and what it answers on an image.

usage: python transformers_llava.py FOLDER
Writes FOLDER/weights.npz (float32) and answers.npz: pixels, tokens (the image's patches among them) and last logits.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE = 59


def main() -> None:
    """Two prompts, each with one image of 3 x 3 patches; norms and biases are not their plain defaults."""
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=20, intermediate_size=30, num_hidden_layers=3, num_attention_heads=5, image_size=12, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=60,
        num_hidden_layers=2,
        hidden_size=36,
        num_attention_heads=9,
        intermediate_size=50,
        rms_norm_eps=1e-5,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, projector_hidden_act="gelu")
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and "bias" not in name else 0.0
            parameter.copy_(centre + 0.1 * torch.randn_like(parameter))
        pixels = torch.randn(2, 3, 12, 12)
        prompts = [[5, 7] + [IMAGE] * 9 + [11, 13, 3], [2] + [IMAGE] * 9 + [17]]
        logits = [
            model(torch.tensor([prompt]), pixel_values=pixels[i : i + 1]).logits[0, -1].numpy()
            for i, prompt in enumerate(prompts)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    tokens = {f"prompt{i}": np.where(np.array(prompt) == IMAGE, -1, prompt) for i, prompt in enumerate(prompts)}
    np.savez(folder / "answers.npz", pixels=pixels.numpy(), logits=np.stack(logits), **tokens)


if __name__ == "__main__":
    main()
