"""Write the training checkpoints beside this file: `python tests/pretrained/files/write_checkpoints.py`.

It needs PyTorch and timm. Each file is of the same small network with the numbers of `expected.json`, saved as
torchvision's `references/classification/train.py` and timm's `train.py` save theirs, after one step.
"""

import argparse
import copy
import json
import pathlib
import tempfile
from collections import OrderedDict

import numpy as np
import timm.utils
import torch
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper

HERE = pathlib.Path(__file__).parent


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 2, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(2)
        self.fc = torch.nn.Linear(2, 3)

    def forward(self, images):
        return self.fc(self.bn1(self.conv1(images)).mean((2, 3)))


def trained():
    """Return a network, its optimizer, its schedule and its gradient scaler after a step."""
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [torch.optim.lr_scheduler.LinearLR(optimizer), torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)],
        [1],
    )
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(network(torch.randn(4, 3, 2, 2)).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    schedule.step()
    return network, optimizer, schedule, scaler


def averaged(network):
    """Return a copy of the network whose parameters are larger by one, in place of an average over many steps."""
    average = copy.deepcopy(network)
    for parameter in average.parameters():
        parameter.data += 1
    return average


def arguments():
    return argparse.Namespace(
        model="resnet50",
        lr=np.float64(0.1),
        output_dir=pathlib.PurePosixPath("runs"),
        mean=(0.485, 0.456, 0.406),
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        betas=np.array([0.9, 0.999]),
        size=torch.Size([3, 224, 224]),
    )


def torchvision(path, **options):
    network, optimizer, schedule, scaler = trained()
    average = torch.optim.swa_utils.AveragedModel(averaged(network))
    checkpoint = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": np.int64(3),
        "args": arguments(),
        "model_ema": average.state_dict(),
        "scaler": scaler.state_dict(),
    }
    torch.save(checkpoint, path, **options)


def timm_checkpoint(path):
    network, optimizer, _, _ = trained()
    average = timm.utils.ModelEmaV3(averaged(network))
    with tempfile.TemporaryDirectory() as directory:
        saver = timm.utils.CheckpointSaver(
            model=network,
            optimizer=optimizer,
            args=arguments(),
            model_ema=average,
            amp_scaler=timm.utils.NativeScaler(device="cpu"),
            checkpoint_dir=directory,
            recovery_dir=directory,
        )
        saver.save_checkpoint(3, metric=np.float64(76.5))
        path.write_bytes((pathlib.Path(directory) / "last.pth.tar").read_bytes())


def wrapped(path):
    """Write names as FSDP, activation checkpointing, torch.compile and an attribute `model` make them."""
    network = trained()[0]
    network.bn1 = checkpoint_wrapper.checkpoint_wrapper(network.bn1)
    compiled = torch.nn.ModuleDict({"model": torch.compile(network)})
    # An activation checkpoint removes its part from the names of a state_dict itself, FSDP needs several processes.
    new = {"conv1": "_fsdp_wrapped_module.conv1", "bn1": "bn1._checkpoint_wrapped_module"}
    state = OrderedDict()
    for name, tensor in compiled.state_dict(keep_vars=True).items():
        *outer, layer, last = name.split(".")
        state[".".join([*outer, new.get(layer, layer), last])] = tensor
    state["model._orig_mod.fc.weight"].note = "an attribute, which PyTorch saves with a parameter"
    torch.save({"state_dict": state, "hyper_parameters": arguments(), "pytorch-lightning_version": "2.0"}, path)


if __name__ == "__main__":
    states = {"trained": trained()[0].state_dict(), "averaged": averaged(trained()[0]).state_dict()}
    numbers = {kind: {name: tensor.tolist() for name, tensor in state.items()} for kind, state in states.items()}
    (HERE / "expected.json").write_text(json.dumps(numbers, indent=1) + "\n")
    torchvision(HERE / "torchvision.pth")
    torchvision(HERE / "torchvision_legacy.pth", _use_new_zipfile_serialization=False)
    torchvision(HERE / "torchvision_protocol4.pth", pickle_protocol=4)
    torchvision(HERE / "torchvision_legacy_protocol5.pth", pickle_protocol=5, _use_new_zipfile_serialization=False)
    timm_checkpoint(HERE / "timm.pth")
    wrapped(HERE / "wrapped.pth")
