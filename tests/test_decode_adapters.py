"""Adapters in decoded tokens: which are copied, and that the copies do what PEFT does."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from audiomcq.decode_adapters import GROUPS, copy_adapters, project, refresh_adapters
from random_lalms import tiny

EVERYWHERE = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def adapted(targets: str = EVERYWHERE, **options: object) -> PeftModel:
    return get_peft_model(tiny(), LoraConfig(target_modules=targets, init_lora_weights=False, **options)).eval()


def layers_of(model: PeftModel) -> tuple[list[nn.Module], Tensor]:
    decoder = model.get_base_model().base_model.language_model
    return list(decoder.layers), decoder.embed_tokens.weight


def check_equal_to_peft(model: PeftModel) -> None:
    layers, weight = layers_of(model)
    for layer, copies in zip(layers, copy_adapters(layers, weight), strict=True):
        for part, names in GROUPS:
            modules = [getattr(getattr(layer, part), name) for name in names]
            base = modules[0].base_layer if hasattr(modules[0], "base_layer") else modules[0]
            hidden = torch.randn(3, 1, base.in_features)
            for mine, module in zip(project(modules, hidden, copies.get(names[0])), modules, strict=True):
                torch.testing.assert_close(mine, module(hidden), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("targets", [EVERYWHERE, r".*language_model.*\.(q|v|up)_proj"], ids=["all", "some"])
def test_copies_project_as_peft_does(targets: str) -> None:
    model = adapted(targets, lora_alpha=24)
    layers, weight = layers_of(model)
    groups = {names[0] for _, names in GROUPS} if targets == EVERYWHERE else {"q_proj", "gate_proj"}
    assert all(set(copies) == groups for copies in copy_adapters(layers, weight))
    check_equal_to_peft(model)


def use_dora() -> PeftModel:
    return adapted(use_dora=True)


def merge() -> PeftModel:
    model = adapted()
    model.base_model.merge_adapter()
    return model


def add_a_second_adapter() -> PeftModel:
    model = adapted()
    model.add_adapter("second", LoraConfig(target_modules=EVERYWHERE, init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])
    return model


def use_bias() -> PeftModel:
    return adapted(lora_bias=True)


def keep_adapters_in_full_precision() -> PeftModel:
    model = get_peft_model(tiny().to(torch.bfloat16), LoraConfig(target_modules=EVERYWHERE)).eval()
    assert layers_of(model)[0][0].self_attn.q_proj.lora_A["default"].weight.dtype == torch.float32
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    "make",
    [use_dora, merge, add_a_second_adapter, use_bias, keep_adapters_in_full_precision],
    ids=lambda f: f.__name__,
)
def test_other_adapters_are_left_to_peft(make: Callable[[], PeftModel]) -> None:
    model = make()
    assert all(copies == {} for copies in copy_adapters(*layers_of(model)))
    if make is not keep_adapters_in_full_precision:
        check_equal_to_peft(model)


@torch.no_grad()
def test_an_adapter_that_is_switched_off_is_not_copied() -> None:
    model = adapted()
    with model.disable_adapter():
        assert all(copies == {} for copies in copy_adapters(*layers_of(model)))
        check_equal_to_peft(model)


@torch.no_grad()
def test_under_autocast_adapters_are_copied_in_its_dtype() -> None:
    model = keep_adapters_in_full_precision()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        copies = copy_adapters(*layers_of(model))
    assert {group.down.dtype for layer in copies for group in layer.values()} == {torch.bfloat16}


@torch.no_grad()
def test_refreshed_copies_have_the_new_weights_at_the_old_addresses() -> None:
    model = adapted()
    layers, weight = layers_of(model)
    kept = copy_adapters(layers, weight)
    before = kept[0]["q_proj"].down.clone()
    address = kept[0]["q_proj"].down.data_ptr()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.mul_(2)
    refresh_adapters(kept, layers, weight)
    assert torch.equal(kept[0]["q_proj"].down, 2 * before)
    assert kept[0]["q_proj"].down.data_ptr() == address
    for fresh, old in zip(copy_adapters(layers, weight), kept, strict=True):
        for name, group in fresh.items():
            assert all(torch.equal(a, b) for a, b in zip(group.ups, old[name].ups, strict=True))
