"""Write the compiled programs that the tests of planning read: small ones, whose traffic follows from their shapes.

    python -m tests.planning.make_programs        # needs libtpu and the CUDA plugin, as `main.py plan`

Run it again where a new version of a compiler writes another text, and look at what the tests then say.
"""

import re
from pathlib import Path

from imagenet_repro.planning import topology

FOLDER = Path(__file__).with_name("programs")


def main():
    """Compile every program for four TPUs and for four GPUs."""
    topology.silence()
    for name in ("v5e:2x2", "h100:4"):
        devices = topology.open_topology(name)
        for program, text in compiled(devices.devices):
            (FOLDER / f"{program}_{devices.facts.kind}.txt").write_text(shorten(text))


def compiled(devices):
    """Yield the name and the text of each program."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.asarray(devices), ("data",))
    whole, split = PartitionSpec(), PartitionSpec("data")

    def shape(sides, dtype=jnp.bfloat16, spec=whole):
        return jax.ShapeDtypeStruct(sides, dtype, sharding=NamedSharding(mesh, spec))

    def mapped(function, inputs, outputs, **options):
        return jax.jit(
            jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False), **options
        )

    def layers(x, weights):
        return lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0]

    def inputs_of_layers(x, weights):
        return lax.scan(lambda x, weight: (jnp.tanh(x @ weight), x), x, weights)[1]

    def update(params, gradients):
        return params - lax.pmean(gradients.sum(0), "data")

    weights, f32 = shape((12, 1024, 1024)), jnp.float32
    programs = {
        "product": (jax.jit(jnp.matmul), shape((4096, 2048)), shape((2048, 1024))),
        "layers": (jax.jit(layers), shape((4096, 1024)), weights),
        "inputs_of_layers": (jax.jit(inputs_of_layers), shape((4096, 1024)), weights),
        "lookup": (jax.jit(lambda table, rows: table[rows]), shape((10**6, 128), f32), shape((512,), jnp.int32)),
        "update": (
            mapped(update, (whole, split), whole, donate_argnums=0),
            shape((2048, 1024), f32),
            shape((16, 2048, 1024), f32, split),
        ),
        "gather": (
            mapped(lambda x: lax.all_gather(x, "data", tiled=True), split, whole),
            shape((4096, 1024), f32, split),
        ),
        "scatter": (mapped(lambda x: lax.psum_scatter(x, "data", tiled=True), whole, split), shape((4096, 1024), f32)),
    }
    for name, (function, *arguments) in programs.items():
        yield name, function.lower(*arguments).compile().as_text()


def shorten(text):
    """Return a program without the tables of source files between its first line and its first computation."""
    head, _, rest = text.partition("\n")
    first = re.search(r"^(%|ENTRY)", rest, flags=re.MULTILINE)
    return f"{head}\n\n{rest[first.start() :]}"


if __name__ == "__main__":
    main()
