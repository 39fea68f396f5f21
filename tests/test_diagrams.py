"""Every box of the method's diagrams has code that carries it out, and this says which."""

import importlib

import pytest

# A box's label as it stands in the diagrams -> where it is in the code, as module.name. A new stage adds its boxes.
IDENTIFIERS = {
    "Pretrained LLM": ["pipeline.pretrain", "sft.pretrain"],
    "Human-written Outputs": ["data.world.demonstration"],
    "Supervised Finetuning": ["sft.train"],
    "Cold Start SFT": ["pipeline.cold_start_sft", "sft.cold_start_sft"],
    "Overall SFT": ["pipeline.overall_sft", "sft.overall_sft"],
}


@pytest.mark.parametrize("label", IDENTIFIERS)
def test_every_box_exists_in_the_code(label):
    for identifier in IDENTIFIERS[label]:
        module, name = identifier.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), name, None)), f"{label}: there is no {identifier}"
