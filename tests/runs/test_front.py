"""The public names: light to import, all there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cskd_pipeline as cskd

HEAVY = {"torch", "timm", "torchvision", "zarr", "numcodecs", "click", "numba", "yaml", "numpy", "PIL"}


def test_importing_the_library_loads_nothing_heavy() -> None:
    code = f"import sys, cskd_pipeline as cskd; dir(cskd); print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_is_there() -> None:
    assert sorted(cskd.__all__) == cskd.__all__
    assert {*dir(cskd)} == {*cskd.__all__, "__version__"}
    for name in cskd.__all__:
        found = getattr(cskd, name)
        assert found.__doc__, name
        assert found.__module__.startswith("cskd_pipeline."), name


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="'cskd_pipeline' has no attribute 'precomptue'"):
        _ = cskd.precomptue
