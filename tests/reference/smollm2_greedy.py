"""Run by an interpreter that has PyTorch, transformers and gguf: greedy answers in float32 of a GGUF file.

usage: python smollm2_greedy.py FOLDER
FOLDER/asked.json has the GGUF's ``path``, ``prompts`` (token ids) and how many tokens to make (``most``). Writes
FOLDER/greedy.npz: of prompt i tokens{i}, gaps{i} (between the two best logits at each step) and first{i}, the logits of
the first token.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

folder = Path(sys.argv[1])
asked = json.loads((folder / "asked.json").read_text())
path = Path(asked["path"])
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
found = {}
for number, prompt in enumerate(asked["prompts"]):
    given, cache, tokens, gaps = torch.tensor([prompt]), None, [], []
    for step in range(asked["most"]):
        with torch.no_grad():
            made = model(given, past_key_values=cache, use_cache=True)
        logits, cache = made.logits[0, -1], made.past_key_values
        best = logits.topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        given = torch.tensor([tokens[-1:]])
        if step == 0:
            found[f"first{number}"] = logits.numpy()
    found |= {f"tokens{number}": np.array(tokens), f"gaps{number}": np.array(gaps)}
np.savez(folder / "greedy.npz", **found)
