"""Tests of the cache of compiled programs."""

import jax
import pytest

from imagenet_repro.training import allocator, devices

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Clear the environment except for the location of caches; restore the settings of this process afterwards."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setattr(allocator, "keep_memory", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def test_slow_compilations_are_stored_in_the_users_cache(environment, tmp_path):
    devices.start()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "imagenet_repro" / "compiled")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 2.0


def test_jax_settings_in_the_environment_take_precedence(environment):
    before = [getattr(jax.config, name) for name in SETTINGS]
    for name in SETTINGS:
        environment.setenv(name.upper(), "read by JAX when it was imported")
    devices.start()
    assert [getattr(jax.config, name) for name in SETTINGS] == before
