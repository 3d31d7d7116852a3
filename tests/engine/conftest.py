import pytest

from ppl.engine.native import Folder, compiler
from ppl.engine.noise import fast_draws


@pytest.fixture(scope="session")
def compiled(request):
    """The library of draws, compiled once a checkout."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler on this machine")
    library = fast_draws(build=True, store=Folder(request.config.cache.mkdir("native")))
    assert library is not None, "the library draws other numbers than torch"
    return library


@pytest.fixture(params=["compiled", "plain"])
def library(request):
    return request.getfixturevalue("compiled") if request.param == "compiled" else None
