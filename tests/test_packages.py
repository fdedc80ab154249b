"""What is not installed is a line that says how to get it, before any work is lost."""

import sys

import pytest

from eventnet import LIF, cli
from eventnet.packages import MissingPackage, need
from eventnet.training import neurobench


def test_a_missing_package_is_named_with_its_remedy():
    need("torch", "this", "pip install torch")
    with pytest.raises(
        MissingPackage, match=r"a map needs the package atlas_of_mars, .*: pip install atlas-of-mars$"
    ) as found:
        need("atlas_of_mars", "a map", "pip install atlas-of-mars")
    assert found.value.name == "atlas_of_mars"


@pytest.mark.parametrize("name", ["neurobench", "snntorch"])
def test_the_harness_says_what_it_needs(monkeypatch, name):
    neurobench.classes.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda asked: None if asked == name else asked)
    with pytest.raises(MissingPackage, match=f"needs the package {name}, which is not installed: pip install"):
        neurobench.to_neurobench(LIF(4, 3), 1e-3, output=lambda spikes: spikes)
    neurobench.classes.cache_clear()


def test_nir_says_what_it_needs(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:3] == ["eventnet", "hardware", "nir"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(MissingPackage, match=r"a NIR file needs the package nir, .*: pip install 'eventnet\[nir\]'"):
        import eventnet.hardware.nir  # noqa: F401


def test_the_command_line_says_it_in_one_line(capsys):
    assert cli._call(lambda: need("atlas_of_mars", "a map", "pip install atlas-of-mars")) == 1
    assert capsys.readouterr().err == (
        "eventnet: error: a map needs the package atlas_of_mars, which is not installed: pip install atlas-of-mars\n"
    )
