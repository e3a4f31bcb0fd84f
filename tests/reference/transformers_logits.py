"""Run by an interpreter that has PyTorch and transformers: small random models, and what they answer.

usage: python transformers_logits.py FOLDER
Of each FOLDER/NAME.json makes NAME/config.json, model.safetensors and weights.npz (float32), answers.npz (prompts,
tokens and logits of greedy decoding) and gradients.npz (targets of each prompt's tokens, the mean cross-entropy and
each weight's gradient); in NAME/bf16 and NAME/f16 the model once more, in several files.
"""

import json
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

STEPS = 4


def answer(given: dict[str, object], folder: Path) -> None:
    """The model of a config, with norms and biases that are not their plain defaults."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name or "ln_" in name else 0.0
            parameter.copy_(centre * ("bias" not in name) + 0.1 * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    prompts = [torch.randint(0, config.vocab_size, (length,)) for length in (7, 1, 11)]
    found = {}
    for number, prompt in enumerate(prompts):
        tokens = prompt[None]
        logits = []
        for _ in range(STEPS):
            with torch.no_grad():
                logits.append(model(tokens).logits[0, -1].numpy())
            tokens = torch.cat([tokens, torch.tensor([[int(logits[-1].argmax())]])], dim=1)
        found |= {f"prompt{number}": prompt.numpy(), f"tokens{number}": tokens[0].numpy()[len(prompt) :]}
        found[f"logits{number}"] = np.stack(logits)
    np.savez(folder / "answers.npz", **found)
    np.savez(folder / "gradients.npz", **gradients(model, prompts, config.vocab_size))
    for name, kind in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        deepcopy(model).to(kind).save_pretrained(folder / name, max_shard_size="20KB")


def gradients(model: torch.nn.Module, prompts: list[torch.Tensor], words: int) -> dict[str, np.ndarray]:
    """One backward pass over all prompts, each token with a random target."""
    targets = [torch.randint(0, words, (len(prompt),)) for prompt in prompts]
    losses = [
        torch.nn.functional.cross_entropy(model(prompt[None]).logits[0], target, reduction="sum")
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    loss = sum(losses) / sum(len(prompt) for prompt in prompts)
    loss.backward()
    found = {name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None}
    return found | {f"targets{i}": target.numpy() for i, target in enumerate(targets)} | {"loss": loss.detach().numpy()}


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        answer(json.loads(path.read_text()), path.with_suffix(""))
