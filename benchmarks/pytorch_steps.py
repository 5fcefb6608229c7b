"""Training steps of networks in PyTorch, for comparison; this module needs no JAX.

A network is timm's or torchvision's, as the reference of our network names it; without these libraries, a ResNet-18
or -34 written here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

AUXILIARY = ("googlenet", "inception_v3")  # torchvision's networks with auxiliary heads


@dataclasses.dataclass(frozen=True)
class PeerStep:
    """A measurement for PyTorch to make; all values can be written as JSON.

    Attributes:
      name: our name of the network.
      reference: the implementation that our network equals, such as `timm:vit_base_patch16_224`.
      image_size: side of the images in pixels.
      batch: images of a step.
      precision: "float32", or "bfloat16" for automatic mixed precision.
      sized: whether the network is built for images of one size.
      auxiliary: whether auxiliary heads are trained, where the network has them.
      compiled: whether `torch.compile` compiles the network on a GPU.
    """

    name: str
    reference: str
    image_size: int
    batch: int
    precision: str
    sized: bool = False
    auxiliary: bool = True
    compiled: bool = True


class UnavailableError(Exception):
    """PyTorch's libraries do not have the network."""


def create_network(request: PeerStep) -> tuple[Any, str]:
    """Return the network in training mode and the library that it comes from; raise UnavailableError without one."""
    library, _, reference = request.reference.partition(":")
    if library == "timm":
        try:
            import timm
        except ImportError as error:
            raise UnavailableError("timm is not installed") from error
        sized = {"img_size": request.image_size} if request.sized else {}
        return timm.create_model(reference, num_classes=1000, **sized), f"timm {timm.__version__}"
    if library != "torchvision":
        raise UnavailableError(f"{request.name} is as in '{request.reference}'; timm and torchvision do not have it")
    try:
        import torchvision
    except ImportError:
        return _without_torchvision(request.name, reference)
    options = {"init_weights": True, "aux_logits": request.auxiliary} if reference in AUXILIARY else {}
    return getattr(torchvision.models, reference)(weights=None, **options), f"torchvision {torchvision.__version__}"


def _without_torchvision(name: str, reference: str) -> tuple[Any, str]:
    """Return timm's network of the name that torchvision uses too, or one written here."""
    try:
        import timm
    except ImportError:
        return residual_network(name), "torch.nn"
    if not timm.is_model(reference):
        raise UnavailableError(f"torchvision is not installed, and timm has no '{reference}'")
    return timm.create_model(reference, num_classes=1000), f"timm {timm.__version__}"


def training_step(model: Any, request: PeerStep) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a function that starts a step on data that stays on the device, and one that waits for its end.

    On a GPU the network is in channels-last form and compiled, cuDNN tries its algorithms, and SGD is fused.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
    model = model.to(device, memory_format=torch.channels_last).train()
    run = torch.compile(model) if on_gpu and request.compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=on_gpu or None)
    images = torch.randn(request.batch, 3, request.image_size, request.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(request.batch, device=device) % 1000
    mixed = torch.autocast(device, torch.bfloat16, enabled=request.precision == "bfloat16")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with mixed:
            total = loss(run(images), labels)
        total.backward()
        optimizer.step()

    return step, torch.cuda.synchronize if on_gpu else lambda: None


def loss(outputs: Any, labels: Any) -> Any:
    """Return the cross-entropy, with that of auxiliary heads where there are any."""
    from torch.nn.functional import cross_entropy

    if not isinstance(outputs, tuple):
        return cross_entropy(outputs.float(), labels)
    main, *auxiliary = [cross_entropy(logits.float(), labels) for logits in outputs]
    return main + (0.4 if len(auxiliary) == 1 else 0.3) * sum(auxiliary)


def residual_network(name: str) -> Any:
    """Return ResNet-18 or -34 (He et al. 2015) in torch.nn; raise UnavailableError for any other network."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    depths = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
    if name not in depths:
        raise UnavailableError(f"without torchvision there is no '{name}' in PyTorch here, only {', '.join(depths)}")
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks, inputs = [], 64
    for stage, depth in enumerate(depths[name]):
        for block in range(depth):
            outputs = 64 * 2**stage
            blocks.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
