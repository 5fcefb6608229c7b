"""A powercap tree in a temporary directory, an NVML of invented cards, and counters that a test turns."""

import types

JOULE = 1_000_000  # microjoules


def zone(root, directory, name, *, joules=0, largest=262_143):
    """Write a zone of RAPL; return the path of its counter."""
    path = root / directory
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{largest * JOULE}\n")
    (path / "energy_uj").write_text(f"{joules * JOULE}\n")
    return path / "energy_uj"


def write(counter, joules):
    counter.write_text(f"{round(joules * JOULE)}\n")


class NVMLError(Exception):
    """The base of NVML's errors."""


class Card:
    """A card: the energy that it counts in mJ, or None where it counts none."""

    def __init__(self, uuid, millijoules=0, *, name="H200", is_divided=None):
        self.uuid, self.millijoules, self.name, self.is_divided = uuid, millijoules, name, is_divided


def nvml(*cards):
    """Return a module in the place of `pynvml`."""

    def energy(card):
        if card.millijoules is None:
            raise NVMLError("Not Supported")
        return card.millijoules

    def mig_mode(card):
        if card.is_divided is None:
            raise NVMLError("Not Supported")
        return [int(card.is_divided), int(card.is_divided)]

    module = types.ModuleType("pynvml")
    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: len(cards),
        "nvmlDeviceGetHandleByIndex": lambda index: cards[index],
        "nvmlDeviceGetUUID": lambda card: card.uuid,
        "nvmlDeviceGetName": lambda card: card.name,
        "nvmlDeviceGetMigMode": mig_mode,
        "nvmlDeviceGetTotalEnergyConsumption": energy,
    }
    for name, function in functions.items():
        setattr(module, name, function)
    module.NVMLError = NVMLError
    return module


class Counter:
    """A counter that a test turns."""

    def __init__(self, id, part):
        self.id, self.part, self.value, self.error = id, part, 0.0, None

    def joules(self):
        if self.error is not None:
            raise self.error
        return self.value


class Clock:
    """A clock that a test turns, and counters that turn with it."""

    def __init__(self, **watts):
        self.now, self.watts = 0.0, {}
        self.counters = {name: Counter(name, name) for name in watts}
        self.watts = watts

    def __call__(self):
        return self.now

    def sleep(self, seconds, **watts):
        """Let time pass, at the given powers or the first ones."""
        self.now += seconds
        for name, counter in self.counters.items():
            counter.value += seconds * (self.watts | watts)[name]
