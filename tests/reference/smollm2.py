"""Run by an interpreter that has PyTorch, transformers and gguf: what they make of a GGUF file.

usage: python smollm2.py FOLDER
FOLDER/asked.json has the GGUF's ``path``, ``texts``, ``chats``, a ``prompt`` and names of ``tensors``. Writes
FOLDER/answers.json (token ids of the texts, texts of the chats, token ids of the prompt, ids that end a text) and
FOLDER/tensors.npz (the tensors in float32, and ``logits`` of the prompt's last token); the tokenizer in FOLDER/saved.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = Path(sys.argv[1])
asked = json.loads((folder / "asked.json").read_text())
path = Path(asked["path"])
tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
prompt = tokenizer(asked["prompt"]).input_ids
with torch.no_grad():
    logits = model(torch.tensor([prompt])).logits[0, -1].numpy()
chat = tokenizer.apply_chat_template
answers = {
    "tokens": [tokenizer(text).input_ids for text in asked["texts"]],
    "decoded": [tokenizer.decode(tokenizer(text).input_ids) for text in asked["texts"]],
    "chats": [chat(messages, tokenize=False, add_generation_prompt=True) for messages in asked["chats"]],
    "prompt": prompt,
    "end": tokenizer.eos_token_id,
    "parameters": model.num_parameters(),
}
tokenizer.save_pretrained(folder / "saved")
(folder / "answers.json").write_text(json.dumps(answers))
weights = model.state_dict()
np.savez(folder / "tensors.npz", logits=logits, **{name: weights[name].float().numpy() for name in asked["tensors"]})
