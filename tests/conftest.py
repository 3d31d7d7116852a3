"""What every test starts from: double precision, one thread, a fixed seed, no parameters, no handlers."""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "PPL_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"ppl-tests-{os.getuid()}")
)  # not the user's
os.environ["PPL_COMPILE"] = "never"  # tests say themselves where steps are compiled, whatever time they take

import pytest
import torch

import ppl
from ppl.tensors import native

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # here too, for the constants of test modules


@pytest.fixture(autouse=True)
def clean_slate():
    ppl.set_rng_seed(0)
    ppl.clear_param_store()
    yield
    torch.set_default_dtype(torch.float64)
    left = list(ppl.stack.active())
    ppl.stack._stack.set(None)
    assert not left, f"handlers left on the stack: {left}"


@pytest.fixture(params=["torch", "native"])
def sweeps(request):
    """Both ways through chains: by torch's operators, and by our own, which the first test that wants them compiles."""
    if request.param == "torch":
        with native.disabled():
            yield
        return
    try:
        native.build()
    except native.CannotCompile as error:
        pytest.skip(str(error))
    yield
