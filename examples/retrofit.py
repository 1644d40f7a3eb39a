"""A pretrained language model learns to read its context only where it must. docs/retrofit.md explains it.

Run: python examples/retrofit.py HuggingFaceTB/SmolLM2-135M-Instruct speeches/ books/one.txt
"""

import sys

import torch
from transformers import AutoModelForCausalLM

import torchcram
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.texts import load_texts


def main(model, tokenizer, texts, *, out: str = "retrofitted", minutes: float = 10, context: int = 1024):
    made = torchcram.retrofit(model, tokenizer, texts, reads=0.25, minutes=minutes, context=context, out=out)
    for name, found in made.judged.items():
        print(f"reads {name}: {found.reads:.1%}, {found.divergence:.4f} nats from the untouched model")

    # What was saved is an ordinary model of Transformers.
    model = AutoModelForCausalLM.from_pretrained(out)
    prompt = torch.tensor([tokenizer(texts[0])["input_ids"][:context]])
    written = model.generate(prompt, max_new_tokens=8, do_sample=False)
    with torchcram.reading(model, "all"):
        untouched = model.generate(prompt, max_new_tokens=8, do_sample=False)
    same = (written == untouched)[:, prompt.shape[1] :].float().mean()
    print(f"{same:.0%} of the tokens that it writes are those of the untouched model")

    torchcram.remove(model)
    return made, untouched, model.generate(prompt, max_new_tokens=8, do_sample=False)


if __name__ == "__main__":
    main(*load_model(sys.argv[1]), load_texts(sys.argv[2:]))
