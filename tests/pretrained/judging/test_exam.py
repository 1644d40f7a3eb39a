"""The exam: every answer stands in the context, once; what is right is right, and no more."""

import random
from dataclasses import replace

import pytest
import torch

from torchcram.pretrained.judging.exam import Paper, Question
from torchcram.pretrained.judging.haystack import context_of, encoded, tokens_of
from torchcram.pretrained.judging.retrieval import TASKS, Score, examine, worst_first
from torchcram.pretrained.retrofit.install import memories, reading


@pytest.mark.parametrize("task", TASKS)
def test_a_paper_holds_its_answers(task):
    for seed in range(20):
        paper = TASKS[task](random.Random(seed))
        told = " ".join(paper.facts)
        for talk in paper.talks:
            for question in talk:
                for part in question.answer.strip().split(" and "):
                    assert told.count(f" {part}") == 1, (part, told)
                assert not question.text.endswith(" ")
        assert paper == TASKS[task](random.Random(seed))
        assert paper != TASKS[task](random.Random(seed + 100))


def test_variables_lead_back_to_their_value():
    for seed in range(20):
        paper = TASKS["variable tracking"](random.Random(seed))
        for ((question,),) in zip(paper.talks, strict=True):
            name = question.text.split()[-2]
            while True:
                (fact,) = [
                    fact
                    for fact in paper.facts
                    if fact.startswith((f"The variable {name} ", f"The value of the variable {name} "))
                ]
                if fact.startswith("The value"):
                    break
                name = fact.split()[-1].rstrip(".")
            assert fact.endswith(f"is{question.answer}.")


def test_second_turns_ask_for_something_else():
    for first, second in TASKS["two turns"](random.Random(1)).talks:
        assert first.text != second.text
        assert first.answer != second.answer


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("tokens", [500, 801])
def test_a_context_is_as_long_as_it_is_said_and_holds_all_facts(task, tokens, tokenizer):
    draw = random.Random(3)
    paper = TASKS[task](draw)
    ids = context_of(paper, tokenizer, tokens=tokens, draw=draw).tolist()
    assert len(ids) == tokens
    assert ids[0] == 1
    last = -1
    for fact in paper.facts:
        tokens_in = encoded(tokenizer, f" {fact}")
        (place,) = [start for start in range(len(ids)) if ids[start : start + len(tokens_in)] == tokens_in]
        assert place > last
        last = place


def test_too_short_a_context_is_told(tokenizer):
    with pytest.raises(ValueError, match="too short for the facts of an exam"):
        context_of(TASKS["several keys"](random.Random(0)), tokenizer, tokens=100, draw=random.Random(0))


def test_an_answer_ends_its_question(tokenizer):
    ids, answer = tokens_of(Question(text="\nA is", answer=" 12"), tokenizer)
    assert answer == 3
    assert ids[-3:].tolist() == encoded(tokenizer, " 12")

    class Merging(type(tokenizer)):
        """Takes the last letter of the question and the blank together."""

        def __call__(self, text, **options):
            return super().__call__(text.replace("s 1", "#"), **options)

    ids, answer = tokens_of(Question(text="\nA is", answer=" 12"), Merging())
    assert ids[-answer:].tolist() == encoded(tokenizer, "#2")


def oracle(right):
    """A model whose likeliest next token is the right one in so many of its answers."""

    class Oracle:
        calls = 0

        def __init__(self, model):
            self.model = model

        def __getattr__(self, name):
            return getattr(self.model, name)

        def __call__(self, input_ids, **kept):
            output = self.model(input_ids=input_ids, **kept)
            logits = torch.nn.functional.one_hot(input_ids.roll(-1, 1), 64).float()
            if Oracle.calls % right[1] >= right[0]:
                logits[:, -2] = 0.0
            Oracle.calls += 1
            output.logits = logits
            return output

    return Oracle


@pytest.mark.parametrize(("right", "expected"), [((1, 1), 4), ((1, 2), 2), ((0, 1), 0)])
def test_one_wrong_token_is_a_wrong_answer(right, expected, model, tokenizer):
    scores = examine(
        oracle(right)(model),
        tokenizer,
        {"no reads": lambda: reading(model, "none")},
        papers=1,
        context=400,
        draw=random.Random(0),
        tasks={"several keys": TASKS["several keys"]},
    )
    (score,) = scores
    assert (score.right, score.untouched, score.asked, score.reads) == (expected, expected, 4, 0.0)


def test_talks_start_from_the_context_alone(model, tokenizer):
    """A talk is answered as it is without the talks before it, and as without a cache."""
    question = Question(text="\nQ", answer=" x")
    paper = Paper(facts=("Fact.",), talks=((question,),))
    ids = context_of(paper, tokenizer, tokens=80, draw=random.Random(0))
    asked, answer = tokens_of(question, tokenizer)
    with torch.no_grad(), reading(model):
        alone = model(input_ids=torch.cat((ids, asked))[None]).logits[0, -answer - 1 : -1].argmax(-1)
    talk = replace(question, answer=" " + chr(64 + int(alone[1])) if int(alone[1]) > 1 else " x")
    expected = bool((alone == tokens_of(talk, tokenizer)[0][-answer:]).all())
    drawn = {"made up": lambda draw: Paper(facts=("Fact.",), talks=((talk,),) * 3)}
    (score,) = examine(
        model, tokenizer, {"routed": lambda: reading(model)}, papers=1, context=80, draw=random.Random(0),
        tasks=drawn,
    )  # fmt: skip
    assert score.right == 3 * expected
    assert 0 < score.reads < 1


def test_the_worst_task_comes_first():
    def score(task, right, untouched):
        return Score(task=task, way="x", right=right, untouched=untouched, asked=10, reads=0.1)

    order = worst_first([score("a", 9, 10), score("b", 0, 0), score("c", 4, 8), score("a", 3, 10)])
    assert [each.task for each in order] == ["a", "a", "c", "b"]
    assert [each.share for each in order] == [0.9, 0.3, 0.5, None]


def test_reads_are_those_of_the_way(model, tokenizer):
    ways = {"none": lambda: reading(model, "none"), "all": lambda: reading(model, "all")}
    scores = examine(
        model,
        tokenizer,
        ways,
        papers=1,
        context=400,
        draw=random.Random(0),
        tasks={"needle": TASKS["needle"]},
    )
    reads = {score.way: score.reads for score in scores}
    assert reads["none"] == 0
    near = model.model.layers[0].self_attn.cram.reach
    assert reads["all"] > 1 - (near.sinks + near.window) / 400
    assert len(memories(model)) == 2
