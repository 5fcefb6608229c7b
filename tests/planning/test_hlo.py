import pytest

from imagenet_repro.planning import hlo
from imagenet_repro.planning.hlo import Array

TEXT = """HloModule step, input_output_alias={ {0}: (0, {}, may-alias), {1}: (2, {}, must-alias) }

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %one = s32[] constant(1)
  %index = s32[] get-tuple-element(%state), index=0
  %next = s32[] add(%index, %one)
  %x = f32[8]{0} get-tuple-element(%state), index=1
  ROOT %out = (s32[], f32[8]{0}) tuple(%next, %x)
}

%condition (state.1: (s32[], f32[8])) -> pred[] {
  %state.1 = (s32[], f32[8]{0}) parameter(0)
  %index.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(12)
  ROOT %less = pred[] compare(%index.1, %end), direction=LT
}

ENTRY %main (a: f32[8], b: f32[2,3]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[2,3]{1,0} parameter(1), metadata={op_name="images"}
  %start = s32[] constant(2)
  %initial = (s32[], f32[8]{0}) tuple(%start, %a)
  %loop = (s32[], /*index=1*/f32[8]{0}) while(%initial), condition=%condition, body=%body
  %call = (f32[8]{0}, u8[16]{0}) custom-call(%a, %b), custom_call_target="__cudnn$convForward", metadata={op_name="conv(1)"}
  ROOT %result = f32[8]{0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (Array("f32", (3, 5)), 60),
        (Array("bf16", ()), 2),
        (Array("u4", (3,)), 2),
        (Array("token", ()), 0),
        (Array("bf16", (256, 56, 56, 64), "0,3,2,1:T(8,128)(2,1)"), 256 * 56 * 56 * 64 * 2),
        (Array("bf16", (256, 56, 56, 64), "3,0,2,1:T(8,128)(2,1)"), 256 * 56 * 56 * 128 * 2),  # 64 lanes of 128
        (Array("f32", (10, 100), "1,0:T(8,128)"), 16 * 128 * 4),
        (Array("f32", (1000,), "0:T(1024)"), 4096),
        (Array("f32", (8, 128), "1,0:T(8,128)S(1)"), 0),  # on the chip
        (Array("f32", (8, 128), "1,0:T(8,128)S(5)"), 0),  # in the host's memory
    ],
)
def test_bytes_of_an_array_in_main_memory(array, size):
    assert array.bytes == size


def test_a_type_is_read_as_its_arrays():
    assert hlo.arrays("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/(f32[], u32[4]{0}))") == [
        Array("bf16", (2, 3), "1,0:T(8,128)(2,1)S(1)"),
        Array("f32", ()),
        Array("u32", (4,), "0"),
    ]


def test_a_program_is_read():
    module = hlo.parse(TEXT)
    assert sorted(module.computations) == ["body", "condition", "main"]
    assert module.aliases == 2
    call = module.entry.instructions["call"]
    assert (call.opcode, call.operands, call.target, call.op_name) == (
        "custom-call", ("a", "b"), "__cudnn$convForward", "conv(1)",
    )  # fmt: skip
    assert module.entry.root.name == "result"
    assert [user.name for user in module.entry.users("a")] == ["initial", "call"]
    assert [parameter.arguments for parameter in module.entry.parameters] == ["0", "1"]


def test_a_loop_runs_as_often_as_its_condition_says():
    module = hlo.parse(TEXT)
    loop = module.entry.instructions["loop"]
    assert module.trip_count(module.entry, loop) == 10
    assert [body.name for body in module.called(loop)] == ["body"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("direction=LT", "direction=NE"),
        ("%start = s32[] constant(2)", "%start = s32[] custom-call(%a)"),
        ("%end = s32[] constant(12)", "%end = s32[] get-tuple-element(%state.1), index=0"),  # never less than itself
    ],
)
def test_a_loop_of_unknown_length(old, new):
    module = hlo.parse(TEXT.replace(old, new))
    assert module.trip_count(module.entry, module.entry.instructions["loop"]) in (None, 0)


def test_the_known_trip_count_of_a_gpu():
    text = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    module = hlo.parse(text.replace("direction=LT", "direction=NE"))
    assert module.trip_count(module.entry, module.entry.instructions["loop"]) == 7


def test_other_text_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("module @jit_step {}")
