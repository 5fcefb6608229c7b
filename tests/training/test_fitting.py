"""The choice of rematerialisation, with compilers and devices whose memory the tests set."""

import dataclasses

import jax
import pytest

from imagenet_repro.errors import UserError
from imagenet_repro.models.nn.stack import POLICIES
from imagenet_repro.training import fitting, parallel
from imagenet_repro.training.state import TrainState
from imagenet_repro.training.systems import NetworkSystem
from tests.training import test_fsdp_vit as vit

TPU_ERROR = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 22.75G of 15.75G hbm. Exceeded by 7.0G."


@dataclasses.dataclass
class Memory:
    """The answer of a compiled step to `memory_analysis`."""

    temp_size_in_bytes: int
    argument_size_in_bytes: int = 1000
    output_size_in_bytes: int = 900
    alias_size_in_bytes: int = 900
    generated_code_size_in_bytes: int = 0

    def memory_analysis(self):
        return self

    def __call__(self, state, batch, learning_rate):
        raise NotImplementedError


class Compiler(parallel.ShardMap):
    """A spread whose compiler needs, or refuses with an error, what is set for each policy."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.tried = answers, []

    def compile_training(self, step, state, batch):
        policy = step.network.model(state.params, {}).blocks.remat_policy
        self.tried.append(policy)
        answer = self.answers[policy]
        if isinstance(answer, str):
            raise jax.errors.JaxRuntimeError(answer)
        return Memory(answer)


def fit(answers, limit, remat=None):
    config = vit.config("vit_tiny_patch16", 32, 1, remat=remat, parallel="pmap")
    system = NetworkSystem.abstract(config, 10, jax.devices())
    compiler = Compiler(answers)
    step = system.train_step(1)
    state = TrainState(None, system.network.params, {}, (), {}, None)
    return compiler, lambda: fitting.compile_training(compiler, step, state, {}, limit)


@pytest.mark.parametrize(
    ("limit", "remat", "expected"),
    [
        (None, None, ["none"]),
        (10_000, None, ["none"]),
        (9_999, None, ["none", "products"]),
        (4_999, None, ["none", "products", "blocks"]),
        (10, None, ["none", "products", "blocks"]),
        (10, False, ["none"]),
        (10, True, ["blocks"]),
    ],
)
def test_the_cheapest_policy_that_fits_is_taken_and_an_explicit_choice_is_obeyed(limit, remat, expected):
    compiler, compile_step = fit({"none": 9_000, "products": 4_000, "blocks": 1_000}, limit, remat)
    result = compile_step()
    assert compiler.tried == expected
    assert result.record["limit"] == limit
    if remat is None:
        assert result.record["policy"] == expected[-1]
        assert list(result.record["tried"].values()) == [10_000, 5_000, 2_000][: len(expected)]
        assert bool(result.describe()) == (len(expected) > 1)


def test_a_step_that_the_compiler_refuses_is_compiled_again():
    _, compile_step = fit({"none": TPU_ERROR, "products": 4 * 10**9, "blocks": 10}, 16 * 10**9)
    result = compile_step()
    assert result.record["policy"] == "products"
    assert result.record["tried"]["none"] == round(22.75 * 2**30)
    assert "4.0 GB a device of 16.0 GB, and 24.4 GB without" in result.describe()


def test_a_step_that_fits_in_no_form_is_an_error_with_what_would_help():
    _, compile_step = fit(dict.fromkeys(POLICIES, TPU_ERROR), 16 * 10**9)
    with pytest.raises(UserError, match=r"config\.batch_size: .*24\.4 GB.*config\.accumulate=2.*fsdp"):
        compile_step()


def test_other_errors_of_the_compiler_are_not_hidden():
    _, compile_step = fit({"none": "INTERNAL: a bug"}, None)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        compile_step()
